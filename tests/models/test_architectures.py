from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from tglo_lightning import TaylorGLO
from tglo_lightning.data import DigitsDataModule
from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.models import (
    AlexNet,
    AllCNN,
    Classifier,
    DenseNet,
    LeNet5,
    MNISTNet,
    Normalize,
    PreResNet,
    PyramidNet,
    ResNet,
    WideResNet,
)
from tglo_lightning.search import Budget, Finals

CIFAR = {"input_shape": (3, 32, 32), "num_classes": 10}
MNIST = {"input_shape": (1, 28, 28), "num_classes": 10}
WRN, PYRAMID, DENSE = (
    partial(kind, depth=depth) for kind, depth in ((WideResNet, 10), (PyramidNet, 8), (DenseNet, 10))
)
STAGED = [AlexNet, AllCNN, ResNet, PreResNet, WRN, PYRAMID, DENSE]
NETWORKS = [LeNet5, MNISTNet, *STAGED]


def name(network):
    return getattr(network, "func", network).__name__


def count(network):
    # on a device without memory: the large ones cost nothing
    with torch.device("meta"):
        return sum(p.numel() for p in network().parameters())


@pytest.mark.parametrize(
    ("network", "published"),
    [
        (partial(LeNet5, **MNIST), 61_706),
        (partial(MNISTNet, **MNIST), 3_274_634),
        (partial(AlexNet, **CIFAR), 2.47e6),
        (partial(AllCNN, **CIFAR), 1.37e6),
        (partial(ResNet, **CIFAR, depth=20), 0.27e6),
        (partial(ResNet, **CIFAR, depth=32), 0.46e6),
        (partial(ResNet, **CIFAR, depth=56), 0.85e6),
        (partial(PreResNet, **CIFAR, depth=20), 0.27e6),
        (partial(PreResNet, **CIFAR, depth=32), 0.46e6),
        (partial(PreResNet, **CIFAR, depth=56), 0.85e6),
        (partial(ResNet, **CIFAR, depth=110), 1.7e6),
        (partial(WideResNet, **CIFAR, depth=16, widen=8), 11.0e6),
        (partial(WideResNet, **CIFAR, depth=28, widen=10), 36.5e6),
        (partial(WideResNet, **CIFAR, depth=40, widen=4), 8.9e6),
        (partial(WideResNet, **CIFAR, depth=28, widen=5), 9.1e6),
        (partial(DenseNet, **CIFAR), 769_162),
        (partial(DenseNet, **CIFAR, depth=190, growth=40), 25.6e6),
    ],
)
def test_parameters_are_as_many_as_published(network, published):
    # to the digits that papers give
    assert count(network) == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(
    ("alpha", "published", "exact"), [(48, 1.7e6, 1_772_706), (84, 3.8e6, 3_904_446), (270, 28.3e6, 28_485_477)]
)
def test_parameters_of_pyramids(alpha, published, exact):
    # the exact figures are those of github.com/osmr/imgclsmob; the paper's are a little smaller
    assert count(partial(PyramidNet, **CIFAR, alpha=alpha)) == exact == pytest.approx(published, rel=0.05)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 33, 40)], ids=str)
@pytest.mark.parametrize("network", NETWORKS, ids=name)
def test_channels_and_classes_follow_the_task(network, shape):
    net = network(input_shape=shape, num_classes=7, width=0.1)
    logits = net(torch.rand(2, *shape))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("network", NETWORKS, ids=name)
def test_width(network):
    sizes = [sum(p.numel() for p in network(**CIFAR, width=width).parameters()) for width in (0.1, 0.2)]
    assert 1.5 < sizes[1] / sizes[0] < 6


@pytest.mark.parametrize("network", STAGED, ids=name)
@pytest.mark.parametrize("aux", [1, 2])
def test_auxiliary_classifiers_speak_in_training_only(network, aux):
    net = network(**CIFAR, width=0.1, aux=aux)
    images = torch.rand(4, 3, 32, 32)
    logits, early = net(images)
    assert net.aux == aux == len(early)
    assert all(each.shape == logits.shape == (4, 10) for each in early)
    assert net.eval()(images).shape == (4, 10)
    # in order: each further one has seen more of the network
    reached = []
    net.train()
    for each in net(images)[1]:
        grads = torch.autograd.grad(each.sum(), list(net.stages.parameters()), allow_unused=True, retain_graph=True)
        reached.append(sum(grad is not None for grad in grads))
    assert reached == sorted(set(reached))


