import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


PROGRAMS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


SMALL = {"max_epochs=20": "max_epochs=2"}


@pytest.mark.parametrize("small", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_example_runs(tmp_path, small):
    """As it stands, and in seconds with smaller numbers."""
    [program] = PROGRAMS
    for number, smaller in SMALL.items() if small else ():
        assert number in program
        program = program.replace(number, smaller)
    (tmp_path / "example.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "example.py"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert re.match(r"(metalearned|original) .*\bh\b", ran.stdout.splitlines()[-1])
