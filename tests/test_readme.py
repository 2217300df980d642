import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


PROGRAMS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_example_runs_as_it_stands(tmp_path):
    [program] = PROGRAMS
    (tmp_path / "example.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "example.py"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert re.match(r"(metalearned|original) .* h( |\^|$)", ran.stdout.splitlines()[-1])