@pytest.mark.parametrize("network", STAGED, ids=name)
def test_the_depth_of_a_signal_neither_vanishes_nor_explodes(network):
    torch.manual_seed(0)
    logits = network(**CIFAR, width=0.2).eval()(torch.randn(16, 3, 32, 32))
    assert 0.005 < logits.std() < 50


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(ResNet, **CIFAR, depth=21), r"depth must be 6 n \+ 2"),
        (partial(WideResNet, **CIFAR, depth=26), r"depth must be 6 n \+ 4"),
        (partial(DenseNet, **CIFAR, depth=4), "depth"),
        (partial(ResNet, **CIFAR, aux=3), "`aux` must be from 0 to 2"),
        (partial(AllCNN, **CIFAR, width=0), "width"),
        (partial(AllCNN, input_shape=(3, 8, 8), num_classes=10), "input_shape must have H and W of at least 9"),
        (partial(LeNet5, input_shape=(64,), num_classes=10), r"input_shape must be \(C, H, W\)"),
        (partial(WideResNet, **CIFAR, widen=0), "widen"),
        (partial(PyramidNet, **CIFAR, alpha=-1), "alpha"),
        (partial(AlexNet, input_shape=(3, 32, 32), num_classes=1), "num_classes"),
        (partial(Normalize, (0.5,), (0.5, 0.5)), "mean and std"),
        (partial(Normalize, (0.5,), (0.0,)), "std must be above 0"),
    ],
)
def test_refuses_values_out_of_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_normalize():
    pixels = torch.rand(2, 3, 4, 4)
    layer = Normalize((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    normal = layer(pixels)
    assert torch.allclose(normal[:, 2], (pixels[:, 2] - 0.3) / 4)
    assert set(layer.state_dict()) == {"mean", "std"}
    assert Normalize((0.0,) * 5, (1.0,) * 5)(torch.ones(3, 5)).shape == (3, 5)


def _trainer(tmp_path, **kwargs):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", default_root_dir=tmp_path, enable_model_summary=False, **quiet, **kwargs)


def _with_aux(**kwargs):
    torch.manual_seed(0)
    net = ResNet(input_shape=(1, 8, 8), num_classes=10, depth=8, width=0.25, aux=2)
    losses = [nn.CrossEntropyLoss() for _ in range(2)]
    sgd = partial(torch.optim.SGD, lr=0.1)
    return Classifier(net, nn.CrossEntropyLoss(), 10, sgd, aux_criteria=losses, **kwargs)


def test_the_loss_is_the_main_one_and_a_share_of_the_others():
    module = _with_aux(aux_weight=0.5)
    module.log = lambda *args, **kwargs: None
    images, labels = torch.rand(6, 1, 8, 8), torch.arange(6)
    logits, early = module.net(images)
    expected = nn.functional.cross_entropy(logits, labels)
    expected = expected + 0.5 * sum(nn.functional.cross_entropy(each, labels) for each in early)
    assert torch.allclose(module.training_step((images, labels), 0), expected)
    assert module(images).shape == (6, 10)
    main = module.eval().training_step((images, labels), 0)
    assert torch.allclose(main, nn.functional.cross_entropy(module.net(images), labels))


def test_losses_and_classifiers_must_match():
    module = _with_aux()
    module.log = lambda *args, **kwargs: None
    del module.aux_criteria[1]
    with pytest.raises(ValueError, match="aux_criteria holds 1 loss for 2"):
        module.training_step((torch.rand(6, 1, 8, 8), torch.arange(6)), 0)
    with pytest.raises(ValueError, match="aux_weight"):
        _with_aux(aux_weight=-1)


@pytest.mark.parametrize("evaluator", ["trainer", "vectorized"])
def test_the_loss_of_an_auxiliary_classifier_can_be_metalearned(tmp_path, evaluator):
    module = _with_aux()
    options = {"generations": 1, "population": 3, "budget": Budget(steps=2), "finals": Finals(1, 0, 1)}
    options |= {"report": False}
    search = TaylorGLO(loss="aux_criteria.0", evaluator=evaluator, **options)
    data = DigitsDataModule(train_size=64, val_size=32, batch_size=32)
    _trainer(tmp_path, max_steps=1, callbacks=[search]).fit(module, datamodule=data)
    assert len(search.result.history) == 3
    assert all(candidate.status == "ok" for candidate in search.result.history)
    assert isinstance(module.aux_criteria[0], TaylorGLOLoss) == (search.result.kept == "metalearned")
    assert isinstance(module.criterion, nn.CrossEntropyLoss)


def test_the_losses_of_all_classifiers_can_be_metalearned_together(tmp_path):
    module = _with_aux()
    paths = ["criterion", "aux_criteria.0", "aux_criteria.1"]
    options = {"generations": 1, "population": 3, "budget": Budget(steps=2), "finals": Finals(1, 0, 1)}
    options |= {"report": False}
    search = TaylorGLO(loss=paths, evaluator="vectorized", **options)
    data = DigitsDataModule(train_size=64, val_size=32, batch_size=32)
    _trainer(tmp_path, max_steps=1, callbacks=[search]).fit(module, datamodule=data)
    assert all(candidate.status == "ok" for candidate in search.result.history)
    kept = [module.criterion, *module.aux_criteria]
    assert all(isinstance(loss, TaylorGLOLoss) == (search.result.kept == "metalearned") for loss in kept)
