"""A Ray cluster of three nodes gives the results of nested Trainers, also when it loses one."""

import os
import sys
import time
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from helpers import fits
from helpers.data import blobs, loader, loaders
from helpers.fits import nested, running
from helpers.modules import TINY, accuracy, mlp, quiet_trainer, seeded
from torch.utils.data import Dataset

from tglo_lightning import TaylorGLO
from tglo_lightning.evaluation import RayEvaluator, auto
from tglo_lightning.evaluation import ray as room

# Some fail where they would be probed
inner_fit = partial(fits.inner_fit, pl, probed=False)
THETAS = [[0.0, 0.5, 0.0, 0.0, 0.0, 2.0, -1.0, 0.1 * i] for i in range(6)]
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


def test_a_search_on_the_cluster(cluster, tmp_path):
    results = {}
    # Half of a GPU that is there by name: two at once on the first node
    for evaluator in ("trainer", RayEvaluator(cluster.address, num_cpus=0.5, num_gpus=0.5)):
        search = TaylorGLO(**TINY, evaluator=evaluator)
        net = module()
        torch.manual_seed(0)
        quiet_trainer(pl, tmp_path, callbacks=[search], max_epochs=1).fit(net, **loaders())
        results[search.result.settings["evaluator"]] = [
            *(candidate.fitness for candidate in search.result.history),
            *search.result.original.fitness,
        ]
    assert list(results) == ["trainer", "ray"]
    assert results["ray"] == results["trainer"]


def test_node_is_lost_in_mid_generation(cluster, tmp_path):
    driver = os.getpid()
    net = module(lambda module: time.sleep(0.3 if os.getpid() != driver else 0))
    data = {
        "train_dataloaders": loader(Counted(tmp_path / "unpacked"), shuffle=True),
        "val_dataloaders": loader(blobs(48, seed=2)),
    }
    fit = inner_fit(tmp_path, net, data)
    expected = nested(fit, THETAS)
    import ray

    with running(RayEvaluator(cluster.address), fit) as evaluator:
        evaluations = evaluator.evaluate(THETAS, 1)
        fitness = [next(evaluations).fitness]
        cluster.remove_node(cluster.others.pop(), allow_graceful=False)
        fitness += [evaluation.fitness for evaluation in evaluations]
        assert ray.is_initialized()
    assert not ray.is_initialized()
    assert fitness == expected
    # Once in each worker
    unpacked = (tmp_path / "unpacked").read_text().split()
    assert len(unpacked) == len(set(unpacked)) <= 5


@pytest.mark.slow
def test_candidate_that_kills_its_workers_is_given_up_and_one_that_fails_is_a_crash(cluster, tmp_path):
    def steps(module):
        if module.criterion.theta[-1] == THETAS[1][-1]:
            os._exit(1)
        if module.criterion.theta[-1] == THETAS[2][-1]:
            raise RuntimeError("no such luck")

    with running(RayEvaluator(cluster.address, max_retries=0), inner_fit(tmp_path, module(steps))) as evaluator:
        evaluations = list(evaluator.evaluate(THETAS[:3], 1))
    assert [evaluation.status for evaluation in evaluations] == ["ok", "crashed", "crashed"]
    assert evaluations[1].error.startswith("its worker died 1 times")
    assert evaluations[2].error == "RuntimeError: no such luck"


def test_what_the_cluster_lacks_is_told(cluster, tmp_path):
    with running(RayEvaluator(cluster.address, num_gpus=8), inner_fit(tmp_path, module())) as evaluator:
        evaluations = evaluator.evaluate(THETAS[:1], 1)
        with pytest.warns(UserWarning, match="No node of the Ray cluster has 1 CPUs and 8 GPUs"):
            evaluator._held = evaluator._put()
        evaluations.close()


def test_auto_tries_no_cluster(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(auto, "_seconds", lambda evaluator, fit, size: tried.append(evaluator.name) or 1.0)
    auto.choose_evaluator("auto", inner_fit(tmp_path, module()), 4).close()
    assert tried
    assert not [name for name in tried if "ray" in name]


def test_missing_ray_says_what_to_type(monkeypatch):
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    for build in (RayEvaluator, lambda: TaylorGLO(evaluator="ray"), lambda: TaylorGLO(evaluator="ray-sequential")):
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
