"""When a population is compiled, trained by Trainers after all, or in smaller chunks."""

import pytest
import pytorch_lightning as pl
import torch
from helpers.data import CLASSES, FEATURES, doubles
from helpers.fits import CRITERIA, equal, fitness, inner_fit, nested, running, trained
from helpers.modules import classifier, cnn, seeded
from torch import nn

from tglo_lightning.evaluation import TrainerEvaluator, VectorizedEvaluator
from tglo_lightning.evaluation.vectorized.stack import flushed
from tglo_lightning.search import Budget, Criterion

Classifier = classifier(pl)


def compiled(fit, criteria=CRITERIA[:2], **options):
    """The weights of a population that is compiled."""
    evaluator = VectorizedEvaluator(compile=True, **options)
    weights = trained(evaluator, fit, criteria)[1]
    assert evaluator.compile
    return weights


@pytest.mark.slow
@pytest.mark.parametrize("chunk_size", [None, 2, 1])
def test_compiled_as_it_is_uncompiled(tmp_path, chunk_size):
    """Accumulation, clipping, a parameter that no loss depends on, one that is frozen, BatchNorm; in float64."""

    class Idle(Classifier):
        def __init__(self):
            super().__init__(cnn())
            self.idle = nn.Parameter(torch.ones(3))
            self.net[0].bias.requires_grad_(False)

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-2, weight_decay=0.1)

    limits = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.05, "precision": "64-true"}
    fit = inner_fit(pl, tmp_path, seeded(Idle).double(), doubles(images=True), Budget(epochs=2), **limits)
    expected = trained(VectorizedEvaluator(chunk_size=chunk_size), fit, CRITERIA[:3])[1]
    torch.testing.assert_close(compiled(fit, CRITERIA[:3], chunk_size=chunk_size), expected)
    assert torch.equal(expected[0]["idle"], torch.ones(3).double())


@pytest.mark.slow
def test_compiled_in_bf16_with_dropout_and_in_pieces(tmp_path):
    net = nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, CLASSES))
    fit = inner_fit(pl, tmp_path, seeded(Classifier, net), budget=Budget(steps=6), precision="bf16-mixed")
    evaluator = VectorizedEvaluator(compile=True)
    first = fitness(evaluator, fit, CRITERIA)
    assert [score.fitness for score in trained(evaluator, fit, CRITERIA, pieces=(3,))[0]] == first
    assert evaluator.compile


@pytest.mark.slow
def test_a_search_is_compiled_once(tmp_path):
    """With a layer that is frozen, and new for each population."""
    fit = inner_fit(pl, tmp_path, seeded(Classifier), budget=Budget(epochs=2), init="reset")
    fit.module.net[0].requires_grad_(False)
    graphs = torch._dynamo.utils.counters["stats"]
    graphs.clear()
    with running(VectorizedEvaluator(compile=True), fit) as evaluator:
        for seed in range(3):
            population = evaluator.start(CRITERIA, seed)
            population.advance(2)
            found = [score.fitness for score in population.scores()]
            population.close()
            assert graphs["unique_graphs"] == 1
        assert evaluator.compile
    assert found == fitness(VectorizedEvaluator(), fit, CRITERIA, 2)


@pytest.mark.slow
def test_compiled_again_where_a_population_differs(tmp_path):
    class Scaled(Classifier):
        def __init__(self):
            super().__init__()
            self.scale = 1 + float(torch.rand(()))

        def forward(self, x):
            return self.scale * super().forward(x)

    fit = inner_fit(pl, tmp_path, Scaled(), init=Scaled)
    with running(VectorizedEvaluator(compile=True), fit) as evaluator:
        for seed in range(2):
            population = evaluator.start(CRITERIA, seed)
            population.advance(3)
            list(population.scores())
            expected = trained(VectorizedEvaluator(), fit, CRITERIA, seed)[1]
            torch.testing.assert_close([population.weights(m) for m in range(5)], expected, rtol=1e-4, atol=1e-6)
            population.close()


