"""A module with a metalearned loss in place is used as it was before."""

import copy
import io
import warnings

import pytest
import pytorch_lightning as pl
import torch
from helpers.data import FEATURES
from helpers.modules import classifier, seeded
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from tglo_lightning import restore_original
from tglo_lightning.losses import FAMILIES
from tglo_lightning.losses.class_priors import PriorLoss
from tglo_lightning.module import LossSlots
from tglo_lightning.module.slot import InlineSlot
from tglo_lightning.search import Criterion

SEARCHED = sorted(
    name for name, kind in FAMILIES.items() if kind.__module__.startswith("tglo_lightning.") and name != "taylorglo"
)
X, Y = torch.randn(4, FEATURES, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
ORIGINALS = {
    "classes": nn.CrossEntropyLoss,
    "binary": lambda: nn.BCEWithLogitsLoss(weight=torch.ones(3), pos_weight=torch.ones(3)),
    "regression": nn.MSELoss,
}


def target_for(name):
    """What a loss of the family compares the outputs for ``X`` with."""
    return Y if FAMILIES[name].kind == "classes" else nn.functional.one_hot(Y, 3).float()


def changed(name="taylorglo", criterion=None):
    """A module with a loss of a family in place of its own."""
    kind = FAMILIES[name]
    module = seeded(classifier(pl), criterion=ORIGINALS[kind.kind]() if criterion is None else criterion)
    if issubclass(kind, PriorLoss):
        module.criterion = kind(priors=[1, 2, 3])
    else:
        theta = [0.0, 0.5, 0.0, 0.0, 0.0, 2.0, -1.0, 0.0] if name == "taylorglo" else [a.default for a in kind.axes]
        LossSlots("criterion").install(module, Criterion.of(name, theta))
    return module


@pytest.mark.parametrize("name", ["taylorglo", *SEARCHED])
def test_torchscript_and_export(name):
    module = changed(name).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = module.to_torchscript()
        file = io.BytesIO()
        torch.jit.save(scripted, file)
        file.seek(0)
        loaded = torch.jit.load(file)
        traced = module.to_torchscript(method="trace", example_inputs=X)
    program = torch.export.export(module, (X,)).module()
    for other in (scripted, loaded, traced, program):
        torch.testing.assert_close(other(X), module(X))
    target = target_for(name)
    loss = torch.export.export(module.criterion, (module(X).detach(), target)).module()
    torch.testing.assert_close(loss(module(X), target), module.criterion(module(X), target))


@pytest.mark.parametrize("name", ["taylorglo", *SEARCHED])
def test_estimators_of_memory_and_work(name):
    """Under FakeTensorMode nothing can be read."""
    kept, given = changed(name), target_for(name)
    with FakeTensorMode(allow_non_fake_inputs=True):
        target = torch.zeros(given.shape, dtype=given.dtype)
        again = kept.criterion(torch.randn(4, 3), target)
        assert again.shape == ()
        criterion = FAMILIES[name](**({"priors": torch.rand(3)} if isinstance(kept.criterion, PriorLoss) else {}))
        module = classifier(pl)(criterion=criterion)
        loss = module.criterion(module(torch.randn(4, FEATURES)), target)
        loss.backward()
        assert module.net[0].weight.grad.shape == (16, FEATURES)
    with FlopCounterMode(display=False) as counter:
        loss = kept.criterion(kept(X), given)
    assert counter.get_total_flops() > 0
    torch.testing.assert_close(loss, kept.criterion(kept(X), given))


def test_state_dicts_of_the_original_module_load_strictly_and_back():
    for weight in (None, torch.ones(3)):
        plain = seeded(classifier(pl), criterion=nn.CrossEntropyLoss(weight=weight), seed=1)
        module = changed(criterion=nn.CrossEntropyLoss(weight=weight))
        theta = module.criterion.theta.clone()
        module.load_state_dict(plain.state_dict())
        assert torch.equal(module.criterion.theta, theta)
        torch.testing.assert_close(module(X), plain(X))
        assert restore_original(module) == ["criterion"]
        assert module.state_dict().keys() == plain.state_dict().keys()
        seeded(classifier(pl), criterion=nn.CrossEntropyLoss(weight=weight)).load_state_dict(module.state_dict())


def own(logits, target):
    return nn.functional.cross_entropy(logits, target)


@pytest.mark.parametrize("original", [nn.CrossEntropyLoss(label_smoothing=0.1), own])
def test_the_original_comes_back(original):
    module = changed(criterion=original)
    LossSlots("criterion").install(module, Criterion.of("gce", [0.5]))  # a second search
    module = copy.deepcopy(module).eval()
    assert restore_original(module) == ["criterion"]
    torch.testing.assert_close(module.criterion(module(X), Y), original(module(X), Y))
    assert not getattr(module.criterion, "training", False)
    assert restore_original(module) == []


@pytest.mark.parametrize(("name", "original"), [("binary_taylor", nn.BCEWithLogitsLoss()), ("barron", nn.MSELoss())])
def test_the_original_of_other_targets_comes_back(name, original):
    module = seeded(classifier(pl), criterion=original)
    LossSlots("criterion").install(module, Criterion.of(name, [axis.default for axis in FAMILIES[name].axes]))
    assert restore_original(module) == ["criterion"]
    assert module.criterion is original


def test_the_original_of_calls_inline_comes_back():
    class Inline(classifier(pl)):
        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

    plain, module = seeded(Inline).eval(), seeded(Inline).eval()
    LossSlots.of([InlineSlot("F.cross_entropy", (0,))]).install(module, Criterion.of("gce", [0.5]))
    assert module.training_step((X, Y), 0) != plain.training_step((X, Y), 0)
    assert restore_original(module) == ["inline_cross_entropy.criterion"]
    assert module.training_step((X, Y), 0) == plain.training_step((X, Y), 0)
    assert module.state_dict().keys() == plain.state_dict().keys()


def test_every_call_inline_has_its_own_weights():
    weight = torch.tensor([1.0, 2.0, 4.0])

    class Alternating(classifier(pl)):
        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0]), batch[1], weight=None if batch_idx else weight)

    module = seeded(Alternating).eval()
    slot = InlineSlot("F.cross_entropy", (0,), {"weight": weight})
    LossSlots.of([slot]).install(module, Criterion.of("gce", [0.5]))
    for batch_idx, own_weight in enumerate((weight, None)):
        expected = FAMILIES["gce"](0.5, weight=own_weight)(module(X), Y)
        torch.testing.assert_close(module.training_step((X, Y), batch_idx), expected)
