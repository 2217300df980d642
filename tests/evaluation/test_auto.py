"""Which evaluator is taken, and why another one is not."""

import re
import warnings

import pytest
import pytorch_lightning as pl
import torch
from helpers.data import loaders
from helpers.fits import CRITERIA, fitness, inner_fit, nested
from helpers.modules import classifier, manual, seeded
from torch import nn
from torchmetrics import MaxMetric

from tglo_lightning import TaylorGLO
from tglo_lightning.evaluation import ProcessEvaluator, TrainerEvaluator, VectorizedEvaluator, auto, choose_evaluator
from tglo_lightning.evaluation.auto import obstacle
from tglo_lightning.search import Budget

Classifier, Manual = classifier(pl), manual(pl)


def fit_of(tmp_path, module, **kwargs):
    return inner_fit(pl, tmp_path, module, **kwargs)


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
        self.ended = True


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
def test_what_cannot_be_a_population_says_why(tmp_path, kind):
    assert re.search(REFUSED[kind], obstacle(fit_of(tmp_path, seeded(kind))))


def test_nested_trainers_take_its_place_with_one_warning(tmp_path):
    with pytest.warns(UserWarning, match="Manual cannot be trained.*manually. Falling back to 'trainer'") as told:
        chosen = choose_evaluator("vectorized", fit_of(tmp_path, seeded(Manual)), 4)
    assert chosen.name == "trainer"
    assert len(told) == 1


def test_candidate_callback_that_follows_batches(tmp_path):
    fit = fit_of(tmp_path, seeded(Classifier), budget=Budget(steps=3, callbacks=[Watch()]))
    assert obstacle(fit) == "Watch overrides on_train_batch_end"


def test_metric_that_is_only_logged_in_training(tmp_path):
    class InTraining(Classifier):
        def training_step(self, batch, batch_idx):
            logits = self(batch[0])
            self.log("acc", (logits.argmax(1) == batch[1]).float().mean())
            return self.criterion(logits, batch[1])

    assert obstacle(fit_of(tmp_path, seeded(InTraining), monitor="acc")) == "'acc' is not known after validation"


class Template(Classifier):
    """Hooks that wait to be filled in, and one that prepares a training, as templates of projects have them."""

    def __init__(self):
        super().__init__()
        self.best = MaxMetric()

    def on_train_start(self):
        self.best.reset()
        torch.nn.init.zeros_(self.net[0].bias)

    def on_train_epoch_end(self):
        "Called when a training epoch ends."

    def on_train_batch_start(self, batch, batch_idx):
        pass


