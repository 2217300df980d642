"""Worker processes give the results of nested Trainers, whatever happens to them, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from helpers import fits
from helpers.data import blobs, loader
from helpers.fits import nested, running
from helpers.modules import accuracy, classifier, mlp, seeded

from tglo_lightning.evaluation import ProcessEvaluator, VectorizedEvaluator

# Some fail where they would be probed
inner_fit = partial(fits.inner_fit, pl, probed=False)
THETAS = [[0.0, 0.5, 0.0, 0.0, 0.0, 2.0, -1.0, 0.1 * i] for i in range(5)]


class Top(pl.LightningModule):
    """A module at the top level, which can be pickled."""

    def __init__(self):
        super().__init__()
        self.net, self.criterion = mlp(), torch.nn.CrossEntropyLoss()

    def training_step(self, batch, batch_idx):
        return self.criterion(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/acc", accuracy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def children():
    """Living processes below this one, their parents' death included."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat=,comm="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listing.stdout.splitlines()]
    return {int(pid) for pid, ppid, stat, name in (r[:4] for r in rows) if int(ppid) == os.getpid() and name != "ps"}


@pytest.fixture(autouse=True)
def no_process_left():
    before = children()
    yield
    left = children() - before
    # The tracker of multiprocessing's spawned processes stays for all of them
    left -= {getattr(sys.modules["multiprocessing.resource_tracker"]._resource_tracker, "_pid", None)}
    assert not left


@pytest.mark.parametrize("inner", [None, VectorizedEvaluator(chunk_size=1)], ids=["trainer", "sequential"])
def test_results_are_those_of_nested_trainers_bit_for_bit(tmp_path, inner):
    fit = inner_fit(tmp_path, seeded(classifier(pl)))
    with running(ProcessEvaluator(2, inner=inner), fit) as evaluator:
        assert [e.fitness for e in evaluator.evaluate([*THETAS, None], 1)] == nested(fit, [*THETAS, None])
        workers = [worker.process.pid for worker in evaluator._pool]
        assert [e.fitness for e in evaluator.evaluate(THETAS[:2], 2)] == nested(fit, THETAS[:2], 2)
        assert [worker.process.pid for worker in evaluator._pool] == workers
    assert evaluator.name == ("processes" if inner is None else "processes-sequential")


def test_spawned_workers(tmp_path):
    fit = inner_fit(tmp_path, seeded(Top))
    with running(ProcessEvaluator(1, start_method="spawn"), fit) as evaluator:
        assert [e.fitness for e in evaluator.evaluate(THETAS[:2], 1)] == nested(fit, THETAS[:2])


def test_what_cannot_be_pickled_is_named(tmp_path):
    fit = inner_fit(tmp_path, seeded(classifier(pl)))
    evaluator = ProcessEvaluator(1, start_method="spawn")
    with running(evaluator, fit), pytest.raises(TypeError, match=r"must be picklable: .*Classifier.*top level"):
        list(evaluator.evaluate(THETAS[:1], 1))


def test_exception_is_a_crash(tmp_path):
    class Fails(Top):
        def training_step(self, batch, batch_idx):
            if self.criterion.theta[-1] == THETAS[1][-1]:
                raise RuntimeError("no such luck")
            return super().training_step(batch, batch_idx)

    with running(ProcessEvaluator(2), inner_fit(tmp_path, seeded(Fails))) as evaluator:
        evaluations = list(evaluator.evaluate(THETAS[:3], 1))
    assert [e.status for e in evaluations] == ["ok", "crashed", "ok"]
    assert "no such luck" in evaluations[1].error


class Slow(Top):
    """Time enough to be killed."""

    def training_step(self, batch, batch_idx):
        time.sleep(0.1)
        return super().training_step(batch, batch_idx)


def test_killed_worker_is_replaced_and_its_candidate_run_again(tmp_path):
    fit = inner_fit(tmp_path, seeded(Slow))
    expected = nested(fit, THETAS[:4])
    with running(ProcessEvaluator(2), fit) as evaluator:
        evaluations = evaluator.evaluate(THETAS[:4], 1)
        fitness = [next(evaluations).fitness]
        victim = evaluator._pool[0].process.pid
        os.kill(victim, signal.SIGKILL)
        fitness += [e.fitness for e in evaluations]
        assert victim not in [worker.process.pid for worker in evaluator._pool]
    assert fitness == expected


