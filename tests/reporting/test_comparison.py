"""Runs to a table: which trainings belong together, and what the statistics say of them."""

import json
from pathlib import Path

import pytest
import yaml
from scipy.stats import ttest_rel

from tglo_lightning.losses import published_theta
from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.comparison import compare
from tglo_lightning.search import Criterion

CE = {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.0}


def write_run(folder: Path, losses, *, seed=0, loss=CE, task=None, search=None, choices=None, **config):
    """A run as `tglo-train` leaves it; `losses` is `{kind: (name, criterion, {metric: values})}`."""
    entries = {}
    for kind, (name, criterion, metrics) in losses.items():
        test = {metric: {"values": values, "mean": None, "std": None} for metric, values in metrics.items()}
        formula = loss.get("theta", "") if criterion is None else criterion.formula
        entries[kind] = {"name": name, "test": test, "formula": str(formula)}
        entries[kind]["criterion"] = None if criterion is None else criterion.to_dict()
    (folder / ".hydra").mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"losses": entries}))
    values = {"seed": seed, "name": "x", "loss": loss, "search": search or {}, "task": {"seed": 0} | (task or {})}
    values |= {"paths": {"output_dir": str(folder)}, "optimizer": {"lr": 0.1}, "trainer": {"max_epochs": 2}} | config
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(values))
    hydra = {
        "hydra": {
            "runtime": {"choices": {"task": "digits", "loss": "any", "hydra/launcher": "basic"} | (choices or {})}
        }
    }
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))
    return folder


def given(name, values, nll=None):
    return {"original": (name, None, {"acc": values} | ({} if nll is None else {"nll": nll}))}


def by_loss(comparison, metric="acc", condition=""):
    return {row.loss: row for row in comparison.select(condition, metric)}


A, B, C = [0.60, 0.62, 0.65], [0.70, 0.73, 0.71], [0.64, 0.66, 0.61]


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path / "0", given("CrossEntropyLoss", A, nll=[1.0, 1.1, 1.2]))
    write_run(tmp_path / "1", given("BaikalLoss", B, nll=[0.5, 0.65, 0.7]), loss={"_target_": "tglo.BaikalLoss"})
    write_run(tmp_path / "2", given("BrierLoss", C, nll=[2.0, 2.1, 1.7]), loss={"_target_": "tglo.BrierLoss"})
    return tmp_path


def test_statistics_are_those_of_scipy(runs):
    comparison = compare([runs])
    assert comparison.reference == "CrossEntropyLoss"
    assert comparison.runs == 3
    rows = by_loss(comparison)
    assert list(rows) == ["CrossEntropyLoss", "BaikalLoss", "BrierLoss"]
    assert rows["BaikalLoss"].values == B
    expected = {name: float(ttest_rel(v, A).pvalue) for name, v in (("BaikalLoss", B), ("BrierLoss", C))}
    for name, p in expected.items():
        assert rows[name].p_two_sided == pytest.approx(p)
    assert rows["BaikalLoss"].verdict.p == pytest.approx(expected["BaikalLoss"] / 2)
    assert rows["BaikalLoss"].holm_two_sided == pytest.approx(2 * expected["BaikalLoss"])
    assert rows["BaikalLoss"].verdict.difference == pytest.approx(0.09, abs=1e-9)
    assert comparison.comparisons("acc") == 2
    assert rows["CrossEntropyLoss"].p_two_sided is None


def test_better_has_the_direction_of_the_metric(runs):
    nll = by_loss(compare([runs]), "nll")
    assert nll["BaikalLoss"].verdict.interval[1] < 0
    assert nll["BaikalLoss"].verdict.p < 0.01
    assert nll["BrierLoss"].verdict.p > 0.95


