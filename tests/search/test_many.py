"""One loss for several tasks."""

import pytest
import torch
from helpers.data import blobs
from helpers.modules import mlp
from torch import nn

from tglo_lightning.losses import robust
from tglo_lightning.search import Criterion, Finals, LossSpec, SearchResult, minimize, minimize_many
from tglo_lightning.search.many import transferred
from tglo_lightning.theory import mean_pull, to_minimal, to_shape

TRAIN, VAL = blobs(seed=1).tensors, blobs(48, seed=2).tensors
TINY = {"generations": 2, "population": 4, "finals": Finals(2, 1, 2), "progress": False}


def task(num_classes, seen=None):
    """Blobs, of which the last classes are empty."""

    def error_rate(loss):
        net = nn.Sequential(mlp(), nn.Linear(3, num_classes))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        if seen is not None:
            seen.append((loss, optimizer.param_groups[0]["lr"], net[1].weight.detach().clone()))
        for _ in range(4):
            index = torch.randperm(len(TRAIN[1]))[:32]
            optimizer.zero_grad()
            loss(net(TRAIN[0][index]), TRAIN[1][index]).backward()
            optimizer.step()
        return (net(VAL[0]).argmax(1) != VAL[1]).float().mean()

    return error_rate


def test_the_same_shape_and_rate_for_every_task():
    seen = {3: [], 6: []}
    result = minimize_many([task(3, seen[3]), task(6, seen[6])], [3, 6], **TINY)
    assert result.candidates == 8
    # 4 candidates and cross-entropy on each task
    for small, large, candidate in zip(seen[3][:4], seen[6][:4], result.history[:4], strict=True):
        shapes = [to_shape(to_minimal(loss.theta), n)[1] for (loss, *_), n in ((small, 3), (large, 6))]
        torch.testing.assert_close(*shapes)
        assert float(mean_pull(to_minimal(small[0].theta), 3)) == pytest.approx(1)
        assert small[1] == large[1] == pytest.approx(0.1 * candidate.criterion.step)
    for calls in seen.values():
        assert isinstance(calls[4][0], nn.CrossEntropyLoss)
        assert calls[4][1] == 0.1
        assert all(torch.equal(call[2], calls[0][2]) for call in calls[:5])


def test_the_fitness_is_the_mean_gain():
    fns = [task(3), task(6)]
    result = minimize_many(fns, [3, 6], **TINY)
    assert result.original.fitness == (0.0, 0.0)
    assert (result.monitor, result.mode) == ("gain", "max")
    assert all(-1 <= candidate.fitness <= 1 for candidate in result.history)
    prior = result.to_prior()
    again = minimize(fns[0], 3, prior=result, finals=2, progress=False)
    found = [c.criterion.losses[0] for c in again.history[1:] if c.criterion.losses[0].family == "taylorglo"]
    assert to_shape(to_minimal(list(found[0].theta)), 3)[1].tolist() == pytest.approx(prior.t, rel=1e-3)


def test_it_goes_on_from_its_journal(tmp_path):
    calls = []

    def counted(fn):
        def error_rate(loss):
            calls.append(loss)
            return fn(loss)

        return error_rate

    fns = [counted(task(3)), counted(task(6))]
    whole = minimize_many(fns, [3, 6], journal=tmp_path / "many.jsonl", **TINY)
    before = len(calls)
    again = minimize_many(fns, [3, 6], journal=tmp_path / "many.jsonl", **TINY)
    assert len(calls) == before
    assert [c.fitness for c in again.history] == [c.fitness for c in whole.history]
    assert SearchResult.load(tmp_path / "many.json").original.name == "CrossEntropyLoss"


def test_wrong_arguments():
    with pytest.raises(ValueError, match="a function for each"):
        minimize_many([task(3)], [3, 6], **TINY)
    with pytest.raises(ValueError, match="among TaylorGLO losses"):
        minimize_many([task(3)], [3], **TINY, space="gce")
    theta = tuple(robust(10).theta.tolist())
    same = transferred(Criterion((LossSpec("taylorglo", theta),), 0.5), 10, 10)
    assert same.losses[0].theta == pytest.approx(theta, rel=1e-4, abs=1e-4)
    assert same.step == 0.5
