import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_code_and_configs(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode and "hatchling" in built.stderr:
        pytest.skip("the build backend cannot be had")
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert f"tglo_lightning/conf/{path.relative_to(ROOT / 'conf').as_posix()}" in names
    assert {"tglo_lightning/py.typed", "tglo_lightning/cli/train.py"} <= names
    templates = {f"tglo_lightning/reporting/html/templates/report.{kind}" for kind in ("html", "css", "js")}
    assert templates <= names
    assert not any(name.startswith(("tests/", "conf/")) for name in names)
