"""Each picture shows its data, and says in words what it shows."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.runs import attacked, searched
from helpers.searches import theta

from reporting.test_attraction import record_of
from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.attraction import AttractionRecord
from tglo_lightning.reporting.landscape import Landscape
from tglo_lightning.reporting.robustness import RobustnessReport
from tglo_lightning.search import Candidate, Criterion, presets
from tglo_lightning.search.curves import Curves
from tglo_lightning.theory import explain

pytest.importorskip("matplotlib")
# Settles at eps = 0.469 with 10 classes (arXiv 2010.00788)
THETA = [-10.9408, 7.5216, 8.2896, 0.2415, 7.8726, 8.9666, 2.0184, 7.0513]


def points(axes):
    return np.concatenate([part.get_offsets() for part in axes.collections if len(part.get_offsets()) > 1])


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    return searched(tmp_path_factory.mktemp("search"))


def test_attraction_draws_every_sample_of_every_loss():
    records = {"cross-entropy": record_of("cross_entropy"), "metalearned": record_of(TaylorGLOLoss(THETA))}
    figure = pictures.attraction(records)
    upper, lower = figure.axes[:2], figure.axes[2:]
    for axes, record in zip(upper, records.values(), strict=True):
        shown = points(axes)
        np.testing.assert_allclose(np.sort(shown[:, 1]), np.sort(record.quantity("attraction").ravel()), rtol=1e-6)
        assert set(np.round(shown[:, 0] / 2) * 2) == {0.0, 2.0, 4.0}
    assert [axes.get_title(loc="left") for axes in upper] == list(records)
    settles = [line.get_ydata()[0] for line in lower[1].lines if line.get_linestyle() == "--"]
    assert settles == pytest.approx([0.531], abs=5e-4)
    assert "pushes 100\u00a0% of 60 samples away" in figure.get_label()
    assert "predicts an equilibrium at 0.531" in figure.get_label()
    long = pictures.attraction({"long": record_of("cross_entropy", epochs=range(200))})
    assert 1200 < len(points(long.axes[0])) <= 2500


def test_nothing_to_draw():
    empty = AttractionRecord(torch.arange(3), torch.zeros(3, dtype=torch.long), 10)
    for draw in (
        lambda: pictures.attraction({}),
        lambda: pictures.attraction({"empty": empty}),
        lambda: pictures.basins({}),
    ):
        with pytest.raises(ValueError, match="Nothing to draw"):
            draw()


@pytest.mark.parametrize(
    ("loss", "settles"),
    [(THETA, "ε* = 0.469"), ("cross_entropy", "nowhere"), ([0.0] * 12, "nowhere"), ("brier", "nowhere")],
)
def test_explanation(loss, settles):
    figure = pictures.explanation(explain(loss, 2 if loss == "brier" else 10))
    assert settles in figure.get_label()
    [own] = [line for line in figure.axes[0].lines if line.get_label() == "this loss"]
    assert np.isfinite(own.get_ydata()).all()


def test_fitness_shows_all_candidates(search):
    figure = pictures.fitness(search)
    shown = points(figure.axes[0])
    trained = sorted(c.fitness for c in search.history if math.isfinite(c.fitness))
    np.testing.assert_allclose(sorted(shown[:, 1])[-len(trained) :], trained)
    assert len(shown) == 24
    best = max(trained)
    [steps] = [line for line in figure.axes[0].lines if line.get_label() == "best so far"]
    assert steps.get_ydata()[-1] == best
    assert f"{best:.4g}" in figure.get_label()
    assert f"{24 - len(trained)} failed" in figure.get_label()
    lower = pictures.fitness(replace(search, mode="min"))
    assert f"{min(trained):.4g}" in lower.get_label()


def test_feasible_share_of_the_draws(search):
    heights = [bar.get_height() for bar in pictures.feasible(search).axes[0].patches]
    assert heights == pytest.approx([600 / (6 + rejected) for rejected in search.rejected])
    with pytest.raises(ValueError, match="Nothing to draw"):
        pictures.feasible(replace(search, rejected=()))


def test_parameters_of_the_leaders(search):
    figure = pictures.parameters(search)
    [line] = [line for line in figure.axes[0].lines if line.get_label() == "θ₆ y h²"]
    last = max((c for c in search.history if c.generation == 3 and c.status == "ok"), key=lambda c: c.fitness)
    assert line.get_ydata()[-1] == theta(last.criterion)[6]
    with pytest.raises(ValueError, match="Nothing to draw"):
        pictures.parameters(replace(search, history=()))


def test_a_search_over_several_families_has_a_colour_for_each(search):
    """And draws the parameters of the best one's family."""
    criteria = [Criterion.original(0.3), Criterion.of("sce", [0.1, 2.0], 0.5), Criterion.of("sce", [0.2, 1.0], 0.7)]
    history = tuple(Candidate(i, 0, criterion, 0.5 + 0.1 * i, "ok", 1.0) for i, criterion in enumerate(criteria))
    search = replace(search, history=history)
    assert {"original", "sce"} < {text.get_text() for text in pictures.fitness(search).legends[0].get_texts()}
    figure = pictures.parameters(search)
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert lines == {"alpha": [0.1, 0.2], "beta": [2.0, 1.0], "learning rate ×": [0.5, 0.7]}
    assert "all of its family, sce" in figure.get_label()


