"""Worker processes start by fork and by spawn, and end with their parent."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import pytorch_lightning as pl
from helpers import fits
from helpers.data import blobs, loader
from helpers.fits import CRITERIA, fitness, nested, running
from helpers.modules import classifier, seeded
from helpers.workers import Slow, Top, evaluate, processes

from tglo_lightning.evaluation import ProcessEvaluator
from tglo_lightning.search import Budget

inner_fit = partial(fits.inner_fit, pl)


def with_loading_processes():
    return {
        "train_dataloaders": loader(blobs(seed=1), shuffle=True, num_workers=1, persistent_workers=True),
        "val_dataloaders": loader(blobs(48, seed=2), num_workers=1),
    }


def test_spawned_workers(tmp_path):
    fit = inner_fit(tmp_path, seeded(Top))
    assert fitness(ProcessEvaluator(1, start_method="spawn"), fit, CRITERIA[:2]) == nested(fit, CRITERIA[:2])


def test_what_cannot_be_pickled_is_named(tmp_path):
    fit = inner_fit(tmp_path, seeded(classifier(pl)))
    evaluator = ProcessEvaluator(1, start_method="spawn")
    with running(evaluator, fit), pytest.raises(TypeError, match=r"must be picklable: .*Classifier.*top level"):
        evaluate(evaluator, CRITERIA[:1])


class Unwelcome:
    """An inner evaluator that does not start."""

    name = "unwelcome"

    def setup(self, fit):
        os._exit(1)


def test_workers_that_die_as_they_start_end_the_search(tmp_path):
    with running(ProcessEvaluator(1, inner=Unwelcome()), inner_fit(tmp_path, seeded(Top))) as evaluator:
        with pytest.raises(RuntimeError, match="A worker cannot take on the search: it died as it started"):
            evaluate(evaluator, CRITERIA[:1])
        assert evaluator.name == "processes-unwelcome"


def test_loaders_with_processes_of_their_own(tmp_path):
    fit = inner_fit(tmp_path, seeded(Top), with_loading_processes())
    assert fitness(ProcessEvaluator(1), fit, CRITERIA[:2]) == nested(fit, CRITERIA[:2])


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, *(pytest.param(s, marks=pytest.mark.slow) for s in (signal.SIGHUP, signal.SIGQUIT))]
)
def test_workers_and_what_loads_their_data_end_with_a_killed_parent(tmp_path, number):
    fit = inner_fit(tmp_path, seeded(Slow), with_loading_processes(), Budget(steps=6000))
    parent = os.fork()
    if parent == 0:
        for ignored in (signal.SIGHUP, signal.SIGQUIT):  # by nohup, and in the background of a script
            signal.signal(ignored, signal.SIG_DFL)
        with running(ProcessEvaluator(2), fit) as evaluator:
            evaluate(evaluator, CRITERIA[:2])
        os._exit(0)
    deadline = time.monotonic() + 60
    found = []
    while len(found) < 4 and time.monotonic() < deadline:
        leaders = [pid for pid, above, _ in processes() if above == parent]
        found = [pid for pid, _, leader in processes() if leader in leaders]
        time.sleep(0.1)
    os.kill(parent, number)
    os.waitpid(parent, 0)
    time.sleep(2.5)
    assert len(found) == 4
    assert not {pid for pid, _, _ in processes()} & set(found)


@pytest.mark.slow
def test_forgotten_workers_do_not_keep_the_program_from_ending(tmp_path):
    script = tmp_path / "forgets.py"
    script.write_text(
        "from pathlib import Path\n"
        "import time\n"
        "import pytorch_lightning as pl\n"
        "from helpers.fits import CRITERIA, inner_fit\n"
        "from helpers.modules import seeded\n"
        "from helpers.workers import at\n"
        "from tglo_lightning.evaluation import ProcessEvaluator\n"
        "evaluator = ProcessEvaluator(2)\n"
        "module = seeded(at(1, lambda: time.sleep(600)))\n"
        f"evaluator.setup(inner_fit(pl, Path({str(tmp_path)!r}), module))\n"
        "population = evaluator.start(CRITERIA[:2], 1)\n"
        "population.advance(3)\n"
        "scores = population.scores()\n"
        "print(next(scores).status)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout.split() == ["ok"], done.stderr


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
