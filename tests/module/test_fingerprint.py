"""Equal for the same script started again, different for another one."""

import functools
import importlib
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from helpers.data import blobs, loader
from helpers.fits import inner_fit
from torch import nn

from tglo_lightning.evaluation import probe
from tglo_lightning.module.fingerprint import Fingerprint, compared
from tglo_lightning.search import Budget

HELPERS = """
SCALE = 1.0
TABLE = {"weights": [1.0, 2.0]}

def scaled(x):
    return inner(x) * SCALE

def inner(x):
    return x + 0.0
"""
SCRIPT = '''
"""A script as users write it."""
import functools
from argparse import Namespace
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
import tglo_helpers
from tglo_helpers import scaled

ACTIVATION = torch.relu
SHARE = 0.5
ARGS = Namespace(gain=1.0, resume=False)

class Mine(torch.optim.SGD):
    def step(self, closure=None):
        return super().step(closure)

def warm(step):
    return min(1.0, (step + 1) / 4)

def clean(x):
    return x

class Noise:
    def __init__(self, level):
        self._level = level
    def __call__(self, x):
        return x + self._level

def weigh(factor):
    def weighted(loss):
        return loss * factor
    return weighted

class Watch(pl.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pass

class Lazy(Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y
    def __len__(self):
        return len(self.y)
    def __getitem__(self, i):
        return self.x[i] + 0.0, self.y[i]

class Net(pl.LightningModule):
    """A network."""

    def __init__(self, width=16):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 3))
        self.criterion = nn.CrossEntropyLoss()
        self.kind = "plain"
        self._mix = 0.25
        self.order = list(range(300))
        self.noise = Noise(0.0)
        self.weigh = weigh(1.0)
        self.register_buffer("mean", torch.zeros(8), persistent=False)
        self.register_buffer("scale", torch.ones(8))
        self.shift = torch.zeros(8)

    def forward(self, x):
        # Standardise
        return self.net(self.noise(clean(x)) * self.scale - self.mean + self.shift)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.weigh(self.criterion(ACTIVATION(self(scaled(x))) * ARGS.gain, y))

    def validation_step(self, batch, batch_idx):
        from tglo_helpers import inner
        x, y = batch
        self.log("val/acc", (self(inner(x)).argmax(1) == y).float().mean())

    def configure_optimizers(self):
        optimizer = Mine(self.parameters(), lr=0.1 * SHARE)
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, warm)]

def build():
    return Net(16)
'''


def fingerprint(tmp_path, monkeypatch, *, script=(), helpers=(), change=None, data=None, **options):
    """The identity of the script after edits of its text, and of its module or its data after a change."""
    text, other = SCRIPT, HELPERS
    for old, new in script:
        assert old in text
        text = text.replace(old, new)
    for old, new in helpers:
        assert old in other
        other = other.replace(old, new)
    for name, content in (("tglo_helpers", other), ("tglo_script", text)):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(content))
        sys.modules.pop(name, None)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    made = importlib.import_module("tglo_script")
    torch.manual_seed(0)
    module = made.Net()
    sets = {"train": blobs(600, seed=1), "val": blobs(300, seed=2)}
    if change is not None:
        change(module)
    if data is not None:
        data(sets, made)
    loaders = {f"{name}_dataloaders": loader(entry, shuffle=name == "train") for name, entry in sets.items()}
    init = made.build if options.pop("build", False) else "module"
    budget = Budget(steps=2, callbacks=[made.Watch()])
    found = probe(inner_fit(_api(), tmp_path, module, loaders, budget, init=init, **options))
    return found.identity | {"code": found.seen.code(), "left_out": found.seen.summary()}


def _api():
    return importlib.import_module("pytorch_lightning")


def edit(old, new, of="script"):
    return {of: [(old, new)]}


def of(function):
    return {"change": function}


def labels(sets, stage, index):
    y = sets[stage].tensors[1]
    y[index] = (y[index] + 1) % 3


class Table(torch.utils.data.Dataset):
    """Samples that only reading shows."""

    __slots__ = ()

    def __len__(self):
        return 300

    def __getitem__(self, index):
        return torch.full((8,), float(index)), index % 3


