"""A population in one pass is the same as one nested Trainer a candidate."""

import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torchmetrics
from helpers.data import CLASSES, FEATURES, Stream, blobs, loader, loaders, split_datamodule
from helpers.fits import inner_fit
from helpers.modules import classifier, cnn, mlp, seeded
from torch import nn

from tglo_lightning.evaluation import Budget, TrainerEvaluator, VectorizedEvaluator
from tglo_lightning.evaluation.vectorized.stack import flushed
from tglo_lightning.evaluation.vectorized.evaluator import _Population
from tglo_lightning.losses import TaylorGLOLoss

# A fall back would hide what does not work
pytestmark = pytest.mark.filterwarnings("error:Training a population")

GENERATOR = torch.Generator().manual_seed(5)
# Around cross-entropy's expansion, so that they train
THETAS = [
    [a + b for a, b in zip([0.0, 0.5, 0.0, 0.0, 0.0, 2.0, -1.0, 0.0], row, strict=True)]
    for row in (0.4 * torch.randn(5, 8, generator=GENERATOR, dtype=torch.float64)).tolist()
]


def prepared(evaluator, fit):
    evaluator.setup(fit)
    return evaluator


def worst(fit, evaluator, thetas=THETAS, seed=3):
    """The largest difference between a weight of the population and of the nested Trainers."""
    reference = prepared(TrainerEvaluator(), fit)
    population = prepared(evaluator, fit).train_population(thetas, seed)
    initial = dict(fit.module.named_parameters())
    difference = 0.0
    for theta, weights in zip(thetas, population, strict=True):
        expected = dict(reference.train(theta, seed).state_dict())
        assert set(initial) <= set(weights) | {n for n, p in fit.module.named_parameters() if not p.requires_grad}
        for name in set(weights) & set(expected):
            difference = max(difference, (weights[name].double() - expected[name].double()).abs().max().item())
    moved = max((population[0][name] - p.detach()).abs().max().item() for name, p in initial.items() if p.requires_grad)
    assert moved > 1e-3
    return difference


def doubles(images=False):
    """Data in float64."""
    sets = []
    for samples, seed in ((72, 1), (48, 2)):
        x, y = blobs(samples, seed=seed, images=images).tensors
        sets.append(torch.utils.data.TensorDataset(x.double(), y))
    return {"train_dataloaders": loader(sets[0], shuffle=True), "val_dataloaders": loader(sets[1])}


def kind(api, optimizers, net=mlp):
    """A module with other optimizers."""

    class Other(classifier(api)):
        def configure_optimizers(self):
            return optimizers(self)

    return seeded(lambda: Other(net()))


def by_ndim(module, make):
    """Parameter groups as one writes them for weight decay."""
    matrices = [p for p in module.parameters() if p.ndim > 1]
    vectors = [p for p in module.parameters() if p.ndim <= 1]
    return make([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}])


def one_cycle(module):
    optimizer = by_ndim(module, lambda groups: torch.optim.AdamW(groups, lr=1e-2))
    steps = module.trainer.estimated_stepping_batches
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, [2e-2, 1e-2], total_steps=steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def every_second_epoch(module):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.2, momentum=0.9, nesterov=True)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.3)
    return [optimizer], [{"scheduler": scheduler, "interval": "epoch", "frequency": 2}]


def chained(module):
    optimizer = torch.optim.Adam(module.parameters(), lr=torch.tensor(1e-2))
    lr = torch.optim.lr_scheduler
    warmup, decay = lr.LinearLR(optimizer, 0.1, total_iters=3), lr.StepLR(optimizer, 4, 0.5)
    scheduler = lr.SequentialLR(optimizer, [warmup, decay], milestones=[3])
    return [optimizer], [{"scheduler": scheduler, "interval": "step", "frequency": 2}]


def unbiased():
    """A convolution before BatchNorm without the bias that BatchNorm cancels: its gradient is rounding noise."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )


class Tied(nn.Module):
    """One matrix in two layers, and a parameter that is not used."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
        self.down.weight = self.up.weight
        self.head = nn.Linear(FEATURES, CLASSES)
        self.idle = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.head(self.down(self.up(x).relu()))


