"""A population in one pass trains as one nested Trainer a candidate."""

import random
from dataclasses import replace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torchmetrics
from helpers.data import CLASSES, FEATURES, Stream, blobs, doubles, loader, loaders, split_datamodule
from helpers.fits import CRITERIA, fitness, inner_fit, running, trained
from helpers.modules import api, classifier, cnn, mlp, seeded
from torch import nn

from tglo_lightning.evaluation import TrainerEvaluator, VectorizedEvaluator
from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.search import Budget, Criterion

__all__ = ["api"]

# A fall back would hide what does not work
pytestmark = pytest.mark.filterwarnings("error:Training a population")

Classifier = classifier(pl)
STEPPED = [replace(criterion, step=step) for criterion, step in zip(CRITERIA[:3], (1.0, 0.5, 2.0), strict=True)]


def assert_alike(fit, evaluator, criteria=STEPPED, seed=3, nested=None, **tolerance):
    """Each member has the weights that a nested Trainer gives it, ``nested`` if they are known."""
    found = trained(evaluator, fit, criteria, seed)[1]
    expected = trained(TrainerEvaluator(), fit, criteria, seed)[1] if nested is None else nested
    shared = [{name: one[name] for name in other} for one, other in zip(found, expected, strict=True)]
    torch.testing.assert_close(shared, expected, **tolerance)
    initial = dict(fit.module.named_parameters())
    moved = max((found[0][name] - p.detach()).abs().max().item() for name, p in initial.items())
    assert moved > 1e-3


def kind(optimizers, net=mlp):
    """A module with other optimizers."""

    class Other(Classifier):
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
def test_weights_equal_those_of_nested_trainers(tmp_path, case):
    """With steps of their own."""
    optimizers, net, trainer_kwargs = CASES[case]
    module = kind(optimizers, net).double()
    images = net in (cnn, unbiased)
    fit = inner_fit(pl, tmp_path, module, doubles(images), Budget(steps=7), precision="64-true", **trainer_kwargs)
    assert_alike(fit, VectorizedEvaluator())


@pytest.mark.parametrize("chunk_size", [1, 2, None])
def test_chunks_make_no_difference(tmp_path, chunk_size):
    module = kind(one_cycle).double()
    fit = inner_fit(
        pl, tmp_path, module, doubles(), Budget(epochs=2), probed=True, precision="64-true", gradient_clip_val=0.3
    )
    assert_alike(fit, VectorizedEvaluator(chunk_size=chunk_size), [STEPPED[1], Criterion.original(), *STEPPED[1:]])


def test_either_namespace(api, tmp_path):
    fit = inner_fit(api, tmp_path, seeded(classifier(api)).double(), doubles(), precision="64-true")
    assert_alike(fit, VectorizedEvaluator())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_other_orders_and_options_of_the_loss(tmp_path, smoothing):
    draws = torch.Generator().manual_seed(0)
    for order in (2, 4):
        count = TaylorGLOLoss(order=order).theta.numel()
        thetas = (0.5 * torch.randn(2, count, generator=draws, dtype=torch.float64)).tolist()
        loss = nn.CrossEntropyLoss(label_smoothing=smoothing, weight=torch.tensor([1.0, 2.0, 0.5]).double())
        fit = inner_fit(pl, tmp_path, seeded(Classifier, criterion=loss).double(), doubles(), precision="64-true")
        assert_alike(fit, VectorizedEvaluator(), [Criterion.of("taylorglo", theta) for theta in thetas])


def test_families_train_in_one_pass(tmp_path):
    """The module's own loss too, unless only others have a limit of time; the class weights are those of all."""
    criteria = [
        CRITERIA[0],
        Criterion.of("sce", [0.1, 1.0], step=0.5),
        Criterion.of("gce", [0.7]),
        Criterion.of("smoothing", [0.1]),
        Criterion.original(0.5),
        CRITERIA[1],
        Criterion.of("smoothing", [0.3], step=2.0),
        Criterion.original(),
    ]
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]).double())
    fit = inner_fit(pl, tmp_path, seeded(Classifier, criterion=loss).double(), doubles(), precision="64-true")
    assert_alike(fit, VectorizedEvaluator(), criteria)
    assert_alike(fit, VectorizedEvaluator(chunk_size=3), criteria)
    limited = fit.with_budget(replace(fit.budget, timeout=100.0))
    other = inner_fit(pl, tmp_path, seeded(Classifier, criterion=nn.functional.cross_entropy))
    for each, stacks in ((fit, 1), (limited, 3), (other, 3)):
        with running(VectorizedEvaluator(), each) as evaluator:
            population = evaluator.start(criteria, 1)
            assert len(set(population.trainings.values())) == stacks
            population.close()
    assert_alike(limited, VectorizedEvaluator(), criteria)


def test_a_family_does_not_suffer_from_what_another_would_make_of_its_logits(tmp_path):
    """Of logits so far apart some losses have no finite gradient; they are those of other candidates."""

    class Sharp(Classifier):
        def forward(self, x):
            return 1e4 * self.net(x)

    criteria = [Criterion.of("smoothing", [0.1]), Criterion.of("gce", [0.2]), Criterion.of("focal", [0.5])]
    fit = inner_fit(pl, tmp_path, seeded(Sharp).double(), doubles(), precision="64-true")
    alone = [trained(VectorizedEvaluator(), fit, [criterion])[1][0] for criterion in criteria]
    beside = trained(VectorizedEvaluator(), fit, criteria)[1]
    assert [all(bool(v.isfinite().all()) for v in own.values()) for own in beside] == [
        all(bool(v.isfinite().all()) for v in own.values()) for own in alone
    ]


