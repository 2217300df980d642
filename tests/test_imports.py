"""What an import costs: the rooms below Lightning never import it."""

import subprocess
import sys

import pytest

HEAVY = ("pytorch_lightning", "lightning", "wandb", "matplotlib", "plotly", "datasets", "hydra", "torchmetrics")


def loaded(statement: str) -> set[str]:
    """Top-level names in ``sys.modules`` after ``statement``, in an interpreter of its own."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("room", ["losses", "losses.functional", "theory", "search"])
def test_rooms_without_lightning(room):
    assert loaded(f"import tglo_lightning.{room}") & set(HEAVY) == set()


@pytest.mark.parametrize(("room", "above"), [("losses", ("theory", "search")), ("theory", ("search", "evaluation"))])
def test_imports_go_one_way(room, above):
    code = f"import tglo_lightning.{room}, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = run.stdout.split()
    for name in above:
        assert not any(module.startswith(f"tglo_lightning.{name}") for module in modules)


def test_the_top_level_is_lazy():
    assert loaded("import tglo_lightning; tglo_lightning.__version__") & {*HEAVY, "torch", "cma"} == set()
    assert "pytorch_lightning" in loaded("from tglo_lightning import TaylorGLO")


def test_callbacks_import_no_extras():
    # torchmetrics imports matplotlib where it is installed
    extras = {"plotly", "datasets", "kornia", "foolbox", "wandb"}
    assert loaded("from tglo_lightning import TaylorGLO") & extras == set()


def test_names_at_the_top():
    import tglo_lightning

    assert set(tglo_lightning.__all__) <= set(dir(tglo_lightning))
    for name in tglo_lightning.__all__:
        assert getattr(tglo_lightning, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Taylor'"):
        _ = tglo_lightning.Taylor
