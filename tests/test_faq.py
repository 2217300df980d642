"""The messages that the documentation's page of questions explains, each made by the mistake it is about."""

import re
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch.nn.functional as F
from helpers.data import blobs, loader, loaders
from helpers.modules import TINY, accuracy, classifier, mlp, quiet_trainer
from hydra import compose, initialize_config_dir
from torch import nn
from torch.utils.data import Subset

from tglo_lightning import TaylorGLO
from tglo_lightning.cli import commands, explain
from tglo_lightning.cli.commands import CONFIG_DIR
from tglo_lightning.cli.given import given_loss
from tglo_lightning.cli.recipe import ConfigError, Recipe
from tglo_lightning.search import SearchError

PAGE = (Path(__file__).parents[1] / "docs" / "faq.md").read_text(encoding="utf-8")
HEADINGS = [re.sub(r"\s*\.\.\.$", "", heading) for heading in re.findall(r"^### `` (.*) ``$", PAGE, re.MULTILINE)]


def explained(message: str, part: str) -> None:
    """``part`` is in the page, and the heading it belongs to is what the message says."""
    heading = next(heading for heading in HEADINGS if part in heading)
    for piece in heading.split("..."):
        assert piece.strip() in " ".join(message.split()), (heading, message)


class Net(classifier(pl)):
    pass


class Inline(Net):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])


class Two(Net):
    def training_step(self, batch, batch_idx):
        logits = self(batch[0])
        first = F.cross_entropy(logits, batch[1])
        return first + F.cross_entropy(2 * logits, batch[1])


class Written(Net):
    def training_step(self, batch, batch_idx):
        return -self(batch[0]).log_softmax(1)[:, 0].mean()


class Static(Inline):
    def __init__(self):
        pl.LightningModule.__init__(self)
        self.net, self.lr = mlp(), 0.1

    criterion = staticmethod(F.cross_entropy)


class Lambda(Net):
    def __init__(self):
        super().__init__()
        self.step = lambda x, y: self.criterion(self.net(x), y)

    def training_step(self, batch, batch_idx):
        return self.step(*batch)


class WithLoss(Net):
    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.criterion(self(batch[0]), batch[1]))


class OnlyAccuracy(Net):
    def training_step(self, batch, batch_idx):
        return self.criterion(self(batch[0]), batch[1])


class NoMetric(Net):
    def validation_step(self, batch, batch_idx):
        self.log("val/acc", accuracy(self(batch[0]), batch[1]) * float("nan"))


class Manual(Net):
    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.criterion(self(batch[0]), batch[1]))
        optimizer.step()


def fit(module, tmp_path, data=None, **options):
    search = TaylorGLO(**(TINY | {"evaluator": "trainer"} | options))
    quiet_trainer(pl, tmp_path, max_epochs=1, callbacks=[search]).fit(module, **(data or loaders()))
    return search


@pytest.mark.parametrize(
    ("module", "options", "part"),
    [
        (Net, {"loss": "loss_fn"}, "Losses found"),
        (Two, {}, "calls 2 losses"),
        (Written, {}, "calls no loss"),
        (Inline, {"loss": "criterion"}, "does not call it"),
        (Static, {"loss": "criterion"}, "belongs to the class"),
        (lambda: Net(criterion=nn.MultiMarginLoss()), {"loss": "criterion"}, "MultiMarginLoss"),
        (Lambda, {}, "reached net.0.weight"),
        (lambda: Net(nn.Linear(8, 2)), {}, "has 2 outputs"),
        (OnlyAccuracy, {"monitor": "val_acc"}, "val_acc"),
        (WithLoss, {"monitor": "val/loss", "mode": "min"}, "is computed from"),
    ],
    ids=["path", "two", "none", "inline", "class", "margin", "lambda", "outputs", "monitor", "monitor-loss"],
)
def test_errors(module, options, part, tmp_path):
    built = module()
    with pytest.raises((ValueError, RuntimeError)) as caught:
        fit(built, tmp_path, **options)
    explained(str(caught.value).replace(type(built).__name__, "Net"), part)


@pytest.mark.parametrize(("stage", "part"), [("val", "validation loader"), ("train", "training loader")])
def test_empty_loaders(stage, part, tmp_path):
    with pytest.raises(ValueError, match="no batch") as caught:
        fit(Net(), tmp_path, data=loaders() | {f"{stage}_dataloaders": loader(Subset(blobs(), []))})
    explained(str(caught.value), part)


@pytest.mark.filterwarnings("ignore:No candidate of generation")
def test_no_candidate_could_be_trained(tmp_path):
    with pytest.raises(SearchError) as caught:
        fit(NoMetric(), tmp_path)
    explained(str(caught.value), "could be trained")


def test_fallback(tmp_path):
    with pytest.warns(UserWarning, match="cannot be trained by") as caught:
        fit(Manual(), tmp_path, evaluator="vectorized")
    messages = " ".join(str(warning.message) for warning in caught)
    explained(messages.replace("Manual", "Net"), "cannot be trained by")


def test_journal_of_another_search(tmp_path):
    journal = tmp_path / "search.jsonl"
    fit(Net(), tmp_path, journal=journal)
    with pytest.raises(ValueError, match="journal of another search") as caught:
        fit(Net(), tmp_path, journal=journal, population=6)
    explained(str(caught.value), "is the journal of another search")


def test_checkpoint_of_a_metalearned_loss(tmp_path):
    from tglo_lightning.losses import TaylorGLOLoss

    quiet = quiet_trainer(pl, tmp_path, max_epochs=1)
    quiet.fit(Net(criterion=TaylorGLOLoss([0.0, 0.5, 0.0, 0.0, 0.0, 2.0, -2.0, 0.0])), **loaders())
    quiet.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(RuntimeError) as caught:
        Net.load_from_checkpoint(tmp_path / "last.ckpt")
    explained(str(caught.value), "Unexpected key(s)")


@pytest.mark.parametrize(
    ("command", "arguments", "part"),
    [
        ("train", ["search.popluation=3"], "popluation"),
        ("attack", ["ckpt=epoch=11-step=288.ckpt"], "mismatched input"),
    ],
)
def test_command_lines(monkeypatch, capsys, command, arguments, part):
    monkeypatch.setattr("sys.argv", [f"tglo-{command}", *arguments])
    with pytest.raises(SystemExit):
        getattr(commands, command)()
    explained(capsys.readouterr().err, part)


def test_configs():
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        with pytest.raises(ConfigError) as caught:
            Recipe(compose("train", overrides=["search.population=1", "paths.output_dir=."]))
        explained(f"tglo-train: {caught.value}", "at least 2")
    with pytest.raises(ValueError, match="theta") as caught:
        given_loss([1, 2, 3])
    explained(f"tglo-train: loss: {caught.value}", "in its last dimension")


def test_explain_of_an_unknown_loss(capsys):
    assert explain.main(["hinge"]) == 2
    explained(capsys.readouterr().err, "unknown loss 'hinge'")
