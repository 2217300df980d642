"""What the callback does: search, swap, result."""

import copy
import logging
import random
import signal
import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from helpers.data import blobs, loader, loaders, split_datamodule
from helpers.modules import TINY, accuracy, classifier, cnn, mlp, quiet_trainer, seeded, theta_of
from torch import nn

from tglo_lightning import TaylorGLO
from tglo_lightning.evaluation import InnerFit, TrainerEvaluator
from tglo_lightning.losses import BaikalLoss, TaylorGLOLoss
from tglo_lightning.module import LossSlots
from tglo_lightning.search import Budget, Criterion, Finals, SearchError, TaylorSpace


def fit(tmp_path, module, data=None, api=pl, trainer=None, **kwargs):
    search = TaylorGLO(**(TINY | {"evaluator": "trainer"} | kwargs))
    quiet_trainer(api, tmp_path, callbacks=[search], **({"max_epochs": 1} | (trainer or {}))).fit(
        module, **(data or loaders())
    )
    return search


def by_name(api=pl):
    """A class whose metric is better with any TaylorGLO loss, so that the search must keep one."""

    class ByName(classifier(api)):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            super().validation_step(batch, batch_idx)
            self.log("val/taylor", float(isinstance(self.criterion, TaylorGLOLoss)))

    return ByName


@pytest.mark.parametrize("evaluator", ["trainer", "vectorized", "processes", "auto"])
def test_the_winner_is_swapped_in(either_api, tmp_path, evaluator):
    api = either_api
    module = by_name(api)()
    search = fit(tmp_path, module, api=api, monitor="val/taylor", evaluator=evaluator)
    result = search.result
    assert result.kept == "metalearned"
    assert isinstance(module.criterion, TaylorGLOLoss)
    assert module.criterion.theta.tolist() == theta_of(result.best)
    assert result.best.formula == module.criterion.formula
    assert result.original.name == "CrossEntropyLoss"
    assert (result.original.mean, result.best.mean) == (0.0, 1.0)
    assert result.candidates == 4
    assert result.failed == 0
    assert result.settings["evaluator"]


def test_a_real_search_beats_cross_entropy_where_it_should(tmp_path):
    """Noisy labels, an overfitting network: whatever wins has been measured to win."""
    torch.manual_seed(0)
    train, val = blobs(96, seed=1), blobs(96, seed=2)
    noisy = torch.where(torch.rand(96) < 0.4, torch.randint(3, (96,)), train.tensors[1])
    train.tensors = (train.tensors[0], noisy)
    data = {
        "train_dataloaders": loader(train, shuffle=True, batch_size=32),
        "val_dataloaders": loader(val, batch_size=96),
    }
    module = seeded(classifier(pl))
    search = fit(
        tmp_path,
        module,
        data,
        trainer={"max_epochs": 10},
        generations=4,
        population=8,
        budget=10,
        finals=Finals(3, 1, 2),
        evaluator="vectorized",
    )
    result = search.result
    assert (result.kept == "metalearned") == (result.gain > 0 and (result.p_value is None or result.p_value <= 0.05))
    assert isinstance(module.criterion, TaylorGLOLoss) == (result.kept == "metalearned")
    first, last = ([c.fitness for c in result.history if c.generation == g and c.status == "ok"] for g in (0, 3))
    assert np.mean(last) > np.mean(first)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (
            nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]), ignore_index=1, label_smoothing=0.1),
            "CrossEntropyLoss",
        ),
        (F.cross_entropy, "cross_entropy"),
        (BaikalLoss(), "BaikalLoss"),
        (lambda logits, target: F.cross_entropy(logits, target), "<lambda>"),
    ],
)
def test_losses_that_can_be_replaced(tmp_path, loss, name):
    module = by_name()(criterion=loss)
    search = fit(tmp_path, module, monitor="val/taylor")
    assert search.result.original.name == name
    assert search.result.failed == 0
    assert isinstance(module.criterion, TaylorGLOLoss)
    if isinstance(loss, nn.CrossEntropyLoss):
        assert module.criterion.weight.tolist() == [1.0, 2.0, 3.0]
        assert module.criterion.ignore_index == 1