class OtherTable(Table):
    def __getitem__(self, index):
        return torch.full((8,), float(index)), (index + (index == 299)) % 3


NOTICED = {
    "a hyper-parameter": of(lambda m: m.hparams.update(width=17)),
    "a string": of(lambda m: setattr(m, "kind", "other")),
    "a private attribute": of(lambda m: setattr(m, "_mix", 0.26)),
    "entry 150 of a list": of(lambda m: m.order.__setitem__(150, 0)),
    "an attribute of a helper object": of(lambda m: setattr(m.noise, "_level", 0.1)),
    "an attribute of a submodule": of(lambda m: setattr(m.net[2], "p", 0.2)),
    "a private attribute of a submodule": of(lambda m: setattr(m.net[1], "note", [1])),
    "a closure": edit("weigh(1.0)", "weigh(2.0)"),
    "a buffer that is not saved": of(lambda m: m.mean.add_(1e-6)),
    "a buffer": of(lambda m: m.scale.mul_(1 + 1e-6)),
    "a tensor": of(lambda m: m.shift.add_(1e-6)),
    "negated weights": of(lambda m: m.net[0].weight.data.neg_()),
    "two weights swapped": of(lambda m: m.net[0].weight.data.copy_(m.net[0].weight.data.flip(0))),
    "a frozen layer": of(lambda m: m.net[0].weight.requires_grad_(False)),
    "a layer": of(lambda m: m.net.append(nn.Tanh())),
    "evaluation mode": of(lambda m: m.net[2].eval()),
    "a hook": of(lambda m: m.net[0].register_forward_hook(lambda module, args, output: output * 2)),
    "an array": of(lambda m: setattr(m, "prior", np.ones(3))),
    "a function of a module": edit("x + 0.0", "x + 0.1", "helpers"),
    "a constant of a module": edit("SCALE = 1.0", "SCALE = 1.1", "helpers"),
    "a function of the script": edit("def clean(x):\n    return x", "def clean(x):\n    return -x"),
    "a function by another name": edit("ACTIVATION = torch.relu", "ACTIVATION = torch.tanh"),
    "a constant of the script": edit("SHARE = 0.5", "SHARE = 0.4"),
    "an argument of the command line": edit("gain=1.0", "gain=2.0"),
    "the body of a step": edit("return self.weigh(", "return 2 * self.weigh("),
    "the body of a validation": edit("self(inner(x))", "self(inner(-x))"),
    "the body of an optimizer": edit("return super().step(closure)", "return -super().step(closure)"),
    "a rate": edit("lr=0.1", "lr=0.2"),
    "a schedule function": edit("/ 4", "/ 5"),
    "a method of a helper object": edit("x + self._level", "x - self._level"),
    "the body of a candidate's callback": edit("batch_idx):\n        pass", "batch_idx):\n        print()"),
    "a training label after the first batch": {"data": lambda sets, made: labels(sets, "train", 500)},
    "a validation label after the first batch": {"data": lambda sets, made: labels(sets, "val", 299)},
    "negated images": {"data": lambda sets, made: sets["val"].tensors[0].neg_()},
    "a dataset's code": {
        "script": [("self.x[i] + 0.0", "self.x[i] + 0.1")],
        "data": lambda sets, made: sets.update(val=made.Lazy(*sets["val"].tensors)),
    },
    "an init function": {"script": [("return Net(16)", "return Net(width=16)")], "build": True},
    "gradient clipping": {"gradient_clip_val": 1.0},
}
BASES = {
    "a dataset's code": {"data": NOTICED["a dataset's code"]["data"]},
    "an init function": {"build": True},
    "read data alone": {"data": lambda sets, made: sets.update(val=Table())},
}
NOTICED["read data alone"] = {"data": lambda sets, made: sets.update(val=OtherTable())}
UNNOTICED = {
    "nothing": {},
    "a comment": edit("# Standardise", "# Standardise, then predict"),
    "a docstring": edit('"""A network."""', '"""My network."""'),
    "a blank line": edit("def warm(step):", "\n\ndef warm(step):"),
    "a local variable": edit(
        "optimizer = Mine(self.parameters(), lr=0.1 * SHARE)\n        return [optimizer], [torch.optim.lr_scheduler."
        "LambdaLR(optimizer, warm)]",
        "opt = Mine(self.parameters(), lr=0.1 * SHARE)\n        return [opt], [torch.optim.lr_scheduler."
        "LambdaLR(opt, warm)]",
    ),
    "the order of imports": edit("import torch\nfrom torch import nn\n", "from torch import nn\nimport torch\n"),
    "a function that nothing uses": edit("def build():", "def unused():\n    return 1\n\ndef build():"),
    "an argument that nothing uses": edit("resume=False", "resume=True"),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        made = {name: fingerprint(tmp_path_factory.mktemp("base"), patch, **base) for name, base in BASES.items()}
        yield made | {"": fingerprint(tmp_path_factory.mktemp("base"), patch)}


@pytest.mark.parametrize("name", NOTICED)
def test_what_is_noticed(tmp_path, monkeypatch, bases, name):
    assert fingerprint(tmp_path, monkeypatch, **NOTICED[name]) != bases.get(name, bases[""])


@pytest.mark.parametrize("name", UNNOTICED)
def test_what_is_not_noticed(tmp_path, monkeypatch, bases, name):
    assert fingerprint(tmp_path, monkeypatch, **UNNOTICED[name]) == bases[""]


def test_ranks_compare_what_the_data_hold(tmp_path, monkeypatch, bases):
    for stage, index in (("train", 500), ("val", 299)):
        change = {"data": lambda sets, made, stage=stage, index=index: labels(sets, stage, index)}
        found = fingerprint(tmp_path, monkeypatch, **change)["data"]
        differ = {name for name in found if found[name]["contents"] != bases[""]["data"][name]["contents"]}
        assert differ == {stage}


def test_times_and_temporary_directories_do_not_count():
    describe = Fingerprint().value
    assert describe("runs/2024-05-06_10-11-12/x") == describe("runs/2025-01-31_23-59-00/x")
    assert describe("lightning_logs/version_3") == describe("lightning_logs/version_12")
    assert describe("a/b") != describe("a/c")
    assert Fingerprint(exact=True).value("2024-05-06") != Fingerprint(exact=True).value("2024-05-07")


def test_what_was_compared_is_said(bases):
    text = compared(bases[""])
    assert "train data (256 of 600 samples), val data (300 of 300 samples)" in text
    assert "left out" not in text


def test_large_values_are_looked_at_in_part_and_that_is_said(monkeypatch):
    monkeypatch.setattr("tglo_lightning.search.walker.LARGEST", 2**20)
    monkeypatch.setattr("tglo_lightning.search.walker.OBJECTS", 1000)
    one = torch.zeros(2**20)
    other = one.clone()
    other[-1] = 1
    whole = Fingerprint()
    assert whole.value(one) != whole.value(other)
    assert whole.value([{i} for i in range(5000)]).startswith("list ")
    assert whole.summary() == ["6 MB of large tensors", "4000 of 5000 entries of a list"]


def test_cycles_and_values_that_fail():
    class Failing(dict):
        def items(self):
            raise KeyError("missing")

    ring = [1]
    ring.append(ring)
    assert Fingerprint().value(ring) == Fingerprint().value(ring)
    assert Fingerprint().value(Failing()).endswith("KeyError")


def test_what_has_no_shape_yet():
    net = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 3))
    assert Fingerprint().module(net)["parameters"] == 12
    assert Fingerprint().value(torch.zeros(3, device="meta")) != Fingerprint().value(torch.zeros(4, device="meta"))
    assert Fingerprint().value(torch.eye(3).to_sparse()) == Fingerprint().value(torch.eye(3).to_sparse())


def test_it_is_quick(tmp_path):
    """In a second: a network of 40 MB, half a million paths, ten thousand objects."""
    net = nn.Sequential(*[nn.Linear(1000, 1000) for _ in range(10)])
    net.paths = [(f"images/{i}.jpg", i % 10) for i in range(500_000)]
    net.objects = [functools.partial(int, i) for i in range(10_000)]
    start = time.perf_counter()
    Fingerprint().module(net)
    assert time.perf_counter() - start < 5