def adam(bias):
    class BeforeBatchNorm(Classifier):
        """The gradient of the bias is rounding noise, of which Adam makes a full step."""

        def __init__(self):
            super().__init__(
                nn.Sequential(nn.Linear(8, 16, bias=bias), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
            )

        def validation_step(self, batch, batch_idx):
            self.log("val/acc", nn.functional.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.02)

    return BeforeBatchNorm


@pytest.mark.parametrize("kind", [Template, adam(True), adam(False)], ids=["template", "bias", "no bias"])
def test_what_makes_no_difference_is_no_obstacle(tmp_path, kind):
    fit = fit_of(tmp_path, seeded(kind))
    assert obstacle(fit) is None
    assert fitness(VectorizedEvaluator(), fit, CRITERIA[:2]) == pytest.approx(nested(fit, CRITERIA[:2]), rel=0.05)


def test_a_difference_is_an_obstacle(tmp_path, monkeypatch):
    fit = fit_of(tmp_path, seeded(Classifier))
    step = auto.VectorizedEvaluator.start
    monkeypatch.setattr(VectorizedEvaluator, "start", lambda self, criteria, seed: step(self, criteria[::-1], seed))
    assert obstacle(fit) == "net.0.weight differs from what the Trainer makes of it"


@pytest.mark.parametrize("name", ["trainer", "vectorized", "sequential"])
def test_names(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = choose_evaluator(name, fit_of(tmp_path, seeded(Classifier)), 4)
    assert chosen.name == name


@pytest.mark.parametrize(("kind", "names"), [(Classifier, ["vectorized", "sequential"]), (Branches, ["trainer"])])
def test_auto_says_in_one_line_what_and_why(tmp_path, monkeypatch, kind, names):
    lines = []
    monkeypatch.setattr(auto, "tell", lines.append)
    chosen = choose_evaluator("auto", fit_of(tmp_path, seeded(kind)), 4, processes=False)
    before, line = lines
    assert before == "TaylorGLO tries which evaluator is the fastest here."
    assert "\n" not in line
    assert chosen.name in names
    assert f"evaluator {chosen.name!r}, the fastest here" in line
    assert all(re.search(rf"{name} [\d.e-]+ s", line) for name in names)
    assert ("control flow" in line) == (kind is Branches)


@pytest.mark.parametrize("fastest", ["vectorized", "sequential", "processes-sequential"])
def test_auto_takes_the_fastest(tmp_path, monkeypatch, fastest):
    monkeypatch.setattr(ProcessEvaluator, "count", lambda self: 2)
    monkeypatch.setattr(auto, "seconds_per_candidate", lambda evaluator, *_: 1.0 if evaluator.name == fastest else 2.0)
    assert choose_evaluator("auto", fit_of(tmp_path, seeded(Classifier)), 4).name == fastest


def test_auto_leaves_out_what_fails(tmp_path, monkeypatch):
    def crowded(self, criteria, seed):
        raise MemoryError

    monkeypatch.setattr(auto, "obstacle", lambda fit: None)
    monkeypatch.setattr(VectorizedEvaluator, "start", crowded)
    monkeypatch.setitem(auto.EVALUATORS, "sequential", TrainerEvaluator)
    assert choose_evaluator("auto", fit_of(tmp_path, seeded(Classifier)), 4, processes=False).name == "trainer"


def test_object_of_ones_own(tmp_path):
    class Own(TrainerEvaluator):
        name = "own"

    evaluator = Own()
    fit = fit_of(tmp_path, seeded(Classifier))
    assert choose_evaluator(evaluator, fit, 4) is evaluator
    assert evaluator.fit is fit


@pytest.mark.parametrize(
    ("evaluator", "error", "match"),
    [
        ("quantum", ValueError, "'auto', 'trainer', 'vectorized'"),
        (object(), TypeError, "setup, start and close"),
        (None, TypeError, "setup, start and close"),
        (VectorizedEvaluator, TypeError, "an instance"),
    ],
)
def test_unknown_evaluators(evaluator, error, match):
    with pytest.raises(error, match=match):
        TaylorGLO(evaluator=evaluator)


@pytest.mark.parametrize("evaluator", ["trainer", "vectorized"])
def test_the_search_of_either_leads_to_the_same_fit(tmp_path, evaluator):
    """Also where LightningCLI has bound one optimizer to ``configure_optimizers``."""
    from pytorch_lightning.cli import LightningCLI

    class Plain(Classifier):
        configure_optimizers = pl.LightningModule.configure_optimizers

    def run(*callbacks):
        options = ["--optimizer=Adam", "--optimizer.lr=0.01", "--lr_scheduler=ExponentialLR"]
        defaults = {
            "accelerator": "cpu",
            "max_epochs": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": tmp_path,
            "callbacks": list(callbacks),
        }
        cli = LightningCLI(
            Plain,
            run=False,
            save_config_callback=None,
            seed_everything_default=1,
            args=[*options, "--lr_scheduler.gamma=0.5"],
            trainer_defaults=defaults,
        )
        cli.trainer.fit(cli.model, **loaders())
        return [p.detach() for p in cli.model.parameters()]

    class Impossible(TaylorGLO):
        def _search(self, trainer, module):
            from dataclasses import replace

            result = super()._search(trainer, module)
            assert len({c.fitness for c in result.history}) > 1
            return replace(result, kept="original")

    search = Impossible(
        generations=1, population=4, budget=Budget(steps=6), finals=1, evaluator=evaluator, report=False
    )
    assert all(map(torch.equal, run(search), run()))
    assert search.result.settings["evaluator"] == evaluator