def frozen():
    net = mlp()
    net[0].weight.requires_grad_(False)
    return net


def simple(make):
    return lambda module: make(module.parameters())


CASES = {
    "sgd, momentum": (simple(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)), mlp, {}),
    "cnn, batchnorm": (simple(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)), cnn, {}),
    "cnn, batchnorm, adam": (simple(lambda p: torch.optim.Adam(p, 1e-2)), unbiased, {}),
    "adamw, groups, one cycle": (one_cycle, mlp, {"gradient_clip_val": 0.2, "accumulate_grad_batches": 2}),
    "clip by value": (one_cycle, mlp, {"gradient_clip_val": 0.02, "gradient_clip_algorithm": "value"}),
    "rmsprop": (simple(lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.5, centered=True)), mlp, {}),
    "adagrad": (simple(lambda p: torch.optim.Adagrad(p, 1e-2, initial_accumulator_value=0.1)), mlp, {}),
    "nadam": (simple(lambda p: torch.optim.NAdam(p, 1e-2)), mlp, {}),
    "epoch schedule": (every_second_epoch, mlp, {}),
    "chained schedule, tensor lr": (chained, mlp, {}),
    "some not optimised": (lambda m: torch.optim.SGD(m.net[3].parameters(), 0.1), mlp, {"gradient_clip_val": 0.2}),
    "frozen": (simple(lambda p: torch.optim.Adam(p, 1e-2)), frozen, {}),
    "tied": (simple(lambda p: torch.optim.AdamW(p, 1e-2)), Tied, {}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("budget", [Budget(epochs=3), Budget(steps=7)], ids=str)
def test_weights_equal_those_of_nested_trainers(api, tmp_path, case, budget):
    if api.__name__ != "pytorch_lightning" and budget.steps:
        pytest.skip("one budget will do")
    optimizers, net, trainer_kwargs = CASES[case]
    module = kind(api, optimizers, net).double()
    fit = inner_fit(
        api, tmp_path, module, doubles(net in (cnn, unbiased)), budget, precision="64-true", **trainer_kwargs
    )
    assert worst(fit, VectorizedEvaluator()) < 1e-9


@pytest.mark.parametrize("chunk_size", [1, 2, 4, None])
def test_chunks_make_no_difference(api, tmp_path, chunk_size):
    module = kind(api, one_cycle).double()
    fit = inner_fit(api, tmp_path, module, doubles(), Budget(steps=6), precision="64-true", gradient_clip_val=0.3)
    assert worst(fit, VectorizedEvaluator(chunk_size=chunk_size)) < 1e-12
    vectorized = prepared(VectorizedEvaluator(chunk_size=chunk_size), fit)
    nested = prepared(TrainerEvaluator(), fit)
    thetas = [THETAS[0], None, *THETAS[1:]]
    assert [e.fitness for e in vectorized.evaluate(thetas, 3)] == [e.fitness for e in nested.evaluate(thetas, 3)]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("order", [2, 4])
def test_other_orders_and_label_smoothing(api, tmp_path, order, smoothing):
    count = TaylorGLOLoss(order=order).theta.numel()
    thetas = (0.5 * torch.randn(3, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).tolist()
    criterion = nn.CrossEntropyLoss(label_smoothing=smoothing, weight=torch.tensor([1.0, 2.0, 0.5]).double())
    module = seeded(lambda: classifier(api)(criterion=criterion)).double()
    fit = inner_fit(api, tmp_path, module, doubles(), Budget(steps=5), precision="64-true")
    assert worst(fit, VectorizedEvaluator(), thetas) < 1e-9
    module.criterion = nn.CrossEntropyLoss(label_smoothing=smoothing)
    assert worst(fit, VectorizedEvaluator(), thetas) < 1e-9


def test_images_of_labels_and_soft_labels(api, tmp_path):
    class Segmenter(classifier(api)):
        def training_step(self, batch, batch_idx):
            x, y = batch
            logits = self(x)[:, :, None].expand(-1, -1, 4)
            return self.criterion(logits, y[:, None].expand(-1, 4))

        def validation_step(self, batch, batch_idx):
            self.log("val/acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    fit = inner_fit(api, tmp_path, seeded(Segmenter).double(), doubles(), Budget(steps=5), precision="64-true")
    assert worst(fit, VectorizedEvaluator()) < 1e-9
    fit = inner_fit(api, tmp_path, seeded(classifier(api)), loaders(soft=True), Budget(steps=5))
    assert worst(fit, VectorizedEvaluator()) < 1e-5


def test_bf16_mixed(api, tmp_path):
    fit = inner_fit(api, tmp_path, seeded(classifier(api)), loaders(), Budget(steps=6), precision="bf16-mixed")
    assert worst(fit, VectorizedEvaluator()) < 2e-2


@pytest.mark.slow
def test_compiled(api, tmp_path):
    module = kind(api, simple(lambda p: torch.optim.SGD(p, 0.1)), cnn)
    fit = inner_fit(api, tmp_path, module, loaders(images=True), Budget(steps=6))
    assert worst(fit, VectorizedEvaluator(compile=True)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("chunk_size", [None, 2, 1])
def test_compiled_as_it_is_uncompiled(api, tmp_path, chunk_size):
    """Accumulation, clipping, a parameter that no loss depends on, and one that is frozen; in float64."""

    class Idle(classifier(api)):
        def __init__(self):
            super().__init__(mlp())
            self.idle = nn.Parameter(torch.ones(3))
            self.net[0].bias.requires_grad_(False)

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-2, weight_decay=0.1)

    limits = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.05, "precision": "64-true"}
    fit = inner_fit(api, tmp_path, seeded(Idle).double(), doubles(), Budget(epochs=2), **limits)
    assert worst(fit, VectorizedEvaluator(compile=True, chunk_size=chunk_size)) < 1e-9
    weights = prepared(VectorizedEvaluator(compile=True), fit).train_population(THETAS, 0)
    assert all(torch.equal(w["idle"], torch.ones(3).double()) for w in weights)


@pytest.mark.slow
def test_compiled_in_bf16_with_dropout(api, tmp_path):
    net = nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, CLASSES))
    fit = inner_fit(
        api, tmp_path, seeded(lambda: classifier(api)(net)), loaders(), Budget(steps=6), precision="bf16-mixed"
    )
    evaluator = prepared(VectorizedEvaluator(compile=True), fit)
    first, again = ([e.fitness for e in evaluator.evaluate(THETAS, 0)] for _ in range(2))
    assert first == again
    assert evaluator.compile


