"""What every kind of population keeps to: training in pieces, letting go of members, a step for each criterion."""

import gc
import threading
import weakref
from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch
from helpers.data import blobs, doubles, loader, loaders
from helpers.fits import CRITERIA, equal, inner_fit, running, trained
from helpers.modules import classifier, cnn, manual, mlp, seeded
from torch import nn
from torch.optim import SGD, Adam, AdamW, lr_scheduler

from tglo_lightning.evaluation import TrainerEvaluator, VectorizedEvaluator
from tglo_lightning.search import Budget, Criterion

# A fall back would hide what does not work
pytestmark = pytest.mark.filterwarnings("error:Training a population")

EVALUATORS = {
    "trainer": TrainerEvaluator,
    "sequential": lambda: VectorizedEvaluator(chunk_size=1),
    "vectorized": VectorizedEvaluator,
}
every_evaluator = pytest.mark.parametrize("evaluator", EVALUATORS)
Classifier = classifier(pl)


class Cosine(Classifier):
    def configure_optimizers(self):
        optimizer = Adam(self.parameters(), 0.02)
        schedule = lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.estimated_stepping_batches)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Accumulating(manual(pl)):
    """Steps after every fourth batch, by hand; an epoch has six."""

    seen = 0

    def training_step(self, batch, batch_idx):
        self.seen += 1
        self.manual_backward(self.criterion(self(batch[0]), batch[1]))
        if self.seen % 4 == 0:
            self.optimizers().step()
            self.optimizers().zero_grad()


def own_generator():
    """Data that are shuffled by a generator of the loader's own."""
    shuffled = loader(blobs(seed=1), shuffle=True, generator=torch.Generator().manual_seed(3))
    return loaders() | {"train_dataloaders": shuffled}


CASES = {
    "dropout": (lambda: Classifier(mlp(0.3)), loaders, Budget(epochs=3), [1, 1], {}),
    "own generator, mid-epoch": (Classifier, own_generator, Budget(steps=10), [4, 3], {}),
    "cosine, accumulation": (Cosine, loaders, Budget(steps=7), [2, 3], {"accumulate_grad_batches": 2}),
    "gradients across epochs": (Accumulating, loaders, Budget(epochs=3), [1, 1], {}),
    "batchnorm": (lambda: Cosine(cnn()), lambda: loaders(images=True), Budget(epochs=2), [1], {}),
}


@every_evaluator
@pytest.mark.parametrize("case", CASES)
def test_training_in_pieces_is_training_at_once(tmp_path, evaluator, case):
    build, data, budget, pieces, options = CASES[case]
    fit = inner_fit(pl, tmp_path, seeded(build), data(), budget, **options)
    scores, weights = trained(EVALUATORS[evaluator](), fit)
    assert all(score.ok for score in scores)
    for look in (True, False):
        again, own = trained(EVALUATORS[evaluator](), fit, pieces=pieces, look=look)
        assert [score.fitness for score in again] == [score.fitness for score in scores]
        assert equal(own, weights)
    assert not [thread for thread in threading.enumerate() if thread.name == "tglo-training"]


def test_each_look_sees_the_training_as_it_stands(tmp_path):
    """With a constant rate, the score after a piece is that of a training of its length; in every evaluator."""
    fit = inner_fit(pl, tmp_path, seeded(Classifier, lr=0.02), budget=Budget(steps=9))
    expected = [
        [score.fitness for score in trained(TrainerEvaluator(), fit.with_budget(Budget(steps=steps)))[0]]
        for steps in (2, 6, 9)
    ]
    for evaluator in EVALUATORS.values():
        with running(evaluator(), fit) as chosen:
            population = chosen.start(CRITERIA[:2], 1)
            found = []
            for piece in (2, 4, 3):
                population.advance(piece)
                found.append([score.fitness for score in population.scores()])
                # to ask again costs nothing and changes nothing
                assert [score.fitness for score in population.scores()] == found[-1]
            population.close()
        assert found == expected
    assert len({tuple(row) for row in expected}) == 3


