import io

from helpers.runs import attacked
from rich.console import Console

from tglo_lightning.reporting import results_table, summarize
from tglo_lightning.reporting.robustness import RobustnessReport
from tglo_lightning.reporting.tables import robustness_table


def _result(*kinds):
    def loss(name, shift):
        return {"name": name, "test": {"acc": summarize([0.5 + shift, 0.6 + shift]), "nll": summarize([float("nan")])}}

    losses = {kind: loss(f"Loss{at}", 0.1 * at) for at, kind in enumerate(("original", *kinds))}
    p_values = {
        "acc": {"p_one_sided": 0.0123, "p_two_sided": 0.0246},
        "nll": {"p_one_sided": None, "p_two_sided": None},
    }
    tests = {kind: p_values for kind in losses if kind != "metalearned" and kinds}
    return {"kept": "metalearned" if kinds else "original", "losses": losses, "tests": tests}


def _text(table):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_rows_cells_and_p_values():
    text = _text(results_table(_result("metalearned", "known", "tuned_original")))
    for expected in ("n = 2", "kept: metalearned", "0.5500 ± 0.0707", "0.7500 ± 0.0707", "0.012", "n/a", "not finite"):
        assert expected in text
    # In one order, whatever that of the file
    places = [text.index(f"\n  {label}") for label in ("original ", "original, tuned", "best known", "metalearned")]
    assert places == sorted(places)
    assert text.count("paired by seed") == 3


def test_without_a_search_there_is_one_row():
    text = _text(results_table(_result()))
    assert "metalearned" not in text
    assert "paired" not in text
    assert "0.5500" in text


def test_attacks(tmp_path):
    attacked(tmp_path)
    text = _text(robustness_table(RobustnessReport.load(tmp_path / "robustness.json")))
    for part in ("fgsm-own", "pgd", "worst case", "50 images", "0.05", "forward", "zero"):
        assert part in text
