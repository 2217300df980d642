"""Two processes of a real Trainer with DDP over gloo find what one finds, and neither outlives the other."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from helpers import ranked
from helpers.data import loaders
from helpers.modules import TINY, classifier, quiet_trainer

from tglo_lightning import TaylorGLO
from tglo_lightning.evaluation import ProcessEvaluator

ROOT = Path(__file__).parents[2]
# Records of the search: its settings, two generations of 5 and their states, 2 finalists, 2 pairs
LINES = 1 + 1 + 2 * 6 + 2 + 2 * 2
SECONDS = 240


def start(folder, *options, before=(), **variables):
    # A seed that an earlier test has set would make the ranks agree
    ranks = ("RANK", "WORLD_SIZE", "MASTER_", "TORCHELASTIC", "SLURM", "PL_GLOBAL_SEED")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ranks)}
    return subprocess.Popen(
        [sys.executable, *before, ranked.__file__, str(folder), *options],
        env=kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output(process):
    """All that the process and its children print until the last of them has ended."""
    try:
        return process.communicate(timeout=SECONDS)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def by_lightning(folder, *options):
    return [start(folder, *options)]


def by_torchrun(folder, *options):
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}")
    return [start(folder, *options, before=launcher)]


def by_slurm(folder, *options):
    job = {"JOB_ID": "1", "JOB_NAME": "search", "NODELIST": "127.0.0.1", "NTASKS": "2", "NTASKS_PER_NODE": "2"}
    job = {f"SLURM_{name}": value for name, value in job.items()} | {"MASTER_ADDR": "127.0.0.1", "SLURM_NODEID": "0"}
    port = free_port()
    return [
        start(folder, *options, **job, MASTER_PORT=port, SLURM_PROCID=number, SLURM_LOCALID=number)
        for number in ("0", "1")
    ]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def without_time(value):
    if isinstance(value, dict):
        times = ("seconds", "elapsed", "crc")
        return {key: without_time(entry) for key, entry in value.items() if key not in times}
    return [without_time(entry) for entry in value] if isinstance(value, list) else value


def ended(folder, rank=0):
    """What a rank ended with, but for the diagnosis, which several ranks do not make."""
    found = without_time(json.loads((folder / f"rank-{rank}.json").read_text()))
    if found["result"] is not None:
        found["result"].pop("diagnosis")
    return found


def journal(folder):
    lines = [without_time(json.loads(line)) for line in (folder / "search.jsonl").read_text().splitlines()]
    return [line for line in lines if line.get("key") != ["diagnosis"]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Runs the program on one rank, once for each set of options; returns its folder."""
    folders = {}

    def run(*options):
        if options not in folders:
            folders[options] = tmp_path_factory.mktemp("alone")
            with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
                for name in ("LOCAL_RANK", "SLURM_LOCALID"):
                    patch.delenv(name, raising=False)
                ranked.main(ranked.arguments([str(folders[options]), "--devices", "1", *options]))
        return folders[options]

    return run


@pytest.mark.slow
def test_a_race_is_shared_among_the_ranks(alone, tmp_path):
    """The members of two ranks are those of one, and each rank has the network of the best one."""
    (process,) = by_lightning(tmp_path, "--race")
    printed = output(process)
    assert process.returncode == 0, printed
    first, second = ended(tmp_path), ended(tmp_path, 1)
    reference = ended(alone("--race"))
    assert first["result"] == second["result"] == reference["result"]
    assert first["weights"] == second["weights"] == reference["weights"]
    assert first["sum of ranks"] == 3


@pytest.mark.slow
def test_a_race_that_is_killed_goes_on_on_as_many_ranks(alone, tmp_path):
    (process,) = by_lightning(tmp_path, "--race", "--slow")
    deadline = time.monotonic() + SECONDS
    while not (tmp_path / "search-race.pt").exists():
        assert process.poll() is None, output(process)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for rank in (1, 0):
        os.kill(int((tmp_path / f"pid-{rank}").read_text()), signal.SIGKILL)
    output(process)
    lines = len(journal(tmp_path))
    shutil.copytree(tmp_path, tmp_path / "fewer")
    (process,) = by_lightning(tmp_path, "--race")
    printed = output(process)
    assert process.returncode == 0, printed
    assert f"the race goes on from epoch {lines - 1}, and" in printed
    assert ended(tmp_path)["result"] == ended(tmp_path, 1)["result"] == ended(alone("--race"))["result"]
    assert ended(tmp_path)["weights"] == ended(tmp_path, 1)["weights"] == ended(alone("--race"))["weights"]
    # Notes of two ranks are of no use to one
    with pytest.warns(UserWarning, match="number of ranks has trained so far, so the race starts anew"):
        ranked.main(ranked.arguments([str(tmp_path / "fewer"), "--devices", "1", "--race"]))
    assert ended(tmp_path / "fewer")["result"] == ended(alone("--race"))["result"]


