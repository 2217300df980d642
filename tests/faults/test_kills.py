"""A search that is killed at any moment goes on, and ends as if it had not been.

The uninterrupted run is the reference; all is compared bit for bit: every candidate, every fitness, the result, and the
weights of the training after it.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from faults import victim
from tglo_lightning.search import SearchResult

SCRIPT = Path(victim.__file__)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Outcome of a run that nothing interrupts, by evaluator and strategy."""
    found = {}

    def run(*how):
        if how not in found:
            folder = tmp_path_factory.mktemp("whole")
            end(victim.fork(lambda: victim.work(folder, *how), folder / "log"), 0)
            found[how] = (folder / "outcome.json").read_text()
        return found[how]

    return run


def end(child, code):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code


# Lines of a whole journal: its header and settings, two generations of four and the states after them, the choice
# between two, three seeds of the confirmation
LINES = 2 + 2 * (4 + 1) + 2 + 3 * 2
# Of a race: its header, ten checks, three seeds of the confirmation
RACE_LINES = 1 + 10 + 3 * 2


def killed_at(folder, moments, *how):
    """Kill a run at a random moment: up to 0.3 seconds after a random line of its journal; the exit code.

    By the clock alone, on a busy machine, most kills would come before the search.
    """
    lines = moments.randint(0, RACE_LINES if "race" in how else LINES)
    child = victim.fork(lambda: victim.work(folder, *how), folder / "log")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if not lines or any(path.read_bytes().count(b"\n") >= lines for path in victim.journals(folder)):
            break
        time.sleep(0.002)
    time.sleep(moments.uniform(0, 0.3))
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check_kills(folder, reference, how, kills, seed):
    moments = random.Random(seed)
    expected = reference(*how)
    at_work = 0
    for trial in range(kills):
        place = folder / str(trial)
        place.mkdir()
        at_work += killed_at(place, moments, *how) == -signal.SIGKILL
        end(victim.fork(lambda place=place: victim.work(place, *how), place / "log"), 0)
        assert (place / "outcome.json").read_text() == expected, (place / "log").read_text()
    return at_work


@pytest.mark.parametrize(
    ("evaluator", "strategy"),
    [("trainer", "halving"), ("vectorized", "random"), ("vectorized", "halving"),
     ("processes", "cmaes"), ("trainer", "race"), ("vectorized", "race")],
)  # fmt: skip
def test_a_killed_search_ends_as_if_it_had_not_been(tmp_path, reference, evaluator, strategy):
    check_kills(tmp_path, reference, (evaluator, strategy), 1, seed=3)


@pytest.mark.faults
@pytest.mark.parametrize("evaluator", ["trainer", "vectorized", "sequential", "processes"])
@pytest.mark.parametrize("strategy", victim.STRATEGIES)
def test_kills_at_many_moments(tmp_path, reference, evaluator, strategy):
    # A race is short, so more kills come too late
    assert check_kills(tmp_path, reference, (evaluator, strategy), 8, seed=1) > (1 if strategy == "race" else 4)


@pytest.mark.faults
def test_kills_again_and_again(tmp_path, reference):
    """Killed after a short while, over and over, it comes to its end all the same."""
    expected = reference("trainer", "cmaes")
    moments = random.Random(2)
    for _ in range(12):
        killed_at(tmp_path, moments, "trainer", "cmaes")
    end(victim.fork(lambda: victim.work(tmp_path, "trainer"), tmp_path / "log"), 0)
    assert (tmp_path / "outcome.json").read_text() == expected


def wait_for_lines(folder, lines, process=None):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        if any(path.read_bytes().count(b"\n") >= lines for path in victim.journals(folder)):
            return
        time.sleep(0.01)
    raise AssertionError("the journal does not grow")


@pytest.mark.parametrize(
    ("evaluator", "number"),
    [
        *(("trainer", signal.SIGINT), ("vectorized", signal.SIGTERM), ("processes", signal.SIGINT)),
        ("trainer", signal.SIGHUP),
    ],
)
def test_signals_end_a_search_cleanly(tmp_path, monkeypatch, reference, evaluator, number):
    expected = reference(evaluator, "cmaes")
    monkeypatch.setenv("VICTIM_SECONDS", "0.03")
    child = victim.fork(lambda: victim.work(tmp_path, evaluator), tmp_path / "log")
    wait_for_lines(tmp_path, 3)
    os.kill(child, number)
    end(child, 1 if number == signal.SIGINT else 128 + number)
    log = (tmp_path / "log").read_text()
    [journal] = victim.journals(tmp_path)
    assert f"interrupted. Start the same fit again to go on from {journal}." in log
    assert "Traceback" not in log
    assert journal.read_bytes().endswith(b"\n")
    assert SearchResult.load(journal).finished is False
    monkeypatch.delenv("VICTIM_SECONDS")
    end(victim.fork(lambda: victim.work(tmp_path, evaluator), tmp_path / "log"), 0)
    assert (tmp_path / "outcome.json").read_text() == expected
    assert "goes on from" in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_a_script_is_terminated_and_started_again(tmp_path, reference):
    """The same with a script of its own, as users have it."""
    command = [sys.executable, str(SCRIPT), str(tmp_path), "trainer"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    script = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    wait_for_lines(tmp_path, 4, script)
    script.terminate()
    _, said = script.communicate(timeout=60)
    assert script.returncode == 143
    assert "TaylorGLO: interrupted. Start the same fit again to go on from" in said
    again = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "TaylorGLO goes on from" in again.stderr
    assert (tmp_path / "outcome.json").read_text() == reference("trainer", "cmaes")


def test_checkpoints_resume_the_training_without_the_search(tmp_path):
    """``ckpt_path="last"`` after the search: nothing is searched again, and the loss stays."""
    from pytorch_lightning.callbacks import ModelCheckpoint

    def keep(folder):
        return ModelCheckpoint(folder / "checkpoints", save_last=True, save_top_k=0)

    first, _ = victim.fit(tmp_path, callbacks=[keep(tmp_path)], max_epochs=2)
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["callbacks"][first.state_key]["result"]["finished"]
    [journal] = victim.journals(tmp_path)
    journal.unlink()
    again, trainer = victim.fit(tmp_path, callbacks=[keep(tmp_path)], max_epochs=3, ckpt_path="last")
    assert trainer.current_epoch == 3
    assert again.result.to_dict() == first.result.to_dict()
    assert victim.journals(tmp_path) == []
