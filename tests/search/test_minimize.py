"""The search for a training loop in plain PyTorch."""

import json
import math
import random
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.data import blobs
from helpers.modules import mlp
from helpers.searches import Halving
from torch import nn

from tglo_lightning.losses import BaikalLoss, SmoothedCrossEntropyLoss, TaylorGLOLoss
from tglo_lightning.search import (
    Budget,
    FamilySpace,
    Finals,
    ProductSpace,
    RandomSearch,
    SearchResult,
    SearchSettings,
    TaylorSpace,
    minimize,
)

FINALS = Finals(finalists=1, seeds=1, confirm=2)
TINY = {"space": "taylorglo", "generations": 2, "population": 4, "finals": FINALS, "progress": False}
# Two generations, a choice, and a confirmation of the chosen one and the original
TRAININGS = 2 * 4 + 1 + 2 * 2
TRAIN, VAL = blobs(seed=1).tensors, blobs(48, seed=2).tensors


def error_rate(loss, steps=4):
    """A plain loop, as users have it."""
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(steps):
        index = torch.randperm(len(TRAIN[1]))[:32]
        optimizer.zero_grad()
        loss(net(TRAIN[0][index]), TRAIN[1][index]).backward()
        optimizer.step()
    return (net(VAL[0]).argmax(1) != VAL[1]).float().mean()


def test_a_plain_loop():
    result = minimize(error_rate, 3, **TINY)
    assert (result.monitor, result.mode, result.original.name) == ("error_rate", "min", "CrossEntropyLoss")
    assert (result.candidates, result.failed) == (8, 0)
    assert result.best.found == min(c.fitness for c in result.history)
    loss = result.loss()
    assert isinstance(loss, TaylorGLOLoss if result.kept == "metalearned" else nn.CrossEntropyLoss)
    again = SearchResult.from_dict(json.loads(json.dumps(result.to_dict())))
    assert repr(again.loss()) == repr(loss)


def test_what_is_found_is_better_and_the_same_each_time():
    def distance(loss):
        if isinstance(loss, nn.CrossEntropyLoss):
            return 1.0
        return (loss.theta - 0.3).square().sum() + 1e-3 * torch.rand(())

    def run():
        return minimize(
            distance, 3, **TINY | {"generations": 15, "population": 10, "space": TaylorSpace(coordinates="full")}
        )

    with pytest.warns(UserWarning, match="did not call the loss"):
        first = run()
    assert first.kept == "metalearned"
    assert first.best.mean < 0.5
    with pytest.warns(UserWarning, match="did not call the loss"):
        assert run().loss().theta.tolist() == first.loss().theta.tolist()


def test_common_random_numbers_and_nothing_left_of_them():
    seen = []

    def draws(loss):
        loss(torch.zeros(1, 3), torch.tensor([0]))
        assert torch.initial_seed() > 0
        seen.append((torch.rand(()).item(), float(np.random.rand()), random.random()))  # noqa: NPY002
        return seen[-1][0]

    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    result = minimize(draws, 3, **TINY)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]  # noqa: NPY002
    # two generations of 4, the choice of one, two seeds of that and the original
    rounds = [seen[0:4], seen[4:8], seen[8:9], seen[9:11], seen[11:13]]
    assert [len(set(each)) for each in rounds] == [1] * 5
    assert len({each[0] for each in rounds}) == 5
    assert result.kept == "original"  # a tie


def test_options_of_the_original_are_taken_over():
    weight = torch.tensor([1.0, 2.0, 3.0])
    original = nn.CrossEntropyLoss(weight=weight, ignore_index=2, label_smoothing=0.1)
    kinds = set()

    def look(loss):
        kinds.add(type(loss))
        assert loss is not original
        assert loss.weight.tolist() == weight.tolist()
        assert loss.ignore_index == 2
        value = loss(torch.randn(4, 3), torch.tensor([0, 1, 2, 1]))
        loss.weight.zero_()  # nobody else's
        return value

    result = minimize(look, 3, original=original, **TINY)
    assert kinds == {TaylorGLOLoss, nn.CrossEntropyLoss}
    assert result.loss(original).ignore_index == 2


@pytest.mark.parametrize("original", [nn.functional.cross_entropy, BaikalLoss(), nn.NLLLoss()])
def test_other_originals(original):
    result = minimize(lambda loss: float(loss(torch.randn(4, 3).log_softmax(1), torch.ones(4).long())), 3,
                      original=original, **TINY)  # fmt: skip
    assert result.failed == 0
    assert result.original.name in ("cross_entropy", "BaikalLoss", "NLLLoss")


