"""All evaluators give the same fitness, whatever a validation draws or remembers."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from helpers.data import CLASSES, blobs, loader, loaders
from helpers.fits import CRITERIA, fitness, inner_fit, running
from helpers.modules import accuracy, classifier, seeded
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate
from torchmetrics import MaxMetric, MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from tglo_lightning.evaluation import TrainerEvaluator, VectorizedEvaluator
from tglo_lightning.evaluation.validation import Validation
from tglo_lightning.search import Budget

Classifier = classifier(pl)


class Noisy(Classifier):
    """Draws from the global generator and from one of its own."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        noise = torch.randn_like(x) + torch.randn(x.shape, generator=self.generator)
        self.log("val/acc", accuracy(self(x + noise), y))


class Best(Classifier):
    """Remembers the best value, in a metric."""

    def __init__(self):
        super().__init__()
        self.acc, self.best = MulticlassAccuracy(CLASSES, average="micro"), MaxMetric()

    def validation_step(self, batch, batch_idx):
        self.acc(self(batch[0]), batch[1])

    def on_validation_epoch_end(self):
        self.best(self.acc.compute())
        self.acc.reset()
        self.log("val/acc", self.best.compute())


class NeverReset(Classifier):
    """Collects over all validations, in a metric that is never reset."""

    def __init__(self):
        super().__init__()
        self.metrics = MetricCollection([MulticlassAccuracy(CLASSES, average="micro"), MulticlassAccuracy(CLASSES)][:1])
        self.mean = MeanMetric()

    def validation_step(self, batch, batch_idx):
        logits = self(batch[0])
        self.metrics.update(logits, batch[1])
        self.mean.update(accuracy(logits, batch[1]))

    def on_validation_epoch_end(self):
        self.log("val/acc", self.metrics.compute()["MulticlassAccuracy"] + self.mean.compute())


class Meter:
    """A mean as many projects have one."""

    def __init__(self):
        self.values, self.count = [], np.zeros(())

    def update(self, value):
        self.values.append(float(value))
        self.count += 1
        return sum(self.values) / float(self.count)


class Collects(Classifier):
    """Grows a list, a nested one, a tensor, an object and an attribute that comes with the first validation."""

    def __init__(self):
        super().__init__()
        self._outputs, self.nested = [], {"all": []}
        self.best, self.meter = torch.zeros(()), Meter()
        self.register_buffer("seen", torch.zeros(()))

    def validation_step(self, batch, batch_idx):
        right = accuracy(self(batch[0]), batch[1])
        self._outputs.append(right)
        self.nested["all"].append(right)
        self.best = torch.maximum(self.best, right)
        self.mean = self.meter.update(right)
        self.seen += right
        self.times = getattr(self, "times", 0) + 1

    def on_validation_epoch_end(self):
        values = [torch.stack(self._outputs).mean(), torch.stack(self.nested["all"]).mean()]
        self.log("val/acc", sum(values) + self.mean + self.best + self.seen / 10 + self.times / 100)


class Augmented(Dataset):
    """Draws with every sample."""

    def __init__(self):
        self.data = blobs(48, seed=2)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        x, y = self.data[index]
        return x + torch.randn(x.shape), y


@pytest.mark.parametrize("kind", [Noisy, Best, NeverReset, Collects])
def test_fitness_does_not_depend_on_the_evaluator_nor_on_earlier_looks(tmp_path, kind):
    data = loaders() | {"val_dataloaders": loader(Augmented(), shuffle=True)}
    fit = inner_fit(pl, tmp_path, seeded(kind), data, Budget(steps=6))
    expected = fitness(TrainerEvaluator(), fit, CRITERIA[:4])
    assert len(set(expected)) > 1
    for evaluator in (TrainerEvaluator(), VectorizedEvaluator(), VectorizedEvaluator(chunk_size=1)):
        with running(evaluator, fit):
            population = evaluator.start(CRITERIA[:4], 1)
            looks = []
            for _ in range(3):
                population.advance(2)
                looks.append([score.fitness for score in population.scores()])
            population.close()
        assert looks[-1] == pytest.approx(expected, abs=1e-6)
        for look, steps in zip(looks, (2, 4), strict=False):
            short = fitness(TrainerEvaluator(), fit.with_budget(Budget(steps=steps)), CRITERIA[:4])
            assert look == pytest.approx(short, abs=1e-6)


def test_several_loaders_and_limits(tmp_path):
    class InPlace(Classifier):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            # A batch is the candidate's own
            self.log("val/acc", accuracy(self(batch[0].add_(0.01)), batch[1]))

    data = loaders() | {"val_dataloaders": [loader(blobs(40, seed=s)) for s in (2, 3)]}
    for limits in ({}, {"limit_val_batches": 2}):
        fit = inner_fit(pl, tmp_path, seeded(InPlace), data, monitor="val/acc/dataloader_idx_1", **limits)
        found = [fitness(evaluator, fit, CRITERIA) for evaluator in (VectorizedEvaluator(), TrainerEvaluator())]
        assert found[0] == found[1]
        assert len(set(found[0])) > 1


class Pairs:
    """A batch of a class of its own, which cannot be copied."""

    def __init__(self, samples):
        self.parts = iter(default_collate(samples))


def test_batches_that_are_not_known_are_loaded_again(tmp_path):
    """And the module sees the loader that it was given."""

    class Unpacks(Classifier):
        def validation_step(self, batch, batch_idx):
            assert isinstance(self.trainer.val_dataloaders, DataLoader)
            x, y = batch.parts
            self.log("val/acc", accuracy(self(x), y), batch_size=len(x))

    data = loaders() | {"val_dataloaders": loader(collate_fn=Pairs)}
    fit = inner_fit(pl, tmp_path, seeded(Unpacks), data)
    assert fitness(VectorizedEvaluator(), fit, CRITERIA) == fitness(TrainerEvaluator(), fit, CRITERIA)


def test_data_are_read_once_for_all_members(tmp_path):
    class Counted(Dataset):
        reads = 0

        def __len__(self):
            return 32

        def __getitem__(self, index):
            Counted.reads += 1
            return blobs()[index]

    fit = inner_fit(pl, tmp_path, seeded(Classifier), loaders() | {"val_dataloaders": loader(Counted())})
    Counted.reads = 0
    fitness(VectorizedEvaluator(), fit, CRITERIA)
    assert Counted.reads == 32


def test_a_member_whose_validation_fails_and_one_that_cannot_be_loaded(tmp_path):
    class Fails(Classifier):
        def validation_step(self, batch, batch_idx):
            if self.net[0].bias[0] == 7:
                raise RuntimeError("no such luck")
            super().validation_step(batch, batch_idx)

    def load(module, member):
        nn.init.constant_(module.net[0].bias, member)
        if member == 5:
            raise ValueError("no weights")

    fit = inner_fit(pl, tmp_path, seeded(Fails), probed=True)
    found = Validation(fit, CRITERIA[0], 1).scores([1, 7, 5, 1], load)
    assert str(found[1]) == "no such luck"
    assert str(found[2]) == "no weights"
    assert found[0] == found[3]
