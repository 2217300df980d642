"""The benchmark runs and writes what it says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "loss.py"


@pytest.mark.slow
def test_writes_its_figures(tmp_path):
    output = tmp_path / "loss.json"
    command = [sys.executable, str(SCRIPT), "--rounds", "2", "--no-compile", "--output", str(output)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "8192 x 10" in printed
    rows = json.loads(output.read_text())["rows"]
    assert [(row["samples"], row["classes"]) for row in rows] == [(1024, 1000), (8192, 10), (128, 100)]
    assert all(row["ratio"] > 0 for row in rows)