@pytest.mark.slow
def test_compiled_steps_may_differentiate_twice(tmp_path):
    class Penalised(Classifier):
        def training_step(self, batch, batch_idx):
            hidden = self.net[:-1](batch[0])
            loss = self.criterion(self.net[-1](hidden), batch[1])
            (gradient,) = torch.autograd.grad(loss, hidden, create_graph=True)
            return loss + 1000 * gradient.pow(2).sum()

    fit = inner_fit(pl, tmp_path, seeded(Penalised).double(), doubles(), precision="64-true")
    expected = trained(VectorizedEvaluator(chunk_size=1), fit)[1]
    torch.testing.assert_close(compiled(fit, chunk_size=1), expected)


def test_goes_on_uncompiled_where_compiling_fails(tmp_path, monkeypatch):
    def compile(*args, **kwargs):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", compile)
    fit = inner_fit(pl, tmp_path, seeded(Classifier), budget=Budget(steps=2))
    evaluator = VectorizedEvaluator(compile=True)
    with pytest.warns(UserWarning, match="uncompiled: RuntimeError: no compiler"):
        scores, _ = trained(evaluator, fit, pieces=(1,))
    assert all(score.ok for score in scores)
    assert not evaluator.compile


def test_training_that_fails_midway_is_done_by_nested_trainers(tmp_path):
    class Late(Classifier):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss if batch_idx < 3 else loss + 0.0 * loss.detach().item()

    fit = inner_fit(pl, tmp_path, seeded(Late), budget=Budget(steps=5))
    expected, _ = trained(VectorizedEvaluator(), fit.with_budget(Budget(steps=3)))
    with running(VectorizedEvaluator(), fit) as evaluator:
        population = evaluator.start(CRITERIA[:3], 1)
        population.advance(3)
        assert [score.fitness for score in list(population.scores())[:2]] == [score.fitness for score in expected]
        population.keep([0, 2])
        population.advance(2)
        pairs = zip(population.members, population.scores(), strict=True)
        with pytest.warns(UserWarning, match="nested Trainers"):
            found = [(score.fitness, population.weights(member)) for member, score in pairs]
        population.close()
    scores, weights = trained(TrainerEvaluator(), fit, [CRITERIA[0], CRITERIA[2]])
    assert [score for score, _ in found] == [score.fitness for score in scores]
    assert equal([own for _, own in found], weights)


def test_an_original_loss_that_cannot_be_mapped_is_trained_by_trainers(tmp_path):
    class Counting(nn.CrossEntropyLoss):
        calls = 0

        def forward(self, logits, target):
            self.calls += 1
            return super().forward(logits, target)

    fit = inner_fit(pl, tmp_path, seeded(Classifier, criterion=Counting()))
    criteria = [CRITERIA[0], Criterion.original(), CRITERIA[1]]
    scores, weights = trained(VectorizedEvaluator(), fit, criteria, pieces=(2,))
    assert [score.fitness for score in scores] == pytest.approx(nested(fit, criteria))
    assert set(weights[1]) >= {name for name, _ in fit.module.named_parameters()}


def test_chunks_fit_into_the_memory(tmp_path, monkeypatch):
    fit = inner_fit(pl, tmp_path, seeded(Classifier), budget=Budget(steps=2))
    sizes = []
    for free in (1, 2**40):
        monkeypatch.setattr(
            "tglo_lightning.evaluation.vectorized.loop.available_memory", lambda device, free=free: free
        )
        with running(VectorizedEvaluator(), fit) as evaluator:
            population = evaluator.start(CRITERIA, 0)
            population.advance(2)
            list(population.scores())
            (stack,) = set(population.trainings.values())
            sizes.append([chunk.size for chunk in stack.loop.chunks])
            population.close()
    assert sizes == [[1] * 5, [5]]


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), (1.5, TypeError)])
def test_chunk_sizes_that_are_none(size, error):
    with pytest.raises(error, match="`chunk_size` must be"):
        VectorizedEvaluator(chunk_size=size)


def test_denormals_are_flushed_for_the_time_of_a_training():
    tiny = torch.tensor([1e-310], dtype=torch.float64)
    assert tiny * 0.5 > 0
    with flushed(), flushed():
        assert tiny * 0.5 == 0
    assert tiny * 0.5 > 0