@pytest.mark.parametrize(
    ("launch", "evaluator", "api"),
    [
        (by_lightning, "trainer", "pytorch_lightning"),
        pytest.param(by_lightning, "sequential", "lightning.pytorch", marks=pytest.mark.slow),
        pytest.param(by_torchrun, "sequential", "pytorch_lightning", marks=pytest.mark.slow),
        pytest.param(by_slurm, "trainer", "pytorch_lightning", marks=pytest.mark.slow),
    ],
)
def test_two_ranks_find_what_one_finds(alone, tmp_path, launch, evaluator, api):
    if api.startswith("lightning"):
        pytest.importorskip("lightning")
    processes = launch(tmp_path, "--evaluator", evaluator, "--api", api)
    printed = "".join(output(process) for process in processes)
    assert [process.returncode for process in processes] == [0] * len(processes), printed
    first, second = ended(tmp_path), ended(tmp_path, 1)
    reference = alone("--evaluator", evaluator)
    assert first["result"] == ended(reference)["result"]
    # Each candidate once, whoever trained it, and the lines in order
    theirs, ours = journal(reference), journal(tmp_path)
    assert len(ours) == LINES
    assert ours[api != "pytorch_lightning" :] == theirs[api != "pytorch_lightning" :]
    # Weights of members travel to rank 0
    assert len(first["members"]) == 4
    assert first["members"] == ended(reference)["members"]
    # Afterwards the ranks are together again, and DDP keeps them alike
    assert first == second | {"members": first["members"]}
    assert first["sum of ranks"] == 3
    # Rank 0 alone logs
    assert printed.count("TaylorGLO: the metalearned") + printed.count("TaylorGLO kept") == 1
    assert printed.count("TaylorGLO: up to") == 1
    assert len(list(tmp_path.rglob("metrics.csv"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_rank_that_is_killed_ends_the_other_in_its_training(alone, tmp_path, victim):
    # No launcher, which would end the other one by itself
    processes = by_slurm(tmp_path, "--stall")
    path = tmp_path / "search.jsonl"
    deadline = time.monotonic() + SECONDS
    # Then both are in a training that takes a minute
    while not (path.exists() and path.read_bytes().count(b"\n") == 2 + 2):
        assert all(process.poll() is None for process in processes), output(processes[0])
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(processes[victim].pid, signal.SIGKILL)
    killed = time.monotonic()
    printed = output(processes[1 - victim])
    assert time.monotonic() - killed < 45
    assert processes[1 - victim].returncode != 0
    assert f"RankError: Rank {victim} died, so the search ends on all ranks." in printed
    output(processes[victim])
    assert not list(tmp_path.glob("rank-*.json"))
    # The journal is whole, and holds no crash: one rank goes on to the same result
    assert len(journal(tmp_path)) == 2 + 2
    with torch.random.fork_rng():
        ranked.main(ranked.arguments([str(tmp_path), "--devices", "1", "--plain"]))
    assert ended(tmp_path)["result"] == ended(alone("--plain"))["result"]
    assert len(journal(tmp_path)) == LINES


@pytest.mark.slow
def test_a_dry_run_ends_on_all_ranks(tmp_path):
    process = start(tmp_path, "--dry")
    printed = output(process)
    assert process.returncode == 0, printed
    assert printed.count("TaylorGLO: up to") == 1
    assert [ended(tmp_path, rank)["result"] for rank in (0, 1)] == [None, None]
    assert not (tmp_path / "search.jsonl").exists()


@pytest.mark.slow
def test_ranks_with_other_data_are_refused(tmp_path):
    process = start(tmp_path, "--split")
    printed = output(process)
    assert process.returncode != 0
    assert "The data on rank 1 differs from what rank 0 has" in printed
    assert "seed_everything" in printed
    assert not (tmp_path / "search.jsonl").exists()


@pytest.mark.slow
def test_a_rank_that_leaves_ends_the_other_in_its_training(tmp_path):
    processes = by_slurm(tmp_path, "--stall", "--leave")
    printed = [output(process) for process in processes]
    assert "RankError: Rank 1 ended the search: SystemExit: no more" in printed[0]
    assert [process.returncode for process in processes] == [1, 1]
    assert len(journal(tmp_path)) == 2 + 2


@pytest.mark.slow
def test_population_in_one_pass_is_shared_out(alone, tmp_path):
    process = start(tmp_path, "--evaluator", "vectorized")
    printed = output(process)
    assert process.returncode == 0, printed
    result = ended(tmp_path)["result"]
    # The draws of the first generation do not depend on who trains them
    first = [
        [c["criterion"] for c in r["history"] if c["generation"] == 0]
        for r in (result, ended(alone("--evaluator", "trainer"))["result"])
    ]
    assert first[0] == first[1]
    assert [candidate["status"] for candidate in result["history"]] == ["ok"] * 10
    assert journal(tmp_path)[0]["evaluator_options"]["ranks"] == 2
    assert result == ended(tmp_path, 1)["result"]


# Refusals


def refused(tmp_path, monkeypatch, strategy, message, evaluator="auto", ranks=2):
    trainer = quiet_trainer(pl, tmp_path)
    monkeypatch.setattr(pl.Trainer, "strategy", property(lambda self: strategy))
    monkeypatch.setattr(pl.Trainer, "world_size", property(lambda self: ranks))
    with pytest.raises(ValueError, match=message):
        TaylorGLO(**TINY, evaluator=evaluator).setup(trainer, classifier(pl)(), "fit")
    # To test needs no search
    TaylorGLO(**TINY, evaluator=evaluator).setup(trainer, classifier(pl)(), "test")


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", ["FSDPStrategy", "ModelParallelStrategy"])
def test_sharded_modules_are_refused(tmp_path, monkeypatch, name, ranks):
    strategy = getattr(pl.strategies, name)()
    refused(tmp_path, monkeypatch, strategy, f"cannot search under {name}: it shards the module", ranks=ranks)


def test_deepspeed_is_refused(tmp_path, monkeypatch):
    # Made without its __init__, which needs deepspeed
    strategy = object.__new__(pl.strategies.DeepSpeedStrategy)
    strategy._launcher = None
    refused(tmp_path, monkeypatch, strategy, "cannot search under DeepSpeedStrategy: it shards the module")


def test_child_processes_are_refused(tmp_path):
    trainer = quiet_trainer(pl, tmp_path, devices=2, strategy="ddp_spawn")
    with pytest.raises(ValueError, match=r"start method 'spawn': its child processes end with the fit.*strategy='ddp'"):
        TaylorGLO(**TINY).setup(trainer, classifier(pl)(), "fit")


@pytest.mark.parametrize("evaluator", ["processes", "processes-sequential", ProcessEvaluator(2)])
def test_an_evaluator_that_spreads_itself_is_refused(tmp_path, evaluator):
    trainer = quiet_trainer(pl, tmp_path, devices=2, strategy="ddp")
    with pytest.raises(ValueError, match=r"`evaluator='processes.*'` spreads the candidates itself.*devices=1"):
        TaylorGLO(**TINY, evaluator=evaluator).setup(trainer, classifier(pl)(), "fit")


def test_a_result_needs_no_search(tmp_path, monkeypatch):
    search = TaylorGLO(**TINY, evaluator="trainer")
    quiet_trainer(pl, tmp_path, max_epochs=1, callbacks=[search]).fit(classifier(pl)(), **loaders())
    again = TaylorGLO(**TINY)
    again.load_state_dict(search.state_dict())
    trainer, strategy = quiet_trainer(pl, tmp_path), pl.strategies.FSDPStrategy()
    monkeypatch.setattr(pl.Trainer, "strategy", property(lambda self: strategy))
    again.setup(trainer, classifier(pl)(), "fit")
