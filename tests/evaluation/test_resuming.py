"""A training that another process goes on with ends as it would have, bit for bit."""

import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from helpers.data import blobs, doubles, loader, loaders
from helpers.fits import CRITERIA, equal, inner_fit, running
from helpers.modules import classifier, cnn, manual, mlp, seeded
from torch import nn
from torch.optim import SGD, Adam, NAdam, lr_scheduler
from torch.utils.data import Dataset, Sampler, default_collate

from tglo_lightning.evaluation import TrainerEvaluator, VectorizedEvaluator
from tglo_lightning.evaluation.workers.processes import ProcessEvaluator
from tglo_lightning.losses import SmoothedCrossEntropyLoss
from tglo_lightning.search import Budget, Criterion

pytestmark = pytest.mark.filterwarnings("error:Training a population")
Classifier = classifier(pl)
# The one that is let go is the only one of its kind
MEMBERS = [
    *(CRITERIA[0], Criterion.of("sce", [0.1, 1.0]), Criterion.original()),
    *(replace(CRITERIA[3], step=0.5), Criterion.of("smoothing", [0.1])),
]
KEPT = [0, 2, 3, 4]
EVALUATORS = {
    "trainer": TrainerEvaluator,
    "vectorized": VectorizedEvaluator,
    "chunks": lambda: VectorizedEvaluator(chunk_size=2),
}


class Scheduled(Classifier):
    """With schedules of both kinds, dropout, and a weight that is not trained."""

    def __init__(self):
        super().__init__(mlp(0.3))
        self.net[0].bias.requires_grad_(False)

    def configure_optimizers(self):
        optimizer = Adam(self.parameters(), 0.02)
        schedules = [lr_scheduler.CosineAnnealingLR(optimizer, 20), lr_scheduler.MultiStepLR(optimizer, [1, 2], 0.5)]
        intervals = ["step", "epoch"]
        return [optimizer], [{"scheduler": s, "interval": i} for s, i in zip(schedules, intervals, strict=True)]


class Averaged(manual(pl)):
    """Two optimizers, stepped by hand, and an average of the weights that is made as the training starts."""

    def __init__(self):
        super().__init__()
        self.average = nn.Linear(1, 1)

    def on_train_start(self):
        with torch.no_grad():
            self.average.weight.fill_(self.net[0].weight.mean())

    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        self.average.weight.data.lerp_(self.net[0].weight.data.mean(), 0.1)

    def configure_optimizers(self):
        layers = self.net[0].parameters(), self.net[-1].parameters()
        return [SGD(own, 0.1, momentum=0.9) for own in layers]


CASES = {
    "epochs": (Scheduled, loaders, Budget(epochs=4), (1, 3), {}),
    "steps": (Scheduled, loaders, Budget(steps=20), (5, 9), {}),
    "accumulation": (Scheduled, loaders, Budget(steps=10), (4, 7), {"accumulate_grad_batches": 2}),
    "running means": (lambda: Classifier(cnn()), lambda: loaders(images=True), Budget(epochs=3), (1, 2), {}),
}


def fit_of(tmp_path, build, data, budget, **options):
    return inner_fit(pl, tmp_path, seeded(build), data, budget, probed=True, **options).noting()


def go_on(population, ends, kept=KEPT):
    """Train to each of these ends, and let go of a member after the first. Scores, states, and weights at the last."""
    found, states, weights = [], [], {}
    for end in ends:
        population.advance(end - population.trained)
        scores = {}
        for member, score in zip(population.members, population.scores(), strict=True):
            scores[member] = score.fitness if score.ok else score.status
            if score.ok:
                weights[member] = {name: value.clone() for name, value in population.weights(member).items()}
        found.append(scores)
        population.keep(kept)
        if end < population.length:
            states.append(population.state())
    population.close()
    return found, states, [weights[member] for member in kept if member in weights]