@pytest.mark.parametrize(("original", "families"), [
    (nn.BCEWithLogitsLoss(), {"binary_taylor", "binary_smoothing", "binary_focal", "asymmetric"}),
    (nn.functional.mse_loss, {"barron", "huber"}),
])  # fmt: skip
def test_other_targets(original, families):
    hot = nn.functional.one_hot(TRAIN[1]).float()

    def error(loss):
        net = mlp()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            loss(net(TRAIN[0]), hot).backward()
            optimizer.step()
        return (net(VAL[0]).argmax(1) != VAL[1]).float().mean()

    result = minimize(error, 2, original=original, finals=FINALS, progress=False)
    assert (result.candidates, result.failed) == (10, 0)
    assert {spec.family for c in result.history for spec in c.criterion.losses} == families


def test_another_family_and_the_learning_rate():
    def rate(loss):
        net = mlp()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        loss(net(TRAIN[0]), TRAIN[1]).backward()
        rates.append(optimizer.param_groups[0]["lr"])
        return error_rate(loss)

    rates = []
    result = minimize(rate, 3, **TINY | {"space": "smoothing"})
    assert [c.criterion.step for c in result.history] == pytest.approx([rate / 0.1 for rate in rates[:8]])
    assert len(set(rates)) > 8
    assert isinstance(replace(result, kept="metalearned").loss(), SmoothedCrossEntropyLoss)
    with pytest.raises(ValueError, match="learning rate is searched, but `fn` builds no torch optimizer"):
        minimize(lambda loss: float(loss(torch.zeros(1, 3), torch.tensor([0]))), 3, **TINY | {"space": "smoothing"})


def curve(loss, epochs=4):
    """A loop that yields its error after every epoch."""
    try:
        net = mlp()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(epochs):
            index = torch.randperm(len(TRAIN[1]))[:32]
            optimizer.zero_grad()
            loss(net(TRAIN[0][index]), TRAIN[1][index]).backward()
            optimizer.step()
            EPOCHS.append(type(loss))
            yield nn.functional.cross_entropy(net(VAL[0]), VAL[1]).detach()
    finally:
        ENDED.append(type(loss))


EPOCHS, ENDED = [], []


def test_a_function_that_yields_ends_where_it_would_at_once():
    """In pieces, in turns with others, the random numbers of each stay its own."""

    def whole(loss):
        *_, last = curve(loss)
        return last

    EPOCHS.clear(), ENDED.clear()
    at_once = minimize(whole, 3, strategy="random", **TINY)
    assert len(EPOCHS) == 4 * TRAININGS
    EPOCHS.clear(), ENDED.clear()
    result = minimize(curve, 3, strategy=Halving(), budget=4, **TINY)
    assert len(EPOCHS) == 2 * (4 + 2 + 1 + 1) + 4 * (TRAININGS - 8)
    assert len(ENDED) == TRAININGS
    last = [max(g * 4, g * 4 + i) for g in range(2) for i in range(4)]
    same = [i for i in last if result.history[i].fitness == at_once.history[i].fitness]
    assert len(same) == 2  # the one of each generation that trained to its end
    assert [c.criterion for c in result.history] == [c.criterion for c in at_once.history]
    result = minimize(curve, 3, strategy="random", budget=4, **TINY)
    assert [c.fitness for c in result.history] == [c.fitness for c in at_once.history]
    assert result.original.fitness == at_once.original.fitness


def test_a_budget_for_a_function_that_yields():
    with pytest.raises(ValueError, match="`fn` yields numbers; pass `budget=`"):
        minimize(curve, 3, **TINY)
    minimum = Budget(epochs=4, min_fitness_after=(1, 1.2))
    result = minimize(curve, 3, budget=minimum, **TINY | {"population": 8})
    assert 0 < sum(c.status == "rejected" for c in result.history) < 16
    result = minimize(curve, 3, budget=9, **TINY)  # more than it yields: its last number
    assert result.failed == 0

    def slow(loss):
        while True:
            time.sleep(0.01)
            yield float(loss(torch.zeros(1, 3), torch.tensor([0])))
            if isinstance(loss, TaylorGLOLoss) and loss.theta[3] > 0:
                time.sleep(0.2)

    result = minimize(slow, 3, budget=Budget(steps=3, timeout=0.15), **TINY)
    late = [c for c in result.history if c.criterion.losses[0].theta[3] > 0]
    assert {c.status for c in late} == {"timeout"}
    assert late[0].error == "not done within timeout=0.15 s"
    assert result.failed == len(late)


def test_settings_in_place_of_options():
    settings = SearchSettings(2, 4, FamilySpace("smoothing", step=False), RandomSearch(), FINALS)
    assert minimize(error_rate, 3, settings=settings, progress=False).settings["space"]["name"] == "smoothing"
    with pytest.raises(TypeError, match="Give either `settings` or generations"):
        minimize(error_rate, 3, settings=settings, generations=3)


def test_failed_candidates_are_ranked_worst():
    calls = []

    def fails_often(loss):
        calls.append(loss)
        turn = len(calls) % 3 if len(calls) <= 12 else 0
        if turn == 1:
            raise RuntimeError("boom")
        fitness = error_rate(loss)
        return math.nan if turn == 2 else fitness

    result = minimize(fails_often, 3, **TINY | {"generations": 3})
    assert [c.status for c in result.history[:6]] == ["crashed", "diverged", "ok"] * 2
    assert result.history[0].error == "RuntimeError: boom"
    assert result.failed == 8
    assert math.isfinite(result.best.found)


