"""A Ray cluster of three nodes gives the results of nested Trainers, also when it loses one."""

import os
import sys
import time
from concurrent.futures import wait
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from helpers import fits
from helpers.data import blobs, loader
from helpers.fits import CRITERIA, equal, nested, running
from helpers.modules import accuracy, mlp, seeded
from helpers.workers import evaluate
from torch.utils.data import Dataset

from tglo_lightning.evaluation import RayEvaluator, TrainerEvaluator
from tglo_lightning.evaluation.auto import check_evaluator
from tglo_lightning.evaluation.workers import ray as room
from tglo_lightning.search import Budget

inner_fit = partial(fits.inner_fit, pl)
# Loopback; 127.0.0.1 would become the machine's outer address
NODE = {"node_ip_address": "127.0.0.2", "object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three nodes of one CPU, the first with a GPU that is one by name only."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path_factory.mktemp("ray") / "token"))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # What the driver imports the nodes must be able to
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1, **NODE})
        try:
            cluster.others = [cluster.add_node(num_cpus=1, **NODE) for _ in range(2)]
            yield cluster
        finally:
            cluster.shutdown()


def module(steps=None):
    """A module of a class that no file holds, as in a notebook; ``steps(module)`` is called at each step."""

    class Notebook(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.criterion = mlp(), torch.nn.CrossEntropyLoss()

        def training_step(self, batch, batch_idx):
            if steps is not None:
                steps(self)
            return self.criterion(self.net(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val/acc", accuracy(self.net(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    return seeded(Notebook)


class Counted(Dataset):
    """Data that note which process unpacks them."""

    def __init__(self, path):
        self.path, self.data = path, blobs(seed=1)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.data[index]

    def __setstate__(self, state):
        vars(self).update(state)
        with open(self.path, "a") as file:
            file.write(f"{os.getpid()}\n")


@pytest.mark.slow
def test_a_population_on_the_cluster_in_pieces(cluster, tmp_path):
    fit = inner_fit(tmp_path, module(), budget=Budget(epochs=2))
    found = {}
    # Half of a GPU that is there by name: two at once on the first node
    for evaluator in (TrainerEvaluator(), RayEvaluator(cluster.address, num_cpus=0.5, num_gpus=0.5)):
        with running(evaluator, fit):
            population = evaluator.start(CRITERIA[:3], 1)
            population.advance(1)
            early = [evaluation.fitness for evaluation in population.scores()]
            population.keep([0, 2])
            population.advance(1)
            late, weights = [], []
            for member, evaluation in zip([0, 2], population.scores(), strict=True):
                late.append(evaluation.fitness)
                weights.append({name: value.clone() for name, value in population.weights(member).items()})
            found[evaluator.name] = early, late, weights
    assert found["ray"][:2] == found["trainer"][:2]
    assert equal(found["ray"][2], found["trainer"][2])


@pytest.mark.slow
def test_node_is_lost_in_mid_generation(cluster, tmp_path):
    driver = os.getpid()
    net = module(lambda module: time.sleep(0.3 if os.getpid() != driver else 0))
    data = {
        "train_dataloaders": loader(Counted(tmp_path / "unpacked"), shuffle=True),
        "val_dataloaders": loader(blobs(48, seed=2)),
    }
    fit = inner_fit(tmp_path, net, data)
    expected = nested(fit, CRITERIA)
    import ray

    with running(RayEvaluator(cluster.address), fit) as evaluator:
        evaluator.ready(3)
        assert len(evaluator.slots) == 3
        wait([slot.ready for slot in evaluator.slots])
        population = evaluator.start(CRITERIA, 1)
        population.advance(3)
        scores = population.scores()
        fitness = [next(scores).fitness]
        cluster.remove_node(cluster.others.pop(), allow_graceful=False)
        fitness += [evaluation.fitness for evaluation in scores]
        assert ray.is_initialized()
    assert not ray.is_initialized()
    assert fitness == expected
    # Once in each worker
    unpacked = (tmp_path / "unpacked").read_text().split()
    assert len(unpacked) == len(set(unpacked)) <= 4


@pytest.mark.slow
def test_candidate_that_kills_its_workers_is_given_up_and_one_that_fails_is_a_crash(cluster, tmp_path):
    killing, failing = (torch.tensor(CRITERIA[index].losses[0].theta) for index in (1, 2))

    def steps(module):
        if torch.allclose(module.criterion.theta.cpu().float(), killing):
            os._exit(1)
        if torch.allclose(module.criterion.theta.cpu().float(), failing):
            raise RuntimeError("no such luck")

    with running(RayEvaluator(cluster.address, max_retries=0), inner_fit(tmp_path, module(steps))) as evaluator:
        evaluations = evaluate(evaluator, CRITERIA[:3])
    assert [evaluation.status for evaluation in evaluations] == ["ok", "crashed", "crashed"]
    assert evaluations[1].error.startswith("its worker process was killed 1 times")
    assert evaluations[2].error == "RuntimeError: no such luck"


@pytest.mark.slow
def test_a_node_that_lacks_what_the_script_imports_is_told(cluster, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("class Data(list):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    from only_here import Data

    net = module()
    net.extra = Data()
    evaluator, words = RayEvaluator(cluster.address), r"A worker cannot take on .*only_here.* PYTHONPATH"
    with running(evaluator, inner_fit(tmp_path, net)), pytest.raises(RuntimeError, match=words):
        evaluate(evaluator, CRITERIA[:1])


@pytest.mark.slow
def test_what_the_cluster_lacks_is_told(cluster, tmp_path):
    with running(RayEvaluator(cluster.address, num_gpus=8), inner_fit(tmp_path, module())) as evaluator:
        with pytest.warns(UserWarning, match="No node of the Ray cluster has 1 CPUs and 8 GPUs"):
            assert evaluator.ready(4) == []
        assert len(evaluator.slots) == 1


def test_missing_ray_says_what_to_type(monkeypatch):
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    for build in (RayEvaluator, lambda: check_evaluator("ray"), lambda: check_evaluator("ray-sequential")):
        with pytest.raises(ImportError, match=r"pip install 'tglo-lightning\[ray\]'"):
            build()


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"address": 3}, TypeError),
        ({"address": ""}, TypeError),
        ({"num_cpus": 0}, ValueError),
        ({"num_cpus": None}, TypeError),
        ({"num_gpus": -0.5}, ValueError),
        ({"num_gpus": float("nan")}, ValueError),
        ({"num_gpus": "1"}, TypeError),
        ({"max_retries": -1}, ValueError),
        ({"max_retries": 1.5}, TypeError),
    ],
)
def test_bad_arguments(kwargs, error):
    with pytest.raises(error, match=next(iter(kwargs))):
        RayEvaluator(**kwargs)
