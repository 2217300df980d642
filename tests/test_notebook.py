"""The example notebook: executed again with small numbers, and what it holds."""

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")

NOTEBOOK = Path(__file__).parents[1] / "recipes" / "notebook" / "digits.ipynb"
SMALL = {
    "EPOCHS = 20": "EPOCHS = 2",
    "GENERATIONS, POPULATION, CONFIRM = 5, 16, 10": "GENERATIONS, POPULATION, CONFIRM = 1, 6, 2",
}


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_it_is_executed_and_small():
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    shows = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    assert len(shows) == 7
    assert [cell.execution_count for cell in shows] == sorted(cell.execution_count for cell in shows)
    assert sum("image/png" in output.get("data", {}) for output in outputs(notebook)) == 3
    assert NOTEBOOK.stat().st_size < 500_000
    assert "Warning" not in NOTEBOOK.read_text()


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # its first cell finds all that it installs
    notebook = nbformat.read(NOTEBOOK, 4)
    assert notebook.cells[1].source == '%pip install --quiet "tglo-lightning[plots]"'
    for cell in notebook.cells:
        for whole, small in SMALL.items():
            cell.source = cell.source.replace(whole, small)
    assert all(small in str(notebook.cells) for small in SMALL.values())
    resources = {"metadata": {"path": tmp_path}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    written = outputs(notebook)
    assert not [output for output in written if "Warning" in str(output.get("text", output.get("data", "")))[:2000]]
    # The bar is in the notebook, with or without ipywidgets, and is full
    [bar] = [output.data["text/plain"] for output in written if "text/html" in output.get("data", {})]
    assert "20/20 max best val/acc" in " ".join(re.sub(r"\x1b\[[0-9;]*m", "", bar).split())