def test_a_journal(tmp_path):
    """Killed in the middle, and a typo before it: neither costs or spoils anything."""
    journal = tmp_path / "search.jsonl"
    with pytest.raises(RuntimeError, match=r"each of the 4 losses .* NameError"):
        minimize(lambda loss: undefined, 3, journal=journal, **TINY)  # noqa: F821
    journal.unlink()
    whole = minimize(error_rate, 3, **TINY)
    calls = []

    def error_rate_(loss):
        calls.append(loss)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return error_rate(loss)

    error_rate_.__name__ = "error_rate"
    with pytest.raises(KeyboardInterrupt):
        minimize(error_rate_, 3, journal=journal, **TINY)
    unfinished = SearchResult.load(journal)
    assert (unfinished.monitor, unfinished.candidates, unfinished.finished) == ("error_rate", 5, False)
    again = minimize(error_rate_, 3, journal=journal, **TINY)
    assert len(calls) == 6 + (8 - 5) + 5
    assert again.best.criterion == whole.best.criterion
    assert again.original.fitness == whole.original.fitness


def test_a_loop_that_fails_with_every_loss_is_told_at_once(tmp_path):
    calls = []

    def typo(loss):
        calls.append(loss)
        return loss.shape

    with pytest.raises(
        RuntimeError, match=r"each of the 4 losses of the first generation.*no attribute 'shape'"
    ) as told:
        minimize(typo, 3, **TINY)
    assert isinstance(told.value.__cause__, AttributeError)
    assert len(calls) == 4


@pytest.mark.parametrize("value", [None, "0.1", torch.zeros(2), [0.1]])
def test_what_is_no_number_is_refused_at_once(value):
    calls = []
    with pytest.raises(TypeError, match="`fn` must return the number to minimise, got"):
        minimize(lambda loss: (calls.append(loss(torch.zeros(1, 3), torch.tensor([0]))), value)[1], 3, **TINY)
    assert len(calls) == 1


def test_finals_that_say_nothing_are_told():
    def seeds_itself(loss):
        torch.manual_seed(0)
        return error_rate(loss)

    with pytest.warns(UserWarning, match="had the same seeds_itself from each of 2 seeds.*seeds generators itself"):
        minimize(seeds_itself, 3, **TINY)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"fn": 5}, TypeError, "`fn` must be a function"),
        ({"num_classes": 1}, ValueError, "`num_classes` must be at least 2"),
        (
            {"original": nn.KLDivLoss()},
            ValueError,
            "`original` is KLDivLoss. TaylorGLO replaces CrossEntropyLoss, .*, and losses of your own",
        ),
        ({"original": nn.BCEWithLogitsLoss()}, ValueError, "losses of classes targets, but .* one of binary targets"),
        ({"space": "huber"}, ValueError, "losses of regression targets, but .* one of classes targets"),
        ({"original": 5}, ValueError, "`original` is 5, not a loss"),
        ({"population": 1}, ValueError, "`population` must be at least 2"),
        ({"space": TaylorSpace}, TypeError, "`space` must be the name"),
        ({"space": ProductSpace([TaylorSpace()] * 2)}, ValueError, "`space` must be one of 1 loss, got one of 2"),
        ({"generation": 1}, TypeError, "unexpected keyword argument 'generation'"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    fn, classes = arguments.pop("fn", error_rate), arguments.pop("num_classes", 3)
    with pytest.raises(error, match=message):
        minimize(fn, classes, **TINY | arguments)


def test_the_bar(capsys):
    minimize(error_rate, 3, **TINY | {"progress": True})
    assert "13/13 max best error_rate" in " ".join(capsys.readouterr().out.split())


def test_a_function_of_other_code_does_not_go_on(tmp_path):
    def build(factor):
        if factor == 1:

            def fn(loss):
                return loss(torch.tensor([[2.0, 0.0, 1.0]], requires_grad=True), torch.tensor([0])).item()
        else:

            def fn(loss):
                return 2 * loss(torch.tensor([[2.0, 0.0, 1.0]], requires_grad=True), torch.tensor([0])).item()

        return fn

    journal = tmp_path / "search.jsonl"
    minimize(build(1), 3, **TINY, journal=journal)
    with pytest.raises(ValueError, match="code"):
        minimize(build(2), 3, **TINY, journal=journal)


def test_classes_other_than_those_of_the_logits():
    def fn(loss):
        return float(loss(torch.zeros(4, 10), torch.arange(4)))

    with pytest.raises(ValueError, match="`num_classes` is 7, but `fn` called the loss with logits of 10 classes"):
        minimize(fn, 7, **TINY)
