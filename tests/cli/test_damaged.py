"""Damaged files end every command in one line, not in a traceback."""

import json
import random

import pytest
import torch
from helpers.runs import finished
from torch import nn

from tglo_lightning.cli import compare, explain
from tglo_lightning.losses import TaylorGLOLoss
from tglo_lightning.search import SearchResult, export_loss
from tglo_lightning.untrusted import load_checkpoint

WRONG = [None, "text", -1, 10**400, 0.5, True, [], {}, [[]], {"a": 1}, float("nan"), 1e308, [1e308] * 8, 2**62]
TENSORS = [
    *(None, "x", 3, [], {}, torch.zeros(2), torch.tensor([float("nan")] * 8), torch.zeros(0), torch.tensor(1.0)),
    *(torch.tensor(list(b"gce"), dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.uint8)),
    *(torch.zeros(8, dtype=torch.complex64), torch.zeros(3).to_sparse(), torch.zeros(8, device="meta")),
]


def mutated(value, draws, wrong):
    if isinstance(value, dict | list) and value and draws.random() < 0.85:
        twin = value.copy()
        key = draws.choice([*twin] if isinstance(twin, dict) else range(len(twin)))
        if draws.random() < 0.1:
            del twin[key]
        elif isinstance(twin, dict) and wrong is TENSORS and draws.random() < 0.2:
            twin[draws.choice([3, None])] = draws.choice(wrong)
        else:
            twin[key] = mutated(twin[key], draws, wrong)
        return twin
    return draws.choice(wrong)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / "run"
    finished(path, baselines=True)
    return path


def check(command, arguments, capsys):
    """Whether it worked; else there is one line."""
    try:
        status = command(arguments)
    except SystemExit as end:
        status = end.code
    told = capsys.readouterr()
    assert status in (0, 2)
    assert status == 0 or len(told.err.strip().splitlines()) == 1
    return status == 0


@pytest.mark.parametrize("name", ["search.json", "result.json"])
def test_results(run, tmp_path, capsys, name):
    good, draws, worked = json.loads((run / name).read_text()), random.Random(name), []
    path = tmp_path / name
    for number in range(40):
        path.write_text(json.dumps(mutated(good, draws, WRONG)))
        if number < 3:
            path.write_bytes([b"", b"[" * 100_000, bytes(range(256))][number])
        worked.append(check(explain.main, [str(path)], capsys))
        if name == "result.json":
            check(compare.main, [str(path), "--output", str(tmp_path)], capsys)
            continue
        try:
            export_loss(SearchResult.load(path))
        except ValueError:
            continue
    assert 0 < sum(worked) < len(worked)


def test_checkpoints(run, tmp_path, capsys):
    module = nn.Module()
    module.net, module.criterion = nn.Linear(3, 3), TaylorGLOLoss()
    result = json.loads((run / "search.json").read_text())
    good = {"state_dict": module.state_dict(), "hyper_parameters": {"num_classes": 3}}
    good["callbacks"] = {"TaylorGLO{}": {"result": result}}
    draws, worked, path = random.Random(0), [], tmp_path / "last.ckpt"
    for number in range(60):
        torch.save(mutated(good, draws, TENSORS), path)
        if number < 3:
            path.write_bytes(path.read_bytes()[: 300 * number])
        worked.append(check(explain.main, [str(path)], capsys))
    assert 0 < sum(worked) < len(worked)


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/full", "a" * 5000, "a" * 5000 + ".json", "nul\0", ""])
def test_places(place, capsys):
    assert not check(explain.main, [place], capsys)
    assert not check(compare.main, [place], capsys)


def test_bytes_of_a_checkpoint(tmp_path):
    """Whatever a damaged file makes of the parser is one kind of error."""
    path, draws = tmp_path / "last.ckpt", random.Random(0)
    kinds = set()
    for zipped in (True, False):
        torch.save({"state_dict": nn.Linear(3, 3).state_dict()}, path, _use_new_zipfile_serialization=zipped)
        content = path.read_bytes()
        for _ in range(100):
            damaged = bytearray(content)
            for _ in range(draws.randint(1, 3)):
                damaged[draws.randrange(len(damaged))] = draws.randrange(256)
            path.write_bytes(damaged)
            try:
                load_checkpoint(path)
            except ValueError as error:
                kinds.add(type(error.__cause__).__name__)
    assert len(kinds) > 3