def test_seeds_add_up_and_a_repeated_training_counts_once(tmp_path):
    """Cross-entropy beside a search is the same training as cross-entropy alone, if the seed is."""
    criterion = Criterion.of("taylorglo", [0.0] * 7 + [1.0])
    found = {"metalearned": ("TaylorGLOLoss", criterion, {"acc": B})}
    write_run(tmp_path / "0", given("CrossEntropyLoss", A))
    write_run(tmp_path / "1", given("CrossEntropyLoss", A) | found, search={"generations": 3})
    write_run(tmp_path / "2", given("CrossEntropyLoss", C), seed=1)
    comparison = compare([tmp_path])
    assert comparison.conditions == [""]
    rows = by_loss(comparison)
    assert rows["CrossEntropyLoss"].values == A + C
    assert rows["metalearned"].values == B
    assert rows["metalearned"].formula == criterion.formula
    assert not comparison.notes


def test_only_trainings_from_the_same_seeds_are_compared(tmp_path):
    write_run(tmp_path / "0", given("CrossEntropyLoss", A))
    write_run(tmp_path / "1", given("CrossEntropyLoss", C), seed=1)
    write_run(tmp_path / "2", given("BrierLoss", B), seed=1, loss={"_target_": "x"})
    write_run(tmp_path / "3", given("GCELoss", B), seed=2, loss={"_target_": "y"})
    rows = by_loss(compare([tmp_path]))
    assert rows["BrierLoss"].p_two_sided == pytest.approx(float(ttest_rel(B, C).pvalue))
    assert rows["BrierLoss"].verdict.difference == pytest.approx(sum(B) / 3 - sum(C) / 3)
    assert rows["GCELoss"].verdict is None


def test_contradicting_repeats_are_told(tmp_path):
    write_run(tmp_path / "0", given("CrossEntropyLoss", A))
    write_run(tmp_path / "1", given("CrossEntropyLoss", B))
    comparison = compare([tmp_path])
    assert by_loss(comparison)["CrossEntropyLoss"].values == A
    assert "several results for one seed" in comparison.notes[0]


def test_more_fresh_seeds_of_the_same_run_win(tmp_path):
    write_run(tmp_path / "0", given("CrossEntropyLoss", A[:2]), evaluation={"seeds": 2})
    write_run(tmp_path / "1", given("CrossEntropyLoss", A), evaluation={"seeds": 3})
    assert by_loss(compare([tmp_path]))["CrossEntropyLoss"].values == A


def test_a_loss_is_known_by_name_theta_and_options(tmp_path):
    taylor = {"_target_": "tglo.given_loss", "theta": "mnist_published", "order": None, "label_smoothing": 0.0}
    write_run(tmp_path / "0", given("CrossEntropyLoss", A))
    write_run(tmp_path / "1", given("CrossEntropyLoss", A), loss=CE | {"label_smoothing": 0.1})
    for run, theta in ((2, published_theta("mnist_published")), (3, [1.0, 2.0, 3.0, 4.0, 5.0]), (4, [0.0] * 5)):
        losses = {"original": ("TaylorGLOLoss", None, {"acc": B})}
        write_run(tmp_path / str(run), losses, loss=taylor | {"theta": theta})
    names = list(by_loss(compare([tmp_path])))
    assert names[:3] == ["CrossEntropyLoss", "CrossEntropyLoss label_smoothing=0.1", "mnist_published"]
    assert len(set(names)) == 5
    assert all(name.startswith("TaylorGLOLoss #") for name in names[3:])


@pytest.fixture
def searches(tmp_path):
    for seed, values in enumerate(([0.7, 0.8], [0.8, 0.9], [0.9, 1.0])):
        found = {
            "metalearned": ("TaylorGLOLoss", Criterion.of("taylorglo", [float(seed)] * 8), {"acc": values}),
            "known": (
                "GCELoss" if seed else "SCELoss",
                Criterion.of("gce", [0.2 * seed]) if seed else Criterion.of("sce", [0.1, 1.0]),
                {"acc": [v - 0.05 for v in values]},
            ),
        }
        write_run(tmp_path / str(seed), given("CrossEntropyLoss", [0.5 + 0.01 * seed, 0.6]) | found, seed=seed)
    return tmp_path


def test_each_found_loss_has_a_row(searches):
    rows = by_loss(compare([searches]))
    assert "metalearned (seed 1)" in rows
    assert {"best known loss: GCELoss (seed 2)", "best known loss: SCELoss"} < rows.keys()
    assert len(rows) == 7
    assert rows["CrossEntropyLoss"].n == 6