def test_candidate_that_kills_its_workers_is_given_up(tmp_path):
    class Killer(Top):
        def training_step(self, batch, batch_idx):
            if self.criterion.theta[-1] == THETAS[1][-1]:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().training_step(batch, batch_idx)

    with running(ProcessEvaluator(2), inner_fit(tmp_path, seeded(Killer))) as evaluator:
        evaluations = list(evaluator.evaluate(THETAS[:3], 1))
    assert [e.status for e in evaluations] == ["ok", "crashed", "ok"]
    assert "killed 3 times" in evaluations[1].error


def test_loaders_with_workers_of_their_own(tmp_path):
    data = {
        "train_dataloaders": loader(blobs(seed=1), shuffle=True, num_workers=1, persistent_workers=True),
        "val_dataloaders": loader(blobs(48, seed=2), num_workers=1),
    }
    fit = inner_fit(tmp_path, seeded(Top), data)
    with running(ProcessEvaluator(1), fit) as evaluator:
        fitness = [e.fitness for e in evaluator.evaluate(THETAS[:2], 1)]
    assert fitness == nested(inner_fit(tmp_path, seeded(Top)), THETAS[:2])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_workers_end_with_an_exception_in_the_parent(tmp_path, error, monkeypatch):
    evaluator = ProcessEvaluator(2)
    evaluator.setup(inner_fit(tmp_path, seeded(Slow)))
    receive, calls = evaluator._receive, []

    def interrupted(rank):
        calls.append(rank)
        if len(calls) == 2:
            raise error
        return receive(rank)

    monkeypatch.setattr(evaluator, "_receive", interrupted)
    with pytest.raises(error):
        list(evaluator.evaluate(THETAS, 1))
    assert evaluator._pool == []


def test_workers_end_when_no_more_is_asked_for(tmp_path):
    evaluator = ProcessEvaluator(2)
    evaluator.setup(inner_fit(tmp_path, seeded(Slow)))
    evaluations = evaluator.evaluate(THETAS, 1)
    next(evaluations)
    evaluations.close()
    assert evaluator._pool == []


def test_forgotten_workers_do_not_keep_the_program_from_ending(tmp_path):
    script = tmp_path / "forgets.py"
    script.write_text(
        "import sys\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from pathlib import Path\n"
        "from helpers.modules import seeded\n"
        "from evaluation.test_processes import THETAS, Top, inner_fit\n"
        "from tglo_lightning.evaluation import ProcessEvaluator\n"
        "evaluator = ProcessEvaluator(2)\n"
        f"evaluator.setup(inner_fit(Path({str(tmp_path)!r}), seeded(Top)))\n"
        "print(len(list(evaluator.evaluate(THETAS, 1))))\n"
    )
    tests = os.path.dirname(os.path.dirname(__file__))
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": tests},
    )
    assert done.stdout.split()[-1:] == ["5"], done.stderr


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"workers": 0}, ValueError),
        ({"threads": 0}, ValueError),
        ({"workers": 1.5}, TypeError),
        ({"threads": True}, TypeError),
        ({"start_method": "teleport"}, ValueError),
    ],
)
def test_bad_arguments(kwargs, error):
    with pytest.raises(error, match=next(iter(kwargs))):
        ProcessEvaluator(**kwargs)


def test_workers_live_as_long_as_a_journaled_search(tmp_path):
    from tglo_lightning.search import SearchSettings
    from tglo_lightning.search.journal import Journal, JournaledEvaluator

    torch.manual_seed(0)
    with running(ProcessEvaluator(2), inner_fit(tmp_path, seeded(Top))) as evaluator:
        journal = Journal(tmp_path / "search.jsonl", {})
        recorded = JournaledEvaluator(evaluator, journal, SearchSettings())
        list(recorded.evaluate(THETAS[:1], 1))
        first = [worker.process.pid for worker in evaluator._pool]
        list(recorded.evaluate(THETAS[:3], 2))
        assert [worker.process.pid for worker in evaluator._pool][:1] == first
        assert len(evaluator._pool) == 2
        journal.close()