def check(fit, make, ends):
    """Each state that is told leads to the same end. Return the states."""
    ends = [*ends, fit.budget.length]
    with running(make(), fit) as evaluator:
        found, states, weights = go_on(evaluator.start(MEMBERS, 1), ends)
    for number, state in enumerate(states, 1):
        if state is None:
            continue
        with running(make(), fit) as evaluator:
            population = evaluator.start(MEMBERS, 1)
            population.restore(pickle.loads(pickle.dumps(state)))
            assert population.members == KEPT
            again, _, own = go_on(population, ends[number:])
        assert again == found[number:]
        assert equal(own, weights)
    return states


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize("case", CASES)
def test_it_goes_on_from_the_start_of_an_epoch(tmp_path, evaluator, case):
    build, data, budget, ends, options = CASES[case]
    states = check(fit_of(tmp_path, build, data(), budget, **options), EVALUATORS[evaluator], ends)
    starts = [None if state is None else state["trained"] for state in states]
    assert starts == {"steps": [None, 6], "accumulation": [None, 6]}.get(case, list(ends))


def test_manual_optimisation(tmp_path):
    assert None not in check(fit_of(tmp_path, Averaged, loaders(), Budget(epochs=3)), TrainerEvaluator, (1, 2))


def test_worker_processes(tmp_path):
    fit = fit_of(tmp_path, Scheduled, loaders(), Budget(epochs=3))
    assert None not in check(fit, lambda: ProcessEvaluator(2), (1, 2))


def test_members_that_have_failed_stay_so(tmp_path):
    class Fails(Classifier):
        def training_step(self, batch, batch_idx):
            if isinstance(self.criterion, SmoothedCrossEntropyLoss):
                raise RuntimeError("not with this loss")
            return super().training_step(batch, batch_idx)

    (state,) = check(fit_of(tmp_path, Fails, loaders(), Budget(epochs=3)), TrainerEvaluator, (1,))
    assert [*state["trainings"][-1]["scores"]] == [4]


def test_what_a_training_holds_is_noted(tmp_path):
    """Gradients that nobody has set to zero, an expanded buffer, a rate of numpy's, a metric of an earlier epoch, and
    what the module learns from its counters at the start.
    """

    class Own(manual(pl)):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.ones(1).expand(8))

        def on_train_start(self):
            self.start = self.global_step

        def training_step(self, batch, batch_idx):
            x, y = batch
            if self.current_epoch == 0:
                self.log("val/acc", float(len(x)), on_epoch=True)
            self.manual_backward(self.criterion(self(x * self.mask), y) * 0.9**self.start)
            if batch_idx == 3:
                self.optimizers().step()
                self.optimizers().zero_grad()

        def configure_optimizers(self):
            return SGD(self.parameters(), np.float64(0.1))

    assert None not in check(
        fit_of(tmp_path, Own, loaders(), Budget(epochs=3), limit_val_batches=0), TrainerEvaluator, (1, 2)
    )


@pytest.mark.parametrize("evaluator", [TrainerEvaluator, VectorizedEvaluator])
def test_states_of_optimizers_keep_their_type(tmp_path, evaluator):
    class Double(Classifier):
        def configure_optimizers(self):
            return NAdam(self.parameters(), 0.02)

    fit = fit_of(tmp_path, Double, doubles(), Budget(epochs=3), precision="64-true")
    assert None not in check(fit, evaluator, (1, 2))


class Table:
    """Rates in an object that no file of plain values can hold."""

    def __init__(self):
        self.rate = lambda epoch: 0.9**epoch

    def __call__(self, epoch):
        return self.rate(epoch)


class Tabled(Classifier):
    def configure_optimizers(self):
        optimizer = SGD(self.parameters(), 0.1)
        return [optimizer], [lr_scheduler.LambdaLR(optimizer, Table())]


class Curriculum(Dataset):
    """Easy samples at first."""

    def __init__(self):
        self.data, self.drawn = blobs(), {"in all": 0}

    def __len__(self):
        return 48

    def __getitem__(self, index):
        self.drawn["in all"] += 1
        return self.data[index]