def test_negative_log_likelihood(tmp_path):
    module = by_name()(nn.Sequential(mlp(), nn.LogSoftmax(1)), nn.NLLLoss())
    search = fit(tmp_path, module, monitor="val/taylor")
    assert search.result.failed == 0
    assert isinstance(module.criterion, TaylorGLOLoss)


def test_soft_targets(tmp_path):
    module = by_name()()
    search = fit(tmp_path, module, loaders(soft=True), monitor="val/taylor")
    assert search.result.failed == 0
    assert isinstance(module.criterion, TaylorGLOLoss)


def test_loss_in_a_submodule(tmp_path):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = mlp()
            self.criterion = nn.CrossEntropyLoss()

        def forward(self, x):
            return self.layer(x)

    class Deep(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.head = Head()

        def training_step(self, batch, batch_idx):
            x, y = batch
            return self.head.criterion(self.head(x), target=y)

        def validation_step(self, batch, batch_idx):
            self.log("val/taylor", float(isinstance(self.head.criterion, TaylorGLOLoss)))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    module = Deep()
    search = fit(tmp_path, module, loss="head.criterion", monitor="val/taylor")
    assert search.result.failed == 0
    assert isinstance(module.head.criterion, TaylorGLOLoss)


def test_fast_dev_run_skips_the_search(tmp_path):
    module = by_name()()
    search = fit(tmp_path, module, monitor="val/taylor", trainer={"fast_dev_run": True})
    assert search.result is None
    assert type(module.criterion) is nn.CrossEntropyLoss


def test_a_second_fit_does_not_search_again(tmp_path):
    module = by_name()()
    search = fit(tmp_path, module, monitor="val/taylor")
    result = search.result
    quiet_trainer(pl, tmp_path, callbacks=[search]).fit(module, **loaders())
    assert search.result is result
    assert isinstance(module.criterion, TaylorGLOLoss)


def test_mode_min(tmp_path):
    class Worse(by_name()):
        def validation_step(self, batch, batch_idx):
            self.log("val/err", 1 - float(isinstance(self.criterion, TaylorGLOLoss)))

    search = fit(tmp_path, Worse(), monitor="val/err", mode="min")
    assert search.result.kept == "metalearned"
    assert fit(tmp_path, Worse(), monitor="val/err", mode="max").result.kept == "original"


@pytest.mark.parametrize("coordinates", ["full", "minimal"])
@pytest.mark.parametrize("order", [2, 4])
def test_orders_and_coordinates(tmp_path, order, coordinates):
    module = by_name()()
    search = fit(tmp_path, module, monitor="val/taylor", space=TaylorSpace(order, coordinates))
    assert module.criterion.order == order
    assert search.result.failed == 0


def test_deterministic(tmp_path):
    def thetas(seed):
        result = fit(tmp_path, seeded(lambda: classifier(pl)(mlp(0.3))), generations=2, seed=seed).result
        return [(c.criterion, c.fitness) for c in result.history]

    assert thetas(3) == thetas(3)
    assert thetas(3) != thetas(4)


class Witness(pl.Callback):
    """Notes what each candidate's training starts from and sees."""

    notes: list = []  # noqa: RUF012  (copies of the callback share it)

    def on_train_start(self, trainer, pl_module):
        self.notes.append([next(pl_module.parameters()).detach().sum().item()])

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.notes[-1].append((batch[0].sum().item(), torch.rand(()).item()))


@pytest.mark.parametrize("init", ["module", "reset", "function"])
def test_common_random_numbers(tmp_path, init):
    """Within a generation all candidates share initial weights and batches; between generations data order differs."""
    Witness.notes = []
    kind = by_name()
    fit(
        tmp_path,
        seeded(kind),
        monitor="val/taylor",
        generations=2,
        population=3,
        finals=Finals(1, 0, 1),
        budget=Budget(steps=2, callbacks=[Witness()]),
        init=(lambda: kind()) if init == "function" else init,
    )
    # the loss is looked for first, then come the two rehearsals of the probe
    runs = Witness.notes[3:]
    generations = [runs[:3], runs[3:6], runs[6:]]
    assert len(generations[2]) == 2
    for generation in generations:
        assert all(run == generation[0] for run in generation)
    weights = [generation[0][0] for generation in generations]
    batches = [generation[0][1] for generation in generations]
    assert len(set(batches)) == 3
    assert len(set(weights)) == (1 if init == "module" else 3)


@pytest.mark.parametrize("where", ["module", "loader"])
def test_generators_made_on_the_way_are_seeded_too(tmp_path, where):
    class Own(by_name()):
        def __init__(self):
            super().__init__()
            self.generator = torch.Generator().manual_seed(1)

        def train_dataloader(self):
            generator = self.generator if where == "module" else torch.Generator().manual_seed(1)
            return loader(blobs(seed=1), shuffle=True, generator=generator)

        def val_dataloader(self):
            return loader(blobs(48, seed=2))

    Witness.notes = []
    module = Own()
    before = module.generator.get_state()
    options = {"generations": 2, "budget": Budget(steps=2, callbacks=[Witness()])}
    search = TaylorGLO(monitor="val/taylor", evaluator="trainer", **(TINY | options))
    trainer = quiet_trainer(pl, tmp_path, callbacks=[search], max_epochs=1, limit_train_batches=1)
    trainer.fit(module)
    runs = [run[1][0] for run in Witness.notes[3:]]
    assert len(set(runs[:4])) == 1
    assert runs[0] != runs[4]
    if where == "loader":
        assert torch.equal(module.generator.get_state(), before)


def test_equal_criteria_have_equal_fitness(tmp_path):
    found = []

    class Score(pl.Callback):
        def on_fit_start(self, trainer, pl_module):
            evaluator = TrainerEvaluator()
            evaluator.setup(InnerFit(trainer, pl_module, LossSlots("criterion"), "val/acc", Budget(epochs=2)))
            criterion = Criterion.of("taylorglo", [0.0, 0.5, 0.0, 0.0, 0.0, 2.0, -2.0, 0.0])
            for seed in (1, 2):
                population = evaluator.start([criterion, Criterion.original()] * 2, seed)
                population.advance(2)
                found.append([e.fitness for e in population.scores()])

    quiet_trainer(pl, tmp_path, callbacks=[Score()], max_epochs=1).fit(
        seeded(lambda: classifier(pl)(mlp(0.5))), **loaders()
    )
    for fitness in found:
        assert fitness[0] == fitness[2]
        assert fitness[1] == fitness[3]
    assert found[0] != found[1]


@pytest.mark.parametrize("evaluator", ["trainer", "vectorized"])
def test_only_crashed_candidates_are_an_error_that_says_why(tmp_path, evaluator):
    class Crashing(classifier(pl)):
        def training_step(self, batch, batch_idx):
            if isinstance(self.criterion, TaylorGLOLoss):
                raise RuntimeError("not with this loss")
            return super().training_step(batch, batch_idx)

    with pytest.raises(SearchError, match=r"None of 16 candidates(?s:.*)not with this loss(?s:.*)pass resume=False"):
        fit(tmp_path, Crashing(), evaluator=evaluator)


def bad(criterion):
    """Whether to fail with this loss: with some candidates, not with all."""
    return isinstance(criterion, TaylorGLOLoss) and bool(criterion.theta.sum() > 1)


def test_divergence(tmp_path):
    class Huge(classifier(pl)):
        def configure_optimizers(self):
            lr = 1e30 if bad(self.criterion) else 0.1
            return torch.optim.SGD(self.parameters(), lr=lr)

    search = fit(tmp_path, Huge(), budget=Budget(steps=6))
    assert {c.status for c in search.result.history} == {"ok", "diverged"}
    assert all((c.status == "diverged") == (sum(theta_of(c)) > 1) for c in search.result.history)


def test_a_metric_that_is_not_finite(tmp_path):
    class Nan(classifier(pl)):
        def validation_step(self, batch, batch_idx):
            self.log("val/acc", float("nan") if bad(self.criterion) else 0.5)

    search = fit(tmp_path, Nan())
    assert {c.status for c in search.result.history} == {"ok", "diverged"}


def test_seeds_that_make_no_difference(tmp_path):
    train, val = loaders().values()
    data = {"train_dataloaders": loader(train.dataset), "val_dataloaders": val}
    with pytest.warns(UserWarning, match="had the same val/acc from each of 2 seeds.*init='reset'"):
        fit(tmp_path, seeded(classifier(pl)), data, finals=Finals(1, 0, 2))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The winner and the original")
        fit(tmp_path, seeded(classifier(pl)), data, finals=Finals(1, 0, 2), init="reset")


@pytest.mark.parametrize("evaluator", ["trainer", "vectorized"])
def test_interrupt(tmp_path, monkeypatch, evaluator):
    """Ctrl-C during the search ends as it does in Lightning, and leaves random states and log levels as they were."""

    class Interrupted(classifier(pl)):
        steps = 0

        def training_step(self, batch, batch_idx):
            Interrupted.steps += 1
            if Interrupted.steps > 8:
                raise KeyboardInterrupt
            return super().training_step(batch, batch_idx)

    monkeypatch.setattr(signal, "signal", lambda *args: None)
    levels = {name: logging.getLogger(name).level for name in ("pytorch_lightning", "lightning.pytorch")}
    module = Interrupted()
    data = loaders()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        fit(tmp_path, module, data, evaluator=evaluator)
    assert states[:2] == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert torch.equal(states[2], torch.get_rng_state())
    assert levels == {name: logging.getLogger(name).level for name in levels}
    assert type(module.criterion) is nn.CrossEntropyLoss


def test_attention_can_be_reset(tmp_path):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.out = nn.Linear(8, 3)

        def forward(self, x):
            x = x[:, None, :]
            return self.out(self.attention(x, x, x)[0][:, 0])

    search = fit(tmp_path, by_name()(Attention()), monitor="val/taylor", init="reset")
    assert search.result.failed == 0


def test_candidate_callbacks_are_copied(tmp_path):
    class Counter(pl.Callback):
        def __init__(self):
            self.steps = 0

        def on_train_batch_end(self, *args):
            self.steps += 1
            assert self.steps <= 2, "shared between candidates"

    counter = Counter()
    search = fit(tmp_path, classifier(pl)(), budget=Budget(steps=2, callbacks=[counter]))
    assert search.result.failed == 0
    assert counter.steps == 0


def test_two_losses_of_one_module(tmp_path):
    class Two(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = mlp()
            self.first = nn.CrossEntropyLoss()
            self.second = nn.CrossEntropyLoss()

        def training_step(self, batch, batch_idx):
            x, y = batch
            return self.first(self.net(x), y) + self.second(self.net(x), y)

        def validation_step(self, batch, batch_idx):
            for name in ("first", "second"):
                self.log(name, float(isinstance(getattr(self, name), TaylorGLOLoss)))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    module = Two()
    searches = [
        TaylorGLO(name, name, evaluator="trainer", seed=i, **TINY) for i, name in enumerate(["first", "second"])
    ]
    trainer = quiet_trainer(pl, tmp_path, callbacks=searches, max_epochs=1)
    trainer.fit(module, **loaders())
    assert module.first.theta.tolist() == theta_of(searches[0].result.best)
    assert module.second.theta.tolist() == theta_of(searches[1].result.best) != module.first.theta.tolist()
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    again = [TaylorGLO(name, name) for name in ("first", "second")]
    trainer = quiet_trainer(pl, tmp_path, callbacks=again, max_epochs=2)
    trainer.fit(Two(), **loaders(), ckpt_path=tmp_path / "two.ckpt")
    assert [theta_of(c.result.best) for c in again] == [theta_of(c.result.best) for c in searches]


def test_the_module_and_the_callback_can_be_copied(tmp_path):
    module = by_name()()
    search = fit(tmp_path, module, monitor="val/taylor")
    assert copy.deepcopy(search).result.to_dict() == search.result.to_dict()
    assert copy.deepcopy(module).criterion.theta.tolist() == theta_of(search.result.best)


def test_datamodule_is_set_up_once(api, tmp_path):
    data = split_datamodule(api)
    search = fit(tmp_path, classifier(api)(cnn()), {"datamodule": split_datamodule(api, images=True)}, api=api)
    assert search.result.failed == 0
    search = fit(tmp_path, classifier(api)(), {"datamodule": data}, api=api)
    assert data.calls == 1
    assert data.trainer is not None
    assert accuracy(torch.eye(3), torch.arange(3)) == 1
