"""Where a module keeps its loss."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tglo_lightning.losses import BaikalLoss, TaylorGLOLoss
from tglo_lightning.module import LossSlot, LossSlots, restore_loss
from tglo_lightning.search import Criterion, LossSpec

THETA = LossSpec("taylorglo", (0.1, 0.2, 0.3, -0.4, 0.5, 0.6, -0.7, 0.8))


class Head(nn.Module):
    def __init__(self, criterion) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.criterion = criterion


class Net(nn.Module):
    def __init__(self, criterion=None) -> None:
        super().__init__()
        self.head = Head(nn.CrossEntropyLoss() if criterion is None else criterion)
        self.losses = nn.ModuleList([nn.CrossEntropyLoss()])
        self.bag = SimpleNamespace(criterion=nn.CrossEntropyLoss())
        self.number = 3


@pytest.mark.parametrize("path", ["head.criterion", "losses.0"])
def test_install_by_path(path):
    net = Net()
    LossSlot(path).install(net, THETA)
    loss = LossSlot(path).get(net)
    assert isinstance(loss, TaylorGLOLoss)
    assert tuple(loss.theta.tolist()) == THETA.theta
    assert f"{path}.theta" in net.state_dict()


@pytest.mark.parametrize(
    "criterion", [F.cross_entropy, F.nll_loss, nn.NLLLoss(), BaikalLoss(), partial(F.cross_entropy)]
)
def test_what_can_be_replaced(criterion):
    net = Net(criterion)
    slot = LossSlot("head.criterion")
    assert slot.name(net) in ("cross_entropy", "nll_loss", "NLLLoss", "BaikalLoss")
    slot.install(net, THETA)
    assert isinstance(net.head.criterion, TaylorGLOLoss)


@pytest.mark.parametrize(
    "criterion",
    [
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]), ignore_index=7, reduction="sum"),
        nn.NLLLoss(weight=torch.tensor([1.0, 2.0]), ignore_index=7, reduction="sum"),
        partial(F.cross_entropy, weight=torch.tensor([1.0, 2.0]), ignore_index=7, reduction="sum"),
    ],
)
def test_options_are_taken_over(criterion):
    net = Net(criterion)
    LossSlot("head.criterion").install(net, THETA)
    loss = net.head.criterion
    assert loss.weight.tolist() == [1.0, 2.0]
    assert (loss.ignore_index, loss.reduction) == (7, "sum")


@pytest.mark.parametrize(
    "criterion",
    [nn.MultiMarginLoss(), nn.KLDivLoss(), F.soft_margin_loss, partial(F.multi_margin_loss, reduction="sum")],
)
def test_what_cannot_be_replaced(criterion):
    with pytest.raises(ValueError, match=r"replaces CrossEntropyLoss, .*, HuberLoss, and losses of your own"):
        LossSlot("head.criterion").get(Net(criterion))


def test_missing_attribute_names_what_there_is():
    with pytest.raises(ValueError, match=r"has no attribute 'criterion'.*'head\.criterion', 'losses\.0'"):
        LossSlot("criterion").get(Net())


def test_missing_loss_says_how_to_make_one():
    with pytest.raises(ValueError, match="Leave out `loss=` to let it be found"):
        LossSlot("criterion").get(nn.Linear(2, 2))


def test_not_a_loss():
    with pytest.raises(ValueError, match=r"Net\.number is 3, not a loss"):
        LossSlot("number").get(Net())


def test_owner_that_is_no_module():
    with pytest.raises(ValueError, match="its owner is a SimpleNamespace"):
        LossSlot("bag.criterion").get(Net())


def test_a_method_cannot_be_replaced():
    class Method(nn.Module):
        def criterion(self, logits, target):
            return F.cross_entropy(logits, target)

    with pytest.raises(ValueError, match=r"Method\.criterion belongs to the class"):
        LossSlot("criterion").get(Method())


def test_several_places_take_the_losses_of_a_criterion_in_order():
    net = Net()
    slots = LossSlots(["head.criterion", "losses.0"])
    slots.install(net, Criterion.original())
    assert slots.name(net) == "CrossEntropyLoss, CrossEntropyLoss"
    slots.install(net, Criterion((THETA, LossSpec("smoothing", (0.1,)))))
    assert net.head.criterion.family == "taylorglo"
    assert net.losses[0].family == "smoothing"
    installed = net.head.criterion
    slots.install(net, Criterion((THETA, LossSpec("smoothing", (0.2,)))))
    assert net.head.criterion is installed
    assert net.losses[0].theta.tolist() == [0.2]


@pytest.mark.parametrize(("paths", "error"), [([], ValueError), (["a", "a"], ValueError), (3, TypeError)])
def test_places_that_are_none(paths, error):
    with pytest.raises(error, match="`loss` must"):
        LossSlots(paths)


@pytest.mark.parametrize("path", ["", "a b", ".criterion", "head..criterion", "head.criterion()"])
def test_malformed_path(path):
    with pytest.raises(ValueError, match="`loss` must be the path"):
        LossSlot(path)


@pytest.mark.parametrize("path", [None, 3, nn.CrossEntropyLoss()])
def test_path_of_a_wrong_type(path):
    with pytest.raises(TypeError, match="`loss` must be the path"):
        LossSlot(path)


def test_restore_from_a_state_dict():
    trained = Net()
    LossSlot("head.criterion").install(trained, THETA)
    fresh = Net()
    state = trained.state_dict()
    assert restore_loss(fresh, state) == ["head.criterion"]
    fresh.load_state_dict(state)
    assert tuple(fresh.head.criterion.theta.tolist()) == THETA.theta
    # a second time there is nothing to do
    assert restore_loss(fresh, state) == []


def test_restore_another_order():
    trained, fresh = Net(), Net(TaylorGLOLoss(order=2))
    LossSlot("head.criterion").install(trained, THETA)
    assert restore_loss(fresh, trained.state_dict()) == ["head.criterion"]
    assert fresh.head.criterion.order == 3


def test_restore_leaves_a_users_own_theta_alone():
    class Rotation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.zeros(8))

    class WithRotation(Net):
        def __init__(self) -> None:
            super().__init__()
            self.rotation = Rotation()

    trained = WithRotation()
    LossSlot("head.criterion").install(trained, THETA)
    fresh = WithRotation()
    assert restore_loss(fresh, trained.state_dict()) == ["head.criterion"]
    assert isinstance(fresh.rotation, Rotation)