class Momentum:
    """That of an average, in an object of its own."""

    __slots__ = ("value",)

    def __init__(self):
        self.value = 0.9

    def update(self):
        self.value += 0.01


class Averaging(Classifier):
    def __init__(self):
        super().__init__()
        self.parts = [Momentum()]

    def training_step(self, batch, batch_idx):
        self.parts[0].update()
        return super().training_step(batch, batch_idx)


class Shuffled(Sampler):
    """In another order each time, by a number that Lightning does not set."""

    def __init__(self):
        self.epoch = 0

    def __len__(self):
        return 48

    def __iter__(self):
        self.epoch += 1
        return iter(torch.randperm(48, generator=torch.Generator().manual_seed(self.epoch)).tolist())


def counting():
    """Data whose function for batches counts them."""
    batches = 0

    def collate(samples):
        nonlocal batches
        batches += 1
        return default_collate(samples)

    return loader(collate_fn=collate)


@pytest.mark.parametrize("evaluator", [TrainerEvaluator, VectorizedEvaluator])
@pytest.mark.parametrize(
    ("build", "train"),
    [
        (Averaging, loader),
        (Tabled, loader),
        (Classifier, lambda: loader(Curriculum())),
        (Classifier, lambda: loader(sampler=Shuffled())),
        (Classifier, counting),
    ],
)
def test_nothing_is_noted_of_what_remembers_more(tmp_path, evaluator, build, train):
    data = loaders() | {"train_dataloaders": train()}
    assert check(fit_of(tmp_path, build, data, Budget(epochs=2)), evaluator, (1,)) == [None]


class Changing(Classifier):
    """Calls a function after each epoch."""

    epochs = 0

    def __init__(self, change):
        super().__init__()
        self.change, self.weight, self.seen = change, torch.ones(()), np.zeros(3)
        self.count, self.shadows, self.hidden = np.int64(0), [torch.ones(()) for _ in range(200)], (mlp(),)

    def configure_optimizers(self):
        optimizer = SGD(self.net[-1].parameters(), 0.1)
        self.schedule = lr_scheduler.StepLR(optimizer, 1)
        return optimizer

    def on_train_epoch_end(self):
        self.change(self)


CHANGES = {
    "what is trained": lambda module: module.net[0].requires_grad_(False),
    "a mode": lambda module: module.net[2].eval(),
    "groups": lambda module: module.optimizers().add_param_group({"params": module.net[0].parameters()}),
    "a schedule of its own": lambda module: module.schedule.step(),
    "a new part": lambda module: setattr(module, "average", mlp()),
    "a hidden part": lambda module: module.hidden[0][0].weight.data.mul_(0.9),
    "an array": lambda module: module.seen.__setitem__(0, 1),
    "a number of numpy": lambda module: setattr(module, "count", module.count + 1),
    "behind the back of autograd": lambda module: module.weight.data.mul_(0.9),
    "one of many": lambda module: module.shadows[150].mul_(0.9),
    "its class": lambda module: setattr(Changing, "epochs", Changing.epochs + 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_module_changes_between_epochs_is_seen(tmp_path, change):
    fit = fit_of(tmp_path, lambda: Changing(CHANGES[change]), loaders(), Budget(epochs=2))
    assert check(fit, TrainerEvaluator, (1,)) == [None]


def test_all_else_of_a_module_is_not_taken_for_a_change(tmp_path):
    """Its parts, metrics and data as they are, and what it does before the first epoch."""

    class Prepared(Changing):
        def on_train_start(self):
            self.started, self.seen = True, self.seen + 1

    assert None not in check(
        fit_of(tmp_path, lambda: Prepared(id), loaders(), Budget(epochs=3)), TrainerEvaluator, (1, 2)
    )


def test_how_far_an_iterator_has_come_is_not_known(tmp_path):
    class Counting(Changing):
        def on_fit_start(self):
            self.numbers = itertools.count()

    fit = fit_of(tmp_path, lambda: Counting(lambda module: next(module.numbers)), loaders(), Budget(epochs=2))
    assert check(fit, TrainerEvaluator, (1,)) == [None]
