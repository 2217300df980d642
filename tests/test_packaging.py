import ast
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = ["search.generations=1", "search.population=2", "search.finals.finalists=1", "search.finals.seeds=0"]
TINY += ["search.finals.confirm=1", "evaluation.seeds=1"]
TINY += ["trainer.max_epochs=1", "trainer.enable_progress_bar=false", "logger=none"]


# Distributions that have another name than what is imported of them
NAMES = {"yaml": "pyyaml", "sklearn": "scikit-learn", "hydra": "hydra-core", "PIL": "pillow", "IPython": "ipykernel"}


def test_what_is_imported_is_declared():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = text[: text.index("[project.scripts]")]
    declared = set(re.findall(r'"([\w.-]+?)(?:\[\w,-]+\])?[<>=!]', project))
    for path in (ROOT / "tglo_lightning").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for root in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"tglo_lightning"}:
                assert NAMES.get(root, root.replace("_", "-")) in declared, f"{path.name} imports {root}"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with sdist and wheel, the wheel made from the sdist as `pip install` of it would."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


def test_the_wheel_holds_code_and_configs(built):
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [metadata] = [archive.read(name).decode() for name in names if name.endswith("METADATA")]
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert f"tglo_lightning/conf/{path.relative_to(ROOT / 'conf').as_posix()}" in names
    assert {"tglo_lightning/py.typed", "tglo_lightning/cli/train.py"} <= names
    templates = {f"tglo_lightning/reporting/html/templates/report.{kind}" for kind in ("html", "css")}
    assert templates | {"tglo_lightning/losses/priors/shared.json"} <= names
    assert not any(name.startswith(("tests/", "conf/", "docs/")) for name in names)
    assert "Requires-Python: >=3.10" in metadata
    assert "Project-URL: " in metadata
    for line in metadata.splitlines():
        if line.startswith(
            ("Requires-Dist: pytorch-lightning", "Requires-Dist: lightning<", "Requires-Dist: lightning>")
        ):
            assert {"!=2.6.2", "!=2.6.3", ">=2.5.5"} <= set(re.findall(r"[<>=!]=[\d.]+", line))
    for minor in (10, 11, 12, 13):
        assert f"Classifier: Programming Language :: Python :: 3.{minor}" in metadata


def test_the_sdist_holds_what_its_texts_name(built):
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "CONTRIBUTING.md", "CITATION.cff", "docs/index.md", "mkdocs.yml", "constraints.txt"} <= names
    assert {"Makefile", "tests/conftest.py", "conf/train.yaml", "recipes/attraction/README.md"} <= names


@pytest.mark.slow
def test_the_wheel_works_in_another_environment_from_another_folder(built, tmp_path):
    """Beside the libraries of this environment, without this checkout. `make package` starts from an empty one."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}

    def run(*command):
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    [wheel] = built.glob("*.whl")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    # After its own: what is installed here wins over an editable install of the checkout
    (site / "libraries.pth").write_text("\n".join(libraries) + "\n")
    where = run(python, "-c", "import tglo_lightning; print(tglo_lightning.__file__)")
    assert Path(where.strip()).is_relative_to(site)
    command = str(tmp_path / "env" / "bin" / "tglo-train")
    assert "experiment: " in run(command, "--help")
    run(command, *TINY)
    assert len(list((tmp_path / "outputs").rglob("result.json"))) == 1
    assert "Attracts" in run(str(tmp_path / "env" / "bin" / "tglo-explain"), "cross_entropy")