def test_by_run_the_found_losses_are_one_row(searches):
    rows = by_loss(compare([searches], unit="run", reference="known"))
    assert list(rows) == ["CrossEntropyLoss", "metalearned", "best known loss"]
    assert rows["metalearned"].values == pytest.approx([0.75, 0.85, 0.95])
    assert rows["CrossEntropyLoss"].values == pytest.approx([0.55, 0.555, 0.56])
    assert rows["metalearned"].formula == ""
    assert rows["metalearned"].verdict.difference == pytest.approx(0.05)


def test_what_differs_besides_loss_and_seed_is_a_condition(tmp_path):
    for i, noise in enumerate((0.4, 0.0, 0.1)):
        write_run(tmp_path / f"{i}a", given("CrossEntropyLoss", A), task={"label_noise": noise})
        write_run(tmp_path / f"{i}b", given("BrierLoss", B), task={"label_noise": noise}, loss={"_target_": "x"})
    comparison = compare([tmp_path])
    assert comparison.conditions == [f"task.label_noise={noise}" for noise in ("0", "0.1", "0.4")]
    assert comparison.comparisons("acc") == 3
    p = by_loss(comparison, condition="task.label_noise=0.1")["BrierLoss"]
    assert p.holm_two_sided == pytest.approx(3 * p.p_two_sided)
    pooled = compare([tmp_path], pool=["task.label_noise"])
    assert pooled.conditions == [""]
    with pytest.raises(ValueError, match=r"optimizer\.beta"):
        compare([tmp_path], pool=["optimizer.beta"])


def test_another_task_is_named_by_its_choice(tmp_path):
    write_run(tmp_path / "0", given("CrossEntropyLoss", A), task={"size": 5, "fraction": 0.1})
    for i, fraction in enumerate((0.1, 0.2)):
        task = {"source": "mnist", "fraction": fraction}
        write_run(tmp_path / f"m{i}", given("CrossEntropyLoss", A), task=task, choices={"task": "mnist"})
    names = compare([tmp_path]).conditions
    assert names == ["task=digits", "task=mnist, task.fraction=0.1", "task=mnist, task.fraction=0.2"]


def test_a_diverged_training_is_not_averaged_away(tmp_path):
    write_run(tmp_path / "0", given("CrossEntropyLoss", A))
    write_run(tmp_path / "1", given("BrierLoss", [0.5, None, 0.6]), loss={"_target_": "x"})
    row = by_loss(compare([tmp_path]))["BrierLoss"]
    assert (row.n, row.mean, row.p_two_sided, row.verdict) == (3, None, None, None)


def test_results_without_configs_are_one_condition(runs):
    for config in runs.rglob(".hydra/*"):
        config.unlink()
    comparison = compare(sorted(runs.rglob("result.json")))
    assert len(by_loss(comparison)) == 3
    assert ".hydra/config.yaml" in comparison.notes[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no result.json in"), ("not json", "not a result of tglo-train"), ('{"losses": {}}', "no losses")],
)
def test_what_cannot_be_read_is_refused_by_its_path(tmp_path, content, message):
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        compare([tmp_path])


def test_reference(runs):
    assert compare([runs], reference="baikalloss").reference == "BaikalLoss"
    with pytest.raises(ValueError, match="CrossEntropyLoss, BaikalLoss, BrierLoss; got 'focal'"):
        compare([runs], reference="focal")


def test_json_is_json(searches):
    values = json.loads(json.dumps(compare([searches]).to_dict(), allow_nan=False))
    assert values["better"] == {"acc": "higher"}
    assert values["rows"][0]["n"] == 6


def test_picture(searches):
    pytest.importorskip("matplotlib")
    comparison = compare([searches])
    figure = pictures.comparison(comparison)
    shown = [point for part in figure.axes[0].collections for point in part.get_offsets()[:, 0].tolist()]
    assert sorted(shown) == sorted(value for row in comparison.rows for value in row.values)
    assert "metalearned (seed 1) 0.8500 ± 0.0707" in figure.get_label()
    with pytest.raises(ValueError, match="metric must be one of acc"):
        pictures.comparison(comparison, "f1")