def test_a_single_generation_has_its_candidates_side_by_side(search):
    criteria = [Criterion.original(), Criterion.of("smoothing", [0.1]), Criterion.of("sce", [0.1, 1.0])]
    history = tuple(Candidate(0, i, criterion, 0.5 + 0.1 * i, "ok", 1.0) for i, criterion in enumerate(criteria))
    search = replace(search, history=history)
    axes = pictures.fitness(search).axes[0]
    assert axes.get_xlabel() == "candidate"
    places = [part.get_offsets()[:, 0].tolist() for part in axes.collections]
    assert [place for place in places if len(place) == 1] == [[1.0], [2.0], [3.0]]
    with pytest.raises(ValueError, match="several generations"):
        pictures.parameters(search)


def test_ten_members_of_a_race_look_different(search):
    members, checks = presets(10), (1, 2, 3)
    values = tuple((0.1, 0.2, place / 10) for place in range(10))
    result = replace(search, curves=Curves("epochs", checks, tuple(members), values, 9, 3))
    lines = pictures.race(result).axes[0].get_lines()[:10]
    assert len({line.get_color() for line in lines}) == 10
    assert lines[9].get_linewidth() > max(line.get_linewidth() for line in lines[:9])


def test_finals_show_every_training(search):
    figure = pictures.finals(search)
    rows = [search.original, search.best, *search.finalists]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "original",
        "chosen",
        *(f"{finalist.name}, choice" for finalist in search.finalists),
    ]
    shown = np.concatenate([part.get_offsets()[:, 0] for part in figure.axes[0].collections[::2]])
    assert sorted(shown) == sorted(value for row in rows for value in row.fitness)
    assert f"chosen {search.best.mean:.4f}" in figure.get_label()
    with pytest.raises(ValueError, match="Nothing to draw"):
        pictures.finals(replace(search, best=None, finalists=(), original=replace(search.original, fitness=())))


def test_curves_are_means_over_the_seeds():
    recorded = {
        "original": [{"val/acc": [0.1, 0.5]}, {"val/acc": [0.3, 0.7]}],
        "metalearned": [{"val/acc": [0.2, None]}, {"train/loss": [1.0]}],
    }
    figure = pictures.curves(recorded, "val/acc", {"original": "CE"})
    lines = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[0].lines}
    assert lines == {"CE": pytest.approx([0.2, 0.6]), "metalearned": [0.2]}
    assert figure.get_label() == ("val/acc over the epochs: CE goes from 0.2 to 0.6; metalearned goes from 0.2 to 0.2.")


def test_robustness(tmp_path):
    attacked(tmp_path)
    report = RobustnessReport.load(tmp_path / "robustness.json")
    figure = pictures.robustness(report)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines["worst case"].get_ydata().tolist() == report.worst_case
    assert (lines["pgd"].get_linestyle(), lines["fgsm-own"].get_linestyle()) == ("-", "--")
    assert "doubt: 1." in figure.get_label()
    both = pictures.worst_cases({"a": ([0.0, 0.1], [[0.9, 0.5], [0.7, 0.3]])}, norm="l2")
    assert both.axes[0].lines[0].get_ydata().tolist() == pytest.approx([0.8, 0.4])


def test_landscapes():
    steps = torch.linspace(-1, 1, 5, dtype=torch.float64)
    accuracy = (1 - steps.abs()).expand(3, 5)
    landscape = Landscape(steps, accuracy, 1 - accuracy, steps, accuracy[:1].T * accuracy[:1], accuracy, 10, 0)
    figure = pictures.basins({"net": landscape})
    assert figure.axes[0].lines[0].get_ydata().tolist() == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert "0.1 with net" in figure.get_label()
    assert len(pictures.surfaces({"a": landscape, "b": landscape}).axes) == 3
