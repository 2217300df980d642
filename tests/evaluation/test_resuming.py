"""A training that another process goes on with ends as it would have, bit for bit."""

import pickle
from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch
from helpers.data import blobs, loader, loaders
from helpers.fits import CRITERIA, equal, inner_fit, running
from helpers.modules import classifier, cnn, manual, mlp, seeded
from torch import nn
from torch.optim import SGD, Adam, lr_scheduler
from torch.utils.data import Dataset

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

    value = 0.9

    def update(self):
        self.value += 0.01


class Averaging(Classifier):
    def __init__(self):
        super().__init__()
        self.parts = [Momentum()]

    def training_step(self, batch, batch_idx):
        self.parts[0].update()
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("evaluator", [TrainerEvaluator, VectorizedEvaluator])
def test_nothing_is_noted_of_what_remembers_more(tmp_path, evaluator):
    curriculum = loaders() | {"train_dataloaders": loader(Curriculum())}
    for build, data in ((Averaging, loaders()), (Classifier, curriculum)):
        assert check(fit_of(tmp_path, build, data, Budget(epochs=2)), evaluator, (1,)) == [None]
