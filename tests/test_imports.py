"""What an import costs: the rooms below Lightning never import it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tglo_lightning.reporting

HEAVY = ("pytorch_lightning", "lightning", "wandb", "matplotlib", "datasets", "hydra", "torchmetrics")


def modules(statement: str) -> list[str]:
    """``sys.modules`` after ``statement``, in an interpreter of its own."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


@pytest.mark.parametrize(
    ("room", "above"),
    [
        ("losses", ("theory", "search", "evaluation", "callbacks")),
        ("theory", ("search", "evaluation", "reporting", "callbacks")),
        ("search", ("evaluation", "callbacks", "reporting")),
    ],
)
def test_imports_go_one_way_and_without_lightning(room, above):
    found = modules(f"import tglo_lightning.{room}")
    assert {name.split(".")[0] for name in found} & set(HEAVY) == set()
    assert [name for name in found for other in above if name.startswith(f"tglo_lightning.{other}")] == []


def test_the_losses_import_torch_and_nothing_else():
    """What costs time to import would be a module of somebody else's."""
    found = set(modules("import tglo_lightning.losses")) - set(modules("import torch"))
    assert "tglo_lightning.losses.taylorglo" in found
    assert {name.split(".")[0] for name in found} - sys.stdlib_module_names == {"tglo_lightning"}


PLAIN = """
import torch
from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.search import minimize

def fn(loss):
    net = torch.nn.Linear(4, 3)
    loss(net(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
    return net.weight.grad.norm()

result = minimize(fn, 3, generations=1, population=3, finalists=1, repeats=1, progress=False)
assert result.failed == 0
TaylorGLOLoss(result.best.theta)
"""


def test_a_search_in_plain_pytorch_never_imports_lightning():
    found = {name.split(".")[0] for name in modules(PLAIN)}
    # cma imports matplotlib where it is installed
    assert found & set(HEAVY) - {"matplotlib"} == set()


def test_the_search_imports_no_scipy():
    assert "scipy" not in modules("import tglo_lightning.search")


@pytest.mark.parametrize(("room", "unknown"), [("reporting", "attacks"), ("theory", "reporting")])
def test_a_room_knows_no_other_even_on_demand(room, unknown):
    # Not for its type hints either; the theory's docstrings may name what draws it
    folder = Path(tglo_lightning.reporting.__file__).parents[1] / room
    sources = {path.name: path.read_text() for path in folder.rglob("*.py")}
    assert len(sources) > 5
    # The report shows code that imports them, in a string
    imported = re.compile(rf"^ *(?:from|import) tglo_lightning\.{unknown}", re.MULTILINE)
    assert [name for name, source in sources.items() if imported.search(source)] == []


def test_the_top_level_is_lazy():
    assert set(modules("import tglo_lightning; tglo_lightning.__version__")) & {*HEAVY, "torch", "cma"} == set()


def test_the_callback_imports_no_extras():
    # torchmetrics imports matplotlib where it is installed
    found = set(modules("from tglo_lightning import TaylorGLO"))
    assert found & {"datasets", "kornia", "foolbox", "wandb"} == set()
    assert "pytorch_lightning" in found


def test_names_at_the_top():
    import tglo_lightning

    assert set(tglo_lightning.__all__) <= set(dir(tglo_lightning))
    for name in tglo_lightning.__all__:
        assert getattr(tglo_lightning, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Taylor'"):
        _ = tglo_lightning.Taylor
