"""The benchmark of what a metalearned loss is worth trains what it says, goes on where it was, and counts right."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tglo_lightning.search import Criterion

ROOT = Path(__file__).parents[2]
PLUGIN = """
from functools import partial
from benchmarks.worth.methods import fixed, tuned
from benchmarks.worth.scenarios import Scenario, add, drawn
from benchmarks.worth.trainer import MLP, Training
from tglo_lightning.search import Criterion

few = partial(drawn, source="wine", sizes=(0.4, 0.2), noise=0.3, standardised=True)
add(Scenario("tiny", few, Training(MLP((13, 8, 3)), lr=0.02, epochs=2, batch=32)))
fixed("mae", lambda n: Criterion.of("mae"))
"""


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def test_runs_a_scenario_of_ones_own_and_goes_on_where_it_was(tmp_path, capsys):
    from benchmarks.worth.run import main

    plugin, output = tmp_path / "own.py", tmp_path / "results.jsonl"
    plugin.write_text(PLUGIN)
    command = ["--plugin", str(plugin), "--scenarios", "tiny", "--methods", "ce;mae;default", "--splits", "0:2"]
    command += ["--jobs", "1", "--output", str(output)]
    main(command)
    assert "| default | 16 |" in capsys.readouterr().out
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert {(line["split"], line["method"]) for line in lines} == {
        (i, m) for i in (0, 1) for m in ("ce", "mae", "default")
    }
    assert all(len(line["test"]) == 5 and line["scenario"] == "tiny" for line in lines)
    whole = output.read_text()
    main(command)
    assert "nothing to do" in capsys.readouterr().out
    assert output.read_text() == whole
    # A run that was killed while it wrote the last line
    output.write_text("\n".join([json.dumps(line) for line in lines[:-1]] + [json.dumps(lines[-1])[:20]]))
    main(command)
    again = [json.loads(line) for line in output.read_text().splitlines() if line.endswith("}")]
    told = lambda entries: sorted((e["split"], e["method"], e["test"], str(e["criterion"])) for e in entries)  # noqa: E731
    assert told(again) == told(lines)


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_a_member_trains_as_a_loop_in_plain_torch_does(kind, net):
    from benchmarks.worth.trainer import CNN, MLP, Member, Trainer, Training

    draws = np.random.default_rng(0)
    data = [
        tuple(part for size in (50, 30, 20) for part in (draws.normal(size=(size, 64)), draws.integers(0, 3, size)))
        for _ in range(2)
    ]
    network = MLP((64, 8, 3)) if net == "mlp" else CNN((1, 8, 8), (2, 3), 3)
    options = {"momentum": 0.9} if kind == "sgd" else {"weight_decay": 0.1 if kind == "adamw" else 0.0}
    how = Training(network, "sgd" if kind == "sgd" else "adam", lr=0.02, epochs=3, batch=16, metric="nll", **options)
    trainer = Trainer(how, data)
    mine = Member(Criterion.of("smoothing", [0.2], step=0.5), split=1, seed=7, test=True)
    others = [Member(Criterion.of("gce", [0.7]), split=0, seed=7), Member(Criterion.original(), split=1, seed=3)]
    value, test = trainer([others[0], mine, others[1]])[1]

    x, y, xv, yv, xt, yt = (torch.as_tensor(part) for part in data[1])
    if net == "mlp":
        layers = [nn.Linear(64, 8), nn.Linear(8, 3)]
        model = nn.Sequential(layers[0], nn.ReLU(), layers[1])
    else:
        layers = [nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1), nn.Linear(12, 3)]
        pool = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
        model = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), layers[0], pool, layers[1], pool, nn.Flatten(), layers[2])
    with torch.no_grad():
        parameters = trainer._params(trainer._initial(7)[None])
        for layer, weight, bias in zip(layers, parameters[::2], parameters[1::2], strict=True):
            layer.weight.copy_(weight[0].T.reshape(layer.weight.shape))
            layer.bias.copy_(bias[0, 0])
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    optimizer = kinds[kind](model.parameters(), lr=0.01, **options)
    for order in trainer._orders(7):
        for start in range(0, 50, 16):
            rows = order[start : start + 16]
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows].float()), y[rows], label_smoothing=0.2).backward()
            optimizer.step()
    with torch.no_grad():
        assert value == pytest.approx(-float(F.cross_entropy(model(xv.float()), yv)), abs=1e-4)
        assert test == pytest.approx(-float(F.cross_entropy(model(xt.float()), yt)), abs=1e-4)


def test_augmentation_shifts_and_mirrors_and_leaves_held_out_images_as_they_are():
    from benchmarks.worth.trainer import MLP, Member, Shifts, Trainer, Training

    draws = np.random.default_rng(0)
    data = [tuple(part for n in (40, 20, 20) for part in (draws.normal(size=(n, 24)), draws.integers(0, 3, n)))]
    shifts = Shifts((2, 3, 4), pixels=1, flip=True)
    trainer = Trainer(Training(MLP((24, 3)), epochs=2, augment=shifts), data)
    order = trainer._orders(5)
    assert (order % 40).sort().values.equal(torch.arange(40).expand(2, 40))
    assert set((trainer._orders(1) // 40).flatten().tolist()) <= set(range(18))
    images = trainer.x[0].view(40, 2, 3, 4)
    found, labels = trainer._batch(torch.zeros(1, 1, dtype=torch.long), torch.arange(18)[None] * 40 + 7)
    padded = F.pad(images[7], (1, 1, 1, 1))
    shifted = [padded[:, a : a + 3, b : b + 4] for a in range(3) for b in range(3)]
    assert found[0].view(18, 2, 3, 4).equal(torch.stack(shifted + [image.flip(2) for image in shifted]))
    assert (labels == trainer.y[0, 7]).all()
    # Members of one seed see the same batches: equal ones end equal, and where a training ends without augmentation
    # another one ends with it
    member = Member(Criterion.original(), 0, 5, test=True)
    first, second = trainer([member, member])
    assert first == second
    assert Trainer(Training(MLP((24, 3)), epochs=2, metric="nll"), data)([member]) != Trainer(
        Training(MLP((24, 3)), epochs=2, metric="nll", augment=shifts), data
    )([member])


def test_the_best_check_counts_if_asked_for():
    from benchmarks.worth.trainer import MLP, Member, Trainer, Training

    draws = np.random.default_rng(0)
    data = [tuple(part for size in (40, 40, 40) for part in (draws.normal(size=(size, 5)), draws.integers(0, 2, size)))]
    best = Member(Criterion.original(), 0, 1, "best", test=True)
    last = Member(Criterion.original(), 0, 1, "last", test=True)
    # The best of all lengths of a training is what the training of that length ends with
    ends = [Trainer(Training(MLP((5, 16, 2)), lr=0.05, epochs=n), data)([last])[0] for n in range(1, 7)]
    found, end = Trainer(Training(MLP((5, 16, 2)), lr=0.05, epochs=6), data)([best, last])
    assert end == ends[-1]
    assert found == max(ends, key=lambda pair: pair[0])


def test_a_task_that_fails_ends_the_others():
    from benchmarks.worth.trainer import lockstep

    def asks(ask):
        while True:
            ask(["member"])

    def fails(ask):
        raise ValueError("no such data")

    with pytest.raises(ValueError, match="no such data"):
        lockstep([asks, fails], lambda members: [(0.0, 0.0)] * len(members))


def test_figures_are_paired_by_split():
    from benchmarks.worth.statistics import Results

    def line(scenario, split, method, *test):
        return {"scenario": scenario, "group": "noise", "split": split, "method": method, "test": list(test)}

    gaps = {("a", 0): 0.02, ("a", 1): 0.04, ("b", 0): -0.03}
    lines = []
    for (scenario, split), gap in gaps.items():
        level = 0.5 + 0.1 * split
        lines += [
            line(scenario, split, "ce", level, level + 0.001),
            line(scenario, split, "x", level + gap, level + gap),
        ]
    lines.append(line("b", 1, "ce", 0.9, 0.9))
    results = Results(lines)
    found = results.compare("x", "ce", ["noise"])
    assert found["mean"] == pytest.approx(0.01 - 0.0005)
    assert (found["n"], found["won"], found["lost"]) == (3, 2, 1)
    half = 4.302653 * np.std(list(gaps.values()), ddof=1) / 3**0.5
    assert found["high"] - found["mean"] == pytest.approx(half, rel=1e-4)
    assert results.false("x", ["noise"]) == (1, 3)
