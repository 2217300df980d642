"""Which evaluator is taken, and why another one is not."""

import re
import warnings

import pytest
import pytorch_lightning as pl
import torch
from helpers.data import loaders
from helpers.modules import TINY, classifier, quiet_trainer, seeded
from torch import nn

from tglo_lightning import TaylorGLO
from tglo_lightning.evaluation import ProcessEvaluator, TrainerEvaluator, VectorizedEvaluator, auto

Classifier = classifier(pl)


def search(tmp_path, module, evaluator, data=None, **trainer_kwargs):
    """The result of a search by ``evaluator``, and the warnings on the way."""
    callback = TaylorGLO(**TINY, evaluator=evaluator)
    trainer = quiet_trainer(pl, tmp_path, callbacks=[callback], **{"max_epochs": 1} | trainer_kwargs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, **(data or loaders()))
    return callback.result, [str(w.message) for w in caught if "Falling back" in str(w.message)]


class Manual(Classifier):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.criterion(self(batch[0]), batch[1]))
        optimizer.step()


class Lbfgs(Classifier):
    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=2)


class Plateau(Classifier):
    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/acc"}}


class Hooked(Classifier):
    def on_after_backward(self):
        self.net[0].bias.grad.zero_()


class Closure(Classifier):
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        optimizer.step(closure=optimizer_closure)


class Branches(Classifier):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return 0.5 * loss if loss > 1 else loss


class Items(Classifier):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss / max(loss.item(), 1.0)


class Counts(Classifier):
    count = 0

    def training_step(self, batch, batch_idx):
        self.count = self.count + 1
        return super().training_step(batch, batch_idx) / self.count


class Collects(Classifier):
    def __init__(self):
        super().__init__()
        self.losses = []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.detach())
        return loss


class Reassigns(Classifier):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def training_step(self, batch, batch_idx):
        self.mean = 0.9 * self.mean + 0.1 * batch[0].mean(0)
        return self.criterion(self(batch[0] - self.mean), batch[1])


class InPlace(Classifier):
    def training_step(self, batch, batch_idx):
        batch[0].mul_(2.0)
        return super().training_step(batch, batch_idx)


class Skips(Classifier):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss if batch_idx else None


class Recurrent(Classifier):
    """Its parameters are also held where nobody sees them."""

    def __init__(self):
        super().__init__()
        self.net = nn.GRU(8, 3, batch_first=True)

    def forward(self, x):
        return self.net(x[:, None])[0][:, 0]


class Watch(pl.Callback):
    def on_train_batch_end(self, *args):
        pass


