"""Imports go one way, without circles, and the rooms below Lightning never import it."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import tglo_lightning

HEAVY = ("pytorch_lightning", "lightning", "wandb", "matplotlib", "datasets", "hydra", "torchmetrics")


@cache
def modules(*statements: str) -> list[list[str]]:
    """``sys.modules`` after each statement, in an interpreter of its own."""
    code = "import sys\n" + "".join(f"{statement}\nprint(*sys.modules)\n" for statement in statements)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [line.split() for line in run.stdout.splitlines()]


# What each imports besides the ones before it; the first shows what torch itself does
ROOMS = ("import torch", *(f"import tglo_lightning.{name}" for name in ("losses", "theory", "search")))


@pytest.mark.parametrize(("number", "name"), [(1, "losses"), (2, "theory"), (3, "search")])
def test_no_lightning_in_the_lower_rooms(number, name):
    found = modules(*ROOMS)[number]
    assert {module.split(".")[0] for module in found} & set(HEAVY) == set()
    known = {room(module) for module in found if module.startswith("tglo_lightning.")}
    assert max(known, key=LEVEL.__getitem__) == name


def test_the_losses_import_torch_and_nothing_else():
    """What costs time to import would be a module of somebody else's."""
    torch, losses, *_ = modules(*ROOMS)
    found = set(losses) - set(torch)
    assert "tglo_lightning.losses.taylorglo" in found
    assert {name.split(".")[0] for name in found} - sys.stdlib_module_names == {"tglo_lightning"}


PLAIN = """
import torch
from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.search import Finals, minimize

def fn(loss):
    net = torch.nn.Linear(4, 3)
    loss(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
    return net.weight.grad.norm()

finals = Finals(finalists=1, seeds=1, confirm=2)
result = minimize(fn, 3, space="taylorglo", generations=1, population=3, finals=finals, progress=False)
assert result.failed == 0
assert isinstance(result.best.criterion.build(), TaylorGLOLoss)
"""


def test_a_search_in_plain_pytorch_never_imports_lightning():
    found = {name.split(".")[0] for name in modules(PLAIN)[-1]}
    # cma imports matplotlib where it is installed
    assert found & set(HEAVY) - {"matplotlib"} == set()


def test_the_search_imports_no_scipy():
    assert "scipy" not in modules(*ROOMS)[-1]


# What a room may import stands before it. Those on one level do not know each other, but that attacks report
LEVELS = (
    ("_version", "arguments", "untrusted", "wording"),
    ("losses",),
    ("theory",),
    ("search",),
    ("module",),
    ("evaluation", "reporting", "data", "models"),
    ("attacks",),
    ("callbacks",),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
PACKAGE = Path(tglo_lightning.__file__).parent


@cache
def imports() -> dict[str, set[str]]:
    """What each module of the package imports of it, also within functions, but not for type hints only."""
    sources = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(
            path.read_text(encoding="utf-8")
        )
    found: dict[str, set[str]] = {name: set() for name in sources}
    for name, tree in sources.items():
        hints = [
            node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ]
        hinted = {id(node) for hint in hints for node in ast.walk(hint)}
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.ImportFrom)
                and id(node) not in hinted
                and (node.module or "").startswith(PACKAGE.name)
            ):
                paths = [f"{node.module}.{alias.name}" for alias in node.names]
                found[name] |= {path if path in sources else str(node.module) for path in paths}
    return found


def room(module: str) -> str:
    return module.split(".")[1]


def test_rooms_import_one_way():
    inside = {name: targets for name, targets in imports().items() if "." in name}
    wrong = [
        f"{name} imports {target}"
        for name, targets in inside.items()
        for target in targets
        if "." in target and room(target) != room(name) and LEVEL[room(target)] >= LEVEL[room(name)]
    ]
    assert wrong == []


def test_no_module_imports_itself_through_others():
    try:
        list(TopologicalSorter(imports()).static_order())
    except CycleError as circle:
        raise AssertionError(" <- ".join(circle.args[1])) from None


def test_the_top_level_is_lazy():
    [found] = modules("import tglo_lightning; tglo_lightning.__version__")
    assert set(found) & {*HEAVY, "torch", "cma"} == set()


def test_the_callback_imports_no_extras():
    # torchmetrics imports matplotlib where it is installed
    found = set(modules("from tglo_lightning import TaylorGLO")[0])
    assert found & {"datasets", "kornia", "foolbox", "wandb"} == set()
    assert "pytorch_lightning" in found


def test_names_at_the_top():
    import tglo_lightning

    assert set(tglo_lightning.__all__) <= set(dir(tglo_lightning))
    for name in tglo_lightning.__all__:
        assert getattr(tglo_lightning, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Taylor'"):
        _ = tglo_lightning.Taylor