@every_evaluator
def test_kept_members_go_on_as_if_nothing_had_happened(tmp_path, evaluator):
    fit = inner_fit(pl, tmp_path, seeded(Cosine), budget=Budget(steps=8))
    criteria = [*CRITERIA[:3], Criterion.original(), replace(CRITERIA[3], step=0.5)]
    scores, weights = trained(EVALUATORS[evaluator](), fit, criteria)
    kept = [1, 3, 4]
    with running(EVALUATORS[evaluator](), fit) as chosen:
        population = chosen.start(criteria, 1)
        population.advance(3)
        assert len(list(population.scores())) == 5
        population.keep(kept)
        assert population.members == kept
        population.advance(5)
        for member, score in zip(kept, population.scores(), strict=True):
            assert score.fitness == scores[member].fitness
            exact = {} if evaluator != "vectorized" else {"rtol": 1e-4, "atol": 1e-6}
            for name, value in population.weights(member).items():
                torch.testing.assert_close(value, weights[member][name], **({"rtol": 0, "atol": 0} | exact))
        population.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "tglo-training"]


def test_the_networks_that_are_not_kept_are_freed(tmp_path, monkeypatch):
    monkeypatch.setattr("tglo_lightning.evaluation.trainer.COLLECTED_BYTES", 1)
    fit = inner_fit(pl, tmp_path, seeded(Classifier), budget=Budget(epochs=3))
    population = TrainerEvaluator()
    with running(population, fit):
        population = population.start(CRITERIA[:3], 1)
        population.advance(1)
        list(population.scores())
        modules = [weakref.ref(training.module) for training in population.trainings.values()]
        population.keep([1])
        assert [module() is None for module in modules] == [True, False, True]
        population.close()
    assert modules[1]() is None


def test_the_stacks_shrink_to_what_is_kept(tmp_path):
    fit = inner_fit(pl, tmp_path, seeded(Cosine), budget=Budget(steps=6))
    with running(VectorizedEvaluator(), fit) as evaluator:
        population = evaluator.start(CRITERIA, 1)
        population.advance(2)
        list(population.scores())
        (stack,) = set(population.trainings.values())
        old = weakref.ref(next(iter(stack.loop.chunks[0].params.values())))
        population.keep([0, 4])
        (chunk,) = stack.loop.chunks
        state = stack.loop._optimizer.state
        assert {len(p) for p in chunk.params.values()} == {2}
        assert set(state) == set(chunk.params.values())
        assert {len(entry["exp_avg"]) for entry in state.values()} == {2}
        gc.collect()
        assert old() is None
        population.keep([])
        assert stack.loop is None
        population.close()


def test_chunks_of_which_nobody_is_kept_are_dropped(tmp_path):
    fit = inner_fit(pl, tmp_path, seeded(Cosine), budget=Budget(steps=6))
    expected = trained(VectorizedEvaluator(chunk_size=2), fit, CRITERIA)[0][4].fitness
    with running(VectorizedEvaluator(chunk_size=2), fit) as evaluator:
        population = evaluator.start(CRITERIA, 1)
        population.advance(3)
        list(population.scores())
        population.keep([4])
        population.advance(3)
        assert [score.fitness for score in population.scores()] == [expected]
        population.close()


# The step of a criterion


def assert_near(found, expected):
    """Stacks may have buffers of their own."""
    shared = [{name: one[name] for name in other} for one, other in zip(found, expected, strict=True)]
    torch.testing.assert_close(shared, expected)


def optimized(make):
    class Module(Classifier):
        def configure_optimizers(self):
            return make(self, self.lr)

    return Module


def scheduled(optimizer, schedule, interval="step"):
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": interval}}


def groups(module, lr):
    first, last = module.net[0], module.net[3]
    return SGD([{"params": first.parameters(), "lr": 2 * lr}, {"params": last.parameters()}], lr, momentum=0.9)


