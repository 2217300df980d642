"""What a function leads to: changes that matter are seen, others are not."""

from types import ModuleType

import pytest
import torch

from tglo_lightning.search.walker import code_of

PROGRAM = """
import torch
from functools import partial

RATE = 0.1
DATA = torch.arange(4.0), "names"
LOG = []
calls = 0


class Base:
    def layers(self):
        return 3


class Net(Base):
    width = 8


def helper(x):
    return x + 1


def fn(loss, epochs=5):
    global calls
    calls += 1  # a counter
    LOG.append(calls)
    return helper(RATE) + epochs + DATA[0].sum() + Net().width
"""
CHANGES = {
    "constant": ("RATE = 0.1", "RATE = 0.2"),
    "data": ("arange(4.0)", "arange(5.0)"),
    "text in a tuple": ('"names"', '"other"'),
    "helper": ("x + 1", "x + 2"),
    "default": ("epochs=5", "epochs=6"),
    "class": ("width = 8", "width = 9"),
    "base class": ("return 3", "return 4"),
    "function": ("+ epochs", "- epochs"),
}
SAME = {
    "comment": ("# a counter", "# counts"),
    "counter": ("calls = 0", "calls = 7"),
    "list": ("LOG = []", "LOG = [1]"),
    "what is not used": ("import torch\n", "import torch\nUNUSED = 1\n"),
}


def described(program):
    scope = {"__name__": "users_script"}
    exec(program, scope)
    return code_of(scope["fn"])


@pytest.mark.parametrize("change", [*CHANGES, *SAME])
def test_changes(change):
    before, after = (CHANGES | SAME)[change]
    assert before in PROGRAM
    changed = described(PROGRAM.replace(before, after)) != described(PROGRAM)
    assert changed == (change in CHANGES)


def test_modules_that_a_function_uses():
    module = ModuleType("users_helpers")
    exec("SCALE = 1.0\nUNUSED = 1\ndef scaled(x):\n    return SCALE * x", vars(module))
    scope = {"__name__": "users_script", "helpers": module}
    exec("def fn(loss):\n    return helpers.scaled(2.0)", scope)
    before = code_of(scope["fn"])
    module.UNUSED = 2
    assert code_of(scope["fn"]) == before
    module.SCALE = 2.0
    assert code_of(scope["fn"]) != before


def test_closures_and_objects():
    def build(rate, data):
        def fn(loss):
            return rate * data.sum()

        return fn

    ones = torch.ones(3)
    assert code_of(build(0.1, ones)) == code_of(build(0.1, torch.ones(3)))
    assert code_of(build(0.1, ones)) != code_of(build(0.2, ones))
    assert code_of(build(0.1, ones)) != code_of(build(0.1, -ones))

    class Called:
        def __call__(self, loss):
            return 1.0

    assert any("__call__" in name for name in code_of(Called()))
    assert code_of(torch.nn.Linear, print, None) == {}