def test_a_search_is_compiled_once(tmp_path):
    """With a layer that is frozen, and new for each population."""
    fit = inner_fit(pl, tmp_path, seeded(classifier(pl)), loaders(), Budget(epochs=2))
    fit.module.net[0].requires_grad_(False)
    fit.init = "reset"
    vectorized = prepared(VectorizedEvaluator(compile=True), fit)
    graphs = torch._dynamo.utils.counters["stats"]
    graphs.clear()
    for seed in range(3):
        found = vectorized.train_population(THETAS, seed)
        assert graphs["unique_graphs"] == 1
    assert vectorized.compile
    expected = prepared(VectorizedEvaluator(), fit).train_population(THETAS, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_compiled_again_where_a_population_differs(tmp_path):
    class Scaled(classifier(pl)):
        def __init__(self):
            super().__init__()
            self.scale = 1 + float(torch.rand(()))

        def forward(self, x):
            return self.scale * super().forward(x)

    fit = inner_fit(pl, tmp_path, Scaled(), loaders(), Budget(steps=3))
    fit.init = Scaled
    compiled, uncompiled = (prepared(VectorizedEvaluator(compile=c), fit) for c in (True, False))
    for seed in range(2):
        found, expected = (e.train_population(THETAS, seed) for e in (compiled, uncompiled))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_compiled_steps_may_differentiate_twice(tmp_path):
    class Penalised(classifier(pl)):
        def training_step(self, batch, batch_idx):
            hidden = self.net[:-1](batch[0])
            loss = self.criterion(self.net[-1](hidden), batch[1])
            (gradient,) = torch.autograd.grad(loss, hidden, create_graph=True)
            return loss + 1000 * gradient.pow(2).sum()

    fit = inner_fit(pl, tmp_path, seeded(Penalised).double(), doubles(), Budget(steps=3), precision="64-true")
    evaluator = VectorizedEvaluator(compile=True, chunk_size=1)
    assert worst(fit, evaluator) < 1e-9
    assert evaluator.compile


def test_goes_on_uncompiled_where_compiling_fails(api, tmp_path, monkeypatch):
    def compile(*args, **kwargs):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", compile)
    fit = inner_fit(api, tmp_path, seeded(classifier(api)), loaders(), Budget(steps=2))
    vectorized = prepared(VectorizedEvaluator(compile=True), fit)
    with pytest.warns(UserWarning, match="uncompiled: RuntimeError: no compiler"):
        evaluations = list(vectorized.evaluate(THETAS, 0))
    assert all(e.ok for e in evaluations)
    assert not vectorized.compile


# Fitness


def test_metric_of_several_loaders_and_limits(api, tmp_path):
    class Metrics(classifier(api)):
        def __init__(self):
            super().__init__()
            self.acc = torchmetrics.Accuracy("multiclass", num_classes=CLASSES)
            self.train_acc = torchmetrics.MetricCollection([torchmetrics.Accuracy("multiclass", num_classes=CLASSES)])

        def training_step(self, batch, batch_idx):
            logits = self(batch[0])
            self.train_acc.update(logits, batch[1])
            self.log_dict({"train/acc": self.train_acc(logits, batch[1])["MulticlassAccuracy"]}, prog_bar=True)
            return {"loss": self.criterion(logits, batch[1]), "logits": logits}

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            # A batch is the candidate's own
            self.acc(self(x.add_(0.01)), y)
            self.log("val/acc", self.acc)

    data = loaders()
    data["val_dataloaders"] = [loader(blobs(40, seed=s)) for s in (2, 3)]
    for limits in ({}, {"limit_val_batches": 2}):
        module = seeded(Metrics)
        fit = inner_fit(api, tmp_path, module, data, Budget(steps=8), monitor="val/acc/dataloader_idx_1", **limits)
        thetas = [*THETAS, None]
        vectorized = [e.fitness for e in prepared(VectorizedEvaluator(), fit).evaluate(thetas, 1)]
        assert vectorized == pytest.approx([e.fitness for e in prepared(TrainerEvaluator(), fit).evaluate(thetas, 1)])
        assert len(set(vectorized)) > 2
        assert isinstance(fit.module.acc, torchmetrics.Metric)


def test_validation_data_are_read_once(api, tmp_path):
    class Counted(torch.utils.data.Dataset):
        reads = 0

        def __len__(self):
            return 32

        def __getitem__(self, index):
            Counted.reads += 1
            return blobs()[index]

    data = loaders() | {"val_dataloaders": loader(Counted())}
    fit = inner_fit(api, tmp_path, seeded(classifier(api)), data, Budget(steps=2))
    Counted.reads = 0
    evaluations = list(prepared(VectorizedEvaluator(), fit).evaluate(THETAS, 0))
    assert Counted.reads == 32
    assert all(e.ok and e.seconds > 0 for e in evaluations)


def test_diverged_candidate_is_reported_and_disturbs_nobody(api, tmp_path):
    fit = inner_fit(api, tmp_path, seeded(classifier(api)), loaders(), Budget(steps=6), gradient_clip_val=1.0)
    wild = [0.0, 0.0, 1e38, 1e38, 1e38, 1e38, 1e38, 1e38]
    vectorized = prepared(VectorizedEvaluator(), fit)
    alone = list(vectorized.evaluate([THETAS[0], THETAS[1]], 1))
    first, second, third = vectorized.evaluate([THETAS[0], wild, THETAS[1]], 1)
    assert second.status == "diverged"
    assert "not finite" in second.error
    assert [first.fitness, third.fitness] == [e.fitness for e in alone]


def test_validation_that_fails_is_one_candidates_crash(api, tmp_path):
    class Fails(classifier(api)):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            if getattr(self.criterion, "theta", torch.zeros(1))[-1] == THETAS[1][-1]:
                raise RuntimeError("no such luck")

    fit = inner_fit(api, tmp_path, seeded(Fails), loaders(), Budget(steps=2))
    evaluations = list(prepared(VectorizedEvaluator(), fit).evaluate(THETAS, 0))
    assert [e.status for e in evaluations] == ["ok", "crashed", "ok", "ok", "ok"]
    assert "no such luck" in evaluations[1].error


def test_training_that_fails_midway_is_done_by_nested_trainers(api, tmp_path):
    class Late(classifier(api)):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss if batch_idx < 3 else loss + 0.0 * loss.detach().item()

    fit = inner_fit(api, tmp_path, seeded(Late), loaders(), Budget(steps=5))
    with pytest.warns(UserWarning, match="nested Trainers"):
        vectorized = list(prepared(VectorizedEvaluator(), fit).evaluate(THETAS[:2], 0))
    nested = list(prepared(TrainerEvaluator(), fit).evaluate(THETAS[:2], 0))
    assert [e.fitness for e in vectorized] == [e.fitness for e in nested]


# Random numbers and data


class Spy:
    """A module that notes the batches it is trained on, and where the Trainer stands."""

    def __new__(cls, api, dropout=0.0, draw=False):
        class Spied(classifier(api)):
            def __init__(self):
                super().__init__(mlp(dropout))
                object.__setattr__(self, "seen", SEEN)

            def training_step(self, batch, batch_idx):
                trainer = self.trainer
                place = trainer.current_epoch, trainer.global_step, batch_idx, trainer.is_last_batch
                drawn = (random.random(), np.random.rand()) if draw else ()  # noqa: NPY002
                key = (place, tuple(round(v, 5) for v in batch[0].sum(1).tolist()), drawn)
                SEEN.add(key)
                return super().training_step(batch, batch_idx)

        SEEN.clear()
        return seeded(Spied)


SEEN = set()


def seen(evaluator, fit, thetas=THETAS):
    SEEN.clear()
    list(prepared(evaluator, fit).evaluate(thetas, 4))
    return set(SEEN)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_batches_and_places_are_those_of_nested_trainers(api, tmp_path, dropout):
    fit = inner_fit(api, tmp_path, Spy(api, dropout, draw=True), loaders(), Budget(steps=14), accumulate_grad_batches=2)
    reference = seen(TrainerEvaluator(), fit, THETAS[:1])
    assert {place[0][0] for place in reference} == {0, 1, 2, 3, 4}
    for chunk_size in (1, 2, None):
        assert seen(VectorizedEvaluator(chunk_size=chunk_size), fit) == reference


def test_dropout_differs_between_candidates(api, tmp_path):
    fit = inner_fit(api, tmp_path, seeded(lambda: classifier(api)(mlp(0.5))), loaders(), Budget(steps=4))
    vectorized = prepared(VectorizedEvaluator(), fit)
    one, two = vectorized.train_population([THETAS[0], THETAS[0]], 1)
    assert vectorized.stochastic
    assert not torch.allclose(one["net.0.weight"], two["net.0.weight"])
    again, _ = vectorized.train_population([THETAS[0], THETAS[0]], 1)
    assert torch.equal(one["net.0.weight"], again["net.0.weight"])


def test_one_by_one_a_candidate_does_not_depend_on_who_trains_beside_it(api, tmp_path):
    fit = inner_fit(api, tmp_path, seeded(classifier(api), mlp(dropout=0.3)), loaders(), Budget(epochs=1))
    evaluator = prepared(VectorizedEvaluator(chunk_size=1), fit)
    together = [e.fitness for e in evaluator.evaluate(THETAS, 3)]
    weights = evaluator.train_population(THETAS, 3)[3]
    assert [next(evaluator.evaluate([theta], 3)).fitness for theta in THETAS] == together
    alone = evaluator.train_population([THETAS[3]], 3)[0]
    assert all(torch.equal(alone[name], value) for name, value in weights.items())


def test_datamodule_that_augments_on_transfer(api, tmp_path):
    datamodule = split_datamodule(api)
    fit = inner_fit(api, tmp_path, seeded(classifier(api)), {"datamodule": datamodule}, Budget(epochs=2))
    assert worst(fit, VectorizedEvaluator()) < 1e-5
    assert worst(fit, VectorizedEvaluator(chunk_size=2)) < 1e-5
    vectorized = [e.fitness for e in prepared(VectorizedEvaluator(), fit).evaluate(THETAS, 1)]
    assert vectorized == [e.fitness for e in prepared(TrainerEvaluator(), fit).evaluate(THETAS, 1)]
    assert datamodule.trainer.lightning_module is fit.module


def test_loaders_of_the_module_and_a_stream(api, tmp_path):
    class Own(classifier(api)):
        def train_dataloader(self):
            return loader(Stream())

        def val_dataloader(self):
            return loader(blobs(48))

    for budget in (Budget(steps=7), Budget(epochs=2)):
        fit = inner_fit(api, tmp_path, seeded(Own), {}, budget, probed=False, limit_train_batches=4)
        assert worst(fit, VectorizedEvaluator()) < 1e-5


def test_nothing_is_left_behind(api, tmp_path):
    fit = inner_fit(api, tmp_path, seeded(classifier(api)), loaders(), Budget(steps=3))
    before = {name: value.clone() for name, value in fit.module.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    list(prepared(VectorizedEvaluator(), fit).evaluate([*THETAS, None], 0))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])  # noqa: NPY002
    assert all(torch.equal(before[name], value) for name, value in fit.module.state_dict().items())
    assert type(fit.module.criterion) is nn.CrossEntropyLoss
    assert "log" not in vars(fit.module)


