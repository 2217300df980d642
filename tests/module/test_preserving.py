"""A module that is looked at comes back as it was."""

from collections import Counter, deque

import pytorch_lightning as pl
import torch
from helpers.data import CLASSES, FEATURES
from helpers.modules import classifier
from torch import nn
from torchmetrics import MaxMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from tglo_lightning.module.preserving import preserved_module, saved_attributes


class Remembers(classifier(pl)):
    def __init__(self):
        super().__init__(nn.Sequential(nn.BatchNorm1d(FEATURES), nn.Dropout(), nn.Linear(FEATURES, CLASSES)))
        self.best = MaxMetric()
        self.metrics = MetricCollection({"a": MulticlassAccuracy(CLASSES), "b": MulticlassAccuracy(CLASSES)})
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("count", torch.zeros(2))
        self._private, self.window, self.counts = [], deque(maxlen=2), Counter()
        self.deep = {"all": [[]]}
        self.tensor, self.number = torch.zeros(2), 0

    def change(self):
        self.best.update(3.0)
        self.metrics.update(torch.eye(CLASSES), torch.arange(CLASSES))
        self.mean += 1
        self.count = self.count + 1
        self._private.append(1)
        self.window.append(1)
        self.counts["a"] += 1
        self.deep["all"][0].append(1)
        self.tensor += 1
        self.number += 1
        self.new = 1


def memory(module):
    plain = module._private, module.window, module.counts, module.deep, module.number, hasattr(module, "new")
    tensors = module.mean, module.count, module.tensor, module.best.max_value
    accuracy = module.metrics["a"]
    return repr((plain, [t.tolist() for t in tensors], accuracy.update_count, accuracy.tp.tolist()))


def test_attributes_come_back_as_often_as_one_likes():
    module = Remembers()
    private, count = module._private, module.count
    before = memory(module)
    put_back = saved_attributes(module)
    for _ in range(2):
        with torch.inference_mode():
            module.change()
        assert memory(module) != before
        module._private = ["another one"]
        put_back()
        assert memory(module) == before
        # whoever else holds them still does
        assert module._private is private
        assert module.count is count


def test_a_collection_of_metrics_counts_on():
    module = Remembers()
    put_back = saved_attributes(module)
    for _ in range(2):
        module.change()
        module.change()
        assert module.metrics.compute() == {"a": 1.0, "b": 1.0}
        put_back()
    assert module.metrics["a"].update_count == 0


def test_mode_gradients_and_logging_come_back():
    module = Remembers()
    module.net[1].eval()
    weight, bias = module.net[2].weight, module.net[2].bias
    weight.grad = gradient = torch.ones_like(weight)
    module.log = own = print
    before = memory(module)
    with preserved_module(module):
        assert not any(child.training for child in module.modules())
        module.log("val/acc", 1.0)
        module.change()
        weight.grad = None
        bias.requires_grad_(False)
    assert memory(module) == before
    assert module.net.training
    assert not module.net[1].training
    assert weight.grad is gradient
    assert bias.requires_grad
    assert module.log is own
    assert "log_dict" not in vars(module)
