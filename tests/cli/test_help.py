"""`--help` of each command shows examples, soon."""

import subprocess
import sys
from pathlib import Path

import pytest

try:
    import tomllib
except ImportError:  # Python 3.10
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
COMMANDS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]


def run(command: str, *arguments: str, after: str = "") -> str:
    module, function = COMMANDS[command].split(":")
    code = f"import sys; sys.argv = {[command, *arguments]!r}\nfrom {module} import {function}\ntry:\n {function}()\n"
    code += f"finally:\n {after or 'pass'}"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples(command):
    shown = run(command, "--help")
    assert "examples" in shown.lower()
    assert shown.count(f"  {command} ") >= 2


def test_help_and_completion_of_hydras_commands_import_no_torch():
    assert "experiment: " in run("tglo-train", "--help", after="assert 'torch' not in sys.modules")


def test_completed_words(monkeypatch):
    monkeypatch.setenv("COMP_LINE", "tglo-train experiment=digits_n")
    monkeypatch.setenv("COMP_POINT", "30")
    assert run("tglo-train", "--shell-completion", "query=bash").split() == ["experiment=digits_noisy"]