def test_denormals_are_flushed_for_the_time_of_a_training():
    tiny = torch.tensor([1e-310], dtype=torch.float64)
    assert tiny * 0.5 > 0
    with flushed(), flushed():
        assert tiny * 0.5 == 0
    assert tiny * 0.5 > 0


# Memory


def test_out_of_memory_halves_the_chunks(api, tmp_path, monkeypatch):
    fit = inner_fit(api, tmp_path, seeded(classifier(api)), loaders(), Budget(steps=3))
    expected = [e.fitness for e in prepared(VectorizedEvaluator(), fit).evaluate(THETAS, 0)]
    clip = _Population._clip

    def crowded(population, trainer):
        if population.chunks[0].size > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        clip(population, trainer)

    monkeypatch.setattr(_Population, "_clip", crowded)
    vectorized = prepared(VectorizedEvaluator(), fit)
    assert [e.fitness for e in vectorized.evaluate(THETAS, 0)] == expected
    assert vectorized.chunk_size == 2


def test_chunks_fit_into_the_memory(api, tmp_path, monkeypatch):
    fit = inner_fit(api, tmp_path, seeded(classifier(api)), loaders(), Budget(steps=2))
    module = "tglo_lightning.evaluation.vectorized"
    sizes = []
    for free in (1, 2**40):
        monkeypatch.setattr(f"{module}.available_memory", lambda device, free=free: free)
        vectorized = prepared(VectorizedEvaluator(), fit)
        _, _, population = vectorized._train(THETAS, 0)
        sizes.append([chunk.size for chunk in population.chunks])
    assert sizes == [[1] * 5, [5]]


@pytest.mark.parametrize("chunk_size", [0, -1])
def test_chunk_size_out_of_range(chunk_size):
    with pytest.raises(ValueError, match="at least 1"):
        VectorizedEvaluator(chunk_size=chunk_size)


@pytest.mark.parametrize("chunk_size", [True, 1.5, "2"])
def test_chunk_size_of_another_kind(chunk_size):
    with pytest.raises(TypeError, match="must be an int"):
        VectorizedEvaluator(chunk_size=chunk_size)


def test_an_original_loss_that_cannot_be_mapped_is_trained_by_a_trainer(api, tmp_path):
    class Counting(torch.nn.CrossEntropyLoss):
        calls = 0

        def forward(self, logits, target):
            self.calls += 1
            return super().forward(logits, target)

    fit = inner_fit(api, tmp_path, classifier(api)(criterion=Counting()), loaders(), Budget(steps=2))
    evaluator, reference = VectorizedEvaluator(), TrainerEvaluator()
    evaluator.setup(fit)
    reference.setup(fit)
    scored = list(evaluator.evaluate([THETAS[0], None], 1))
    assert [evaluation.status for evaluation in scored] == ["ok", "ok"]
    assert scored[1].fitness == next(iter(reference.evaluate([None], 1))).fitness