def test_images_of_labels_and_soft_labels(tmp_path):
    class Segmenter(Classifier):
        def training_step(self, batch, batch_idx):
            x, y = batch
            logits = self(x)[:, :, None].expand(-1, -1, 4)
            return self.criterion(logits, y[:, None].expand(-1, 4))

    fit = inner_fit(pl, tmp_path, seeded(Segmenter).double(), doubles(), precision="64-true")
    assert_alike(fit, VectorizedEvaluator())
    fit = inner_fit(pl, tmp_path, seeded(Classifier), loaders(soft=True))
    assert_alike(fit, VectorizedEvaluator(), rtol=1e-4, atol=1e-5)


def test_bf16_mixed(tmp_path):
    fit = inner_fit(pl, tmp_path, seeded(Classifier), budget=Budget(steps=6), precision="bf16-mixed")
    assert_alike(fit, VectorizedEvaluator(), rtol=0, atol=2e-2)


def test_metrics_and_logs_of_the_training_are_silent(tmp_path):
    class Metrics(Classifier):
        def __init__(self):
            super().__init__()
            self.train_acc = torchmetrics.MetricCollection([torchmetrics.Accuracy("multiclass", num_classes=CLASSES)])

        def training_step(self, batch, batch_idx):
            logits = self(batch[0])
            self.train_acc.update(logits, batch[1])
            self.log_dict({"train/acc": self.train_acc(logits, batch[1])["MulticlassAccuracy"]}, prog_bar=True)
            return {"loss": self.criterion(logits, batch[1]), "logits": logits}

    fit = inner_fit(pl, tmp_path, seeded(Metrics).double(), doubles(), precision="64-true")
    assert_alike(fit, VectorizedEvaluator())


# Random numbers and data


SEEN = set()


class Spied(Classifier):
    """Notes the batches it is trained on, where the Trainer stands, and what Python and numpy draw."""

    def training_step(self, batch, batch_idx):
        trainer = self.trainer
        place = trainer.current_epoch, trainer.global_step, batch_idx, trainer.is_last_batch
        drawn = random.random(), np.random.rand()  # noqa: NPY002
        SEEN.add((place, tuple(round(v, 5) for v in batch[0].sum(1).tolist()), drawn))
        return super().training_step(batch, batch_idx)


def seen(evaluator, fit, criteria=CRITERIA):
    SEEN.clear()
    fitness(evaluator, fit, criteria, 4)
    return set(SEEN)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_batches_and_places_are_those_of_nested_trainers(tmp_path, dropout):
    module = seeded(Spied, mlp(dropout))
    fit = inner_fit(pl, tmp_path, module, budget=Budget(steps=14), probed=True, accumulate_grad_batches=2)
    reference = seen(TrainerEvaluator(), fit, CRITERIA[:1])
    assert {place[0][0] for place in reference} == {0, 1, 2, 3, 4}
    for chunk_size in (1, 2, None):
        assert seen(VectorizedEvaluator(chunk_size=chunk_size), fit) == reference


def test_dropout_differs_between_candidates(tmp_path):
    fit = inner_fit(pl, tmp_path, seeded(Classifier, mlp(0.5)), budget=Budget(steps=4))
    evaluator = VectorizedEvaluator()
    one, two = trained(evaluator, fit, [CRITERIA[0]] * 2)[1]
    assert evaluator.stochastic
    assert not torch.allclose(one["net.0.weight"], two["net.0.weight"])


def test_one_by_one_a_candidate_does_not_depend_on_who_trains_beside_it(tmp_path):
    fit = inner_fit(pl, tmp_path, seeded(Classifier, mlp(dropout=0.3)), budget=Budget(epochs=1))
    together = trained(VectorizedEvaluator(chunk_size=1), fit, CRITERIA[:3])[1]
    alone = trained(VectorizedEvaluator(chunk_size=1), fit, CRITERIA[2:3])[1]
    assert all(torch.equal(alone[0][name], value) for name, value in together[2].items())


def test_datamodule_that_augments_on_transfer(tmp_path):
    datamodule = split_datamodule(pl)
    fit = inner_fit(pl, tmp_path, seeded(Classifier), {"datamodule": datamodule}, Budget(epochs=2))
    nested = trained(TrainerEvaluator(), fit, STEPPED, 3)[1]
    for chunk_size in (None, 2):
        assert_alike(fit, VectorizedEvaluator(chunk_size=chunk_size), nested=nested, rtol=1e-4, atol=1e-5)
    assert datamodule.trainer.lightning_module is fit.module


def test_loaders_of_the_module_and_a_stream(tmp_path):
    class Own(Classifier):
        def train_dataloader(self):
            return loader(Stream())

        def val_dataloader(self):
            return loader(blobs(48))

    for budget in (Budget(steps=7), Budget(epochs=2)):
        fit = inner_fit(pl, tmp_path, seeded(Own), {}, budget, limit_train_batches=4)
        assert_alike(fit, VectorizedEvaluator(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("evaluator", [TrainerEvaluator, VectorizedEvaluator])
def test_nothing_is_left_behind(tmp_path, evaluator):
    fit = inner_fit(pl, tmp_path, seeded(Classifier), budget=Budget(steps=3))
    before = {name: value.clone() for name, value in fit.module.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    trained(evaluator(), fit, [*CRITERIA, Criterion.original()], pieces=(1,))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])  # noqa: NPY002
    assert all(torch.equal(before[name], value) for name, value in fit.module.state_dict().items())
    assert type(fit.module.criterion) is nn.CrossEntropyLoss
    assert "log" not in vars(fit.module)