def warmup(module, lr):
    optimizer = Adam(module.parameters(), lr)
    return scheduled(optimizer, lr_scheduler.LinearLR(optimizer, 0.1, total_iters=4))


def chain(module, lr):
    optimizer = SGD(module.parameters(), lr, momentum=0.9)
    parts = [
        lr_scheduler.LinearLR(optimizer, 0.1, total_iters=2),
        lr_scheduler.CosineAnnealingLR(optimizer, 5, eta_min=lr / 8),
    ]
    return scheduled(optimizer, lr_scheduler.SequentialLR(optimizer, parts, [2]))


def one_cycle(module, lr):
    optimizer = AdamW(module.parameters(), lr, weight_decay=0.1)
    return scheduled(optimizer, lr_scheduler.OneCycleLR(optimizer, max_lr=[2 * lr], total_steps=20))


def steps(module, lr):
    optimizer = SGD(module.parameters(), lr, momentum=0.9, weight_decay=0.1)
    return scheduled(optimizer, lr_scheduler.StepLR(optimizer, 1, 0.5), "epoch")


class Early(Classifier):
    """Makes its optimizer when it is made, and the schedule later."""

    def __init__(self, lr=0.1):
        super().__init__(lr=lr)
        self.optimizer = AdamW(self.parameters(), lr)

    def configure_optimizers(self):
        return scheduled(self.optimizer, lr_scheduler.OneCycleLR(self.optimizer, self.lr, total_steps=20))


class Earlier(Classifier):
    """Makes its optimizer and the schedule when it is made."""

    def __init__(self, lr=0.1):
        super().__init__(lr=lr)
        self.optimizer = SGD(self.parameters(), lr)
        self.schedule = lr_scheduler.CosineAnnealingLR(self.optimizer, 2, eta_min=lr / 8)

    def configure_optimizers(self):
        return [self.optimizer], [self.schedule]


STEPPED = {
    "adamw": optimized(lambda m, lr: AdamW(m.parameters(), lr, weight_decay=0.1)),
    "groups": optimized(groups),
    "warm-up": optimized(warmup),
    "chain": optimized(chain),
    "one cycle": optimized(one_cycle),
    "step": optimized(steps),
    "early": Early,
    "earlier": Earlier,
}


@pytest.mark.parametrize("case", STEPPED)
def test_a_step_is_the_rate_that_the_user_would_write(tmp_path, case):
    """Bit for bit with nested Trainers, to float tolerance in one pass with other steps."""
    build = STEPPED[case]

    def fit(lr):
        module = seeded(build, lr=lr).double()
        return inner_fit(pl, tmp_path, module, doubles(), Budget(epochs=2), precision="64-true")

    criteria = [replace(CRITERIA[0], step=0.3), CRITERIA[1]]
    written = trained(TrainerEvaluator(), fit(0.01 * 0.3), CRITERIA[:1])[1]
    nested = trained(TrainerEvaluator(), fit(0.01), criteria)[1]
    if case == "earlier":
        # Rates that are scaled after their schedule was made may differ in the last bit
        torch.testing.assert_close(nested[:1], written)
    else:
        assert equal(nested[:1], written)
    assert_near(trained(VectorizedEvaluator(), fit(0.01), criteria)[1], nested)


def test_the_original_loss_has_a_step_too(tmp_path):
    fit = inner_fit(pl, tmp_path, seeded(Cosine).double(), doubles(), Budget(steps=4), precision="64-true")
    criteria = [Criterion.original(0.2), Criterion.original(0.4), Criterion.original()]
    expected = trained(TrainerEvaluator(), fit, criteria)[1]
    assert_near(trained(VectorizedEvaluator(), fit, criteria)[1], expected)
    assert not torch.allclose(expected[0]["net.0.weight"], expected[2]["net.0.weight"])
    assert isinstance(fit.module.criterion, nn.CrossEntropyLoss)