REFUSED = {
    Manual: "it optimises manually",
    Lbfgs: "LBFGS is not known to be elementwise",
    Plateau: "its schedule follows a metric",
    Hooked: "it overrides on_after_backward",
    Closure: "it overrides optimizer_step",
    Branches: "control flow",
    Items: r"\.item\(\)",
    Counts: "training_step changes count",
    Collects: "training_step changes losses",
    Reassigns: "training_step assigns mean anew",
    InPlace: "changes its batch in place",
    Skips: "does not return a scalar loss",
    Recurrent: ".",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refusal_is_one_warning_with_its_reason_and_a_search_that_works(tmp_path, kind):
    module = seeded(kind)
    result, said = search(tmp_path, module, "vectorized")
    assert len(said) == 1
    assert re.search(f"{kind.__name__} cannot be trained by the evaluator 'vectorized': .*{REFUSED[kind]}", said[0])
    assert "'trainer'" in said[0]
    assert result.settings["evaluator"] == "trainer"
    assert result.failed == 0


def test_candidate_callback_that_follows_batches(tmp_path):
    callback = TaylorGLO(**TINY, evaluator="vectorized", candidate_callbacks=[Watch()])
    with pytest.warns(UserWarning, match="Watch overrides on_train_batch_end"):
        quiet_trainer(pl, tmp_path, callbacks=[callback], max_epochs=1).fit(seeded(Classifier), **loaders())


def test_metric_that_is_only_logged_in_training(tmp_path):
    class InTraining(Classifier):
        def training_step(self, batch, batch_idx):
            logits = self(batch[0])
            self.log("acc", (logits.argmax(1) == batch[1]).float().mean())
            return self.criterion(logits, batch[1])

    callback = TaylorGLO(**TINY, evaluator="vectorized", monitor="acc")
    with pytest.warns(UserWarning, match="'acc' is not known after validation"):
        quiet_trainer(pl, tmp_path, callbacks=[callback], max_epochs=1).fit(seeded(InTraining), **loaders())
    assert callback.result.failed == 0


def test_workers_fall_back_to_nested_trainers(tmp_path):
    evaluator = ProcessEvaluator(2, inner=VectorizedEvaluator(chunk_size=1))
    result, said = search(tmp_path, seeded(Manual), evaluator)
    assert len(said) == 1
    assert result.settings["evaluator"] == "processes"


@pytest.mark.parametrize("name", ["trainer", "vectorized", "sequential", "processes", "processes-sequential"])
def test_names(tmp_path, name):
    result, said = search(tmp_path, seeded(Classifier), name)
    assert not said
    assert result.settings["evaluator"] == name
    assert result.failed == 0


def test_evaluators_agree(tmp_path):
    results = [
        search(tmp_path, seeded(Classifier), evaluator)[0]
        for evaluator in ("trainer", "vectorized", ProcessEvaluator(2), VectorizedEvaluator(chunk_size=3))
    ]
    for result in results[1:]:
        assert [c.fitness for c in result.history] == pytest.approx([c.fitness for c in results[0].history])
        assert result.best.theta == results[0].best.theta
        assert result.original.fitness == pytest.approx(results[0].original.fitness)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Classifier, ["vectorized", "sequential", "processes-sequential"]),
        (Branches, ["trainer", "processes"]),
    ],
)
def test_auto_says_in_one_line_what_and_why(tmp_path, monkeypatch, kind, names):
    lines = []
    monkeypatch.setattr(auto, "tell", lines.append)
    monkeypatch.setattr(ProcessEvaluator, "count", lambda self: 2)
    result, said = search(tmp_path, seeded(kind), "auto")
    assert not said
    before, line = lines
    assert before == "TaylorGLO tries which evaluator is the fastest here."
    assert "\n" not in line
    assert result.settings["evaluator"] in names
    assert f"evaluator {result.settings['evaluator']!r}, the fastest here" in line
    assert all(re.search(rf"{name} [\d.e-]+ s", line) for name in names)
    assert ("control flow" in line) == (kind is Branches)
    again, _ = search(tmp_path, seeded(kind), result.settings["evaluator"])
    assert [c.fitness for c in again.history] == [c.fitness for c in result.history]


@pytest.mark.parametrize("fastest", ["vectorized", "sequential", "processes-sequential"])
def test_auto_takes_the_fastest(tmp_path, monkeypatch, fastest):
    monkeypatch.setattr(ProcessEvaluator, "count", lambda self: 2)
    monkeypatch.setattr(auto, "_seconds", lambda evaluator, *_: 1.0 if evaluator.name == fastest else 2.0)
    result, _ = search(tmp_path, seeded(Classifier), "auto")
    assert result.settings["evaluator"] == fastest


def test_auto_leaves_out_what_fails(tmp_path, monkeypatch):
    def crowded(self, thetas, seed):
        raise MemoryError

    monkeypatch.setattr(ProcessEvaluator, "count", lambda self: 1)
    monkeypatch.setattr(auto, "obstacle", lambda fit: None)
    monkeypatch.setattr(VectorizedEvaluator, "evaluate", crowded)
    monkeypatch.setitem(auto.EVALUATORS, "sequential", TrainerEvaluator)
    result, _ = search(tmp_path, seeded(Classifier), "auto")
    assert result.settings["evaluator"] == "trainer"


def test_auto_leaves_the_fit_as_it_was(tmp_path):
    def outcome(evaluator):
        module = seeded(Classifier)
        result, _ = search(tmp_path, module, evaluator)
        return result.kept, {n: v for n, v in module.state_dict().items() if "theta" not in n}

    kept, weights = outcome("trainer")
    kept_too, weights_too = outcome("auto")
    assert kept == kept_too
    assert all(torch.allclose(weights[n], weights_too[n], atol=1e-5) for n in weights)


def test_object_of_ones_own(tmp_path):
    class Own(TrainerEvaluator):
        name = "own"
        closed = False

        def close(self):
            self.closed = True

    evaluator = Own()
    result, _ = search(tmp_path, seeded(Classifier), evaluator)
    assert result.settings["evaluator"] == "own"
    assert evaluator.closed


@pytest.mark.parametrize(
    ("evaluator", "error", "match"),
    [
        ("quantum", ValueError, "'auto', 'trainer', 'vectorized'"),
        (object(), TypeError, "setup, evaluate and close"),
        (None, TypeError, "setup, evaluate and close"),
        (VectorizedEvaluator, TypeError, "an instance"),
    ],
)
def test_unknown_evaluators(evaluator, error, match):
    with pytest.raises(error, match=match):
        TaylorGLO(evaluator=evaluator)
