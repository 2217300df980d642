"""The report of a search on a module of the user's: the code that it gives runs, and does what it says."""

import html
import os
import re

import pytest
import pytorch_lightning as pl
import torch
from helpers.data import blobs
from helpers.modules import TINY, classifier, cnn, quiet_trainer, seeded
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from tglo_lightning import AttractionMonitor, TaylorGLO
from tglo_lightning.reporting import write_report
from tglo_lightning.reporting.html.blocks import Code
from tglo_lightning.reporting.html.files import RunFiles
from tglo_lightning.reporting.html.sections.loss import loss
from tglo_lightning.search import Criterion, Finalist, Finals, LossSpec, SearchResult, minimize
from tglo_lightning.search.journal import Journal

pytest.importorskip("matplotlib")
WEIGHT = torch.tensor([0.2, 1.0, 3.1])
SPECS = {
    "quadratic": LossSpec("taylorglo", (0.1, 0.2, 1.5, -0.3, 1.1)),
    "cubic": LossSpec("taylorglo", (0.1, 0.2, 1.5, -0.3, 1.1, 0.4, -1.2, 1 / 3)),
    "gce": LossSpec("gce", (0.6,)),
    "smoothing": LossSpec("smoothing", (0.1,)),
}


def codes(path, section):
    """The code that a section of a report shows."""
    text = path.read_text()
    part = text[text.index(f'<section id="{section}"') :]
    return list(
        map(html.unescape, re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", part[: part.index("</section>")], re.S))
    )


def values(loss):
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    return loss(logits, torch.tensor([0, 1, 2, 1] * 3))


def built(*specs):
    """What the code in the section on the loss makes, for an original loss of one's own."""
    original = Finalist(Criterion.original(), "loss", (0.5, 0.6))
    best = Finalist(Criterion(specs, 0.5), "finalist 1", (0.9, 0.8), 0.9, 0)
    result = SearchResult("metalearned", "val/acc", "max", best, original, (best,), ())
    blocks = loss(RunFiles("search", search=result)).blocks
    assert "at 0.5 times the learning rate" in blocks[-1].words
    [code] = [block.source for block in blocks if isinstance(block, Code)]
    scope = {}
    exec(code.replace("CrossEntropyLoss()", "CrossEntropyLoss(torch.tensor([0.2, 1.0, 3.1]), ignore_index=1)"), scope)
    return scope


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_code_of_the_loss_builds_that_loss(spec):
    expected = spec.build(nn.CrossEntropyLoss(WEIGHT, ignore_index=1))
    torch.testing.assert_close(values(built(spec)["criterion"]), values(expected), rtol=0, atol=0)


def test_the_code_of_several_losses_builds_each():
    specs = list(SPECS.values())
    scope = built(*specs)
    for i, spec in enumerate(specs):
        assert torch.equal(
            values(scope[f"criterion_{i}"]), values(spec.build(nn.CrossEntropyLoss(WEIGHT, ignore_index=1)))
        )


def test_the_code_after_a_search_in_plain_pytorch(tmp_path):
    x, y = blobs(48).tensors
    rates = []

    def error(loss):
        net = nn.Linear(8, 3)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        loss(net(x), y).backward()
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        return (net(x).argmax(1) != y).float().mean()

    options = {"generations": 1, "population": 4, "space": "gce", "finals": Finals(1, 0, 2), "progress": False}
    result = minimize(error, 3, journal=tmp_path / "search.jsonl", **options)
    result.save(tmp_path / "search.json")
    path = write_report(tmp_path)
    scope = {"test_fn": error}
    rates.clear()
    exec(codes(path, "comparison")[0].replace("1005", "1002"), scope)
    assert torch.equal(values(scope["criterion"]), values(result.best.criterion.build()))
    assert list(map(len, scope["scores"].values())) == [2, 2]
    assert rates == pytest.approx([0.1, 0.1 * result.best.criterion.step] * 2)
    assert "tglo-train" not in path.read_text()


class Images(classifier(pl)):
    """A module of the user's, with class weights."""

    def __init__(self):
        super().__init__(cnn(), nn.CrossEntropyLoss(weight=WEIGHT))


def images(seed):
    x, y = blobs(48, seed=seed, images=True).tensors
    return TensorDataset(x.sigmoid(), y)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Search and fit with the callback: the callback, the module, its data, and the report as it was in between."""
    folder = tmp_path_factory.mktemp("own")
    datamodule = pl.LightningDataModule.from_datasets(*map(images, (1, 2, 3)), batch_size=16)
    search = TaylorGLO(**TINY | {"report": True}, evaluator="sequential")
    between = []

    class Between(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            between.append((search.directory / "report.html").read_text())

    module = seeded(Images)
    callbacks = [search, AttractionMonitor(samples=20), Between()]
    trainer = quiet_trainer(pl, folder, max_epochs=3, gradient_clip_val=2.5, callbacks=callbacks)
    trainer.fit(module, datamodule=datamodule)
    return search, datamodule, between[0]


def drawn(text, section):
    part = text[text.index(f'<section id="{section}"') :]
    return part[: part.index("</section>")].count("<svg")


def test_the_report_is_there_after_the_search_and_whole_after_the_fit(own):
    search, _, between = own
    after = (search.directory / "report.html").read_text()
    assert [drawn(between, name) for name in ("finalists", "curves", "attraction")] == [1, 0, 0]
    assert "The fit that follows the search is not over." in between
    assert [drawn(after, name) for name in ("finalists", "curves", "attraction")] == [
        1,
        2,
        1 + (search.result.kept == "metalearned"),
    ]
    assert "Epoch by epoch" in after
    assert write_report(search.directory).read_text() == after
    # No command of ours knows the module
    for text in (between, after):
        assert "tglo-train" not in text
        assert "tglo-attack" not in text


def test_the_code_for_a_module_compares(own):
    search, datamodule, _ = own
    path = search.directory / "report.html"
    quiet = "Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)"
    scope = {"Images": Images, "datamodule": datamodule, "search": search}
    code = codes(path, "comparison")[0].replace("Trainer()", quiet).replace("1005", "1001")
    exec(code, scope)
    assert torch.equal(
        values(scope["module"].criterion), values(search.result.best.criterion.build(nn.CrossEntropyLoss(WEIGHT)))
    )
    assert list(map(len, scope["scores"].values())) == [1, 1]


class Inline(classifier(pl)):
    """Calls one loss inline, with class weights, and another one as a module."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        own = F.cross_entropy(self(x), y, weight=WEIGHT, label_smoothing=0.1)
        return own + self.criterion(self(x), y)


def test_the_code_for_losses_called_inline_compares(tmp_path):
    datamodule = pl.LightningDataModule.from_datasets(*(blobs(48, seed=seed) for seed in (1, 2, 3)), batch_size=16)
    losses = ["F.cross_entropy", "criterion"]
    search = TaylorGLO(loss=losses, **TINY | {"report": True}, evaluator="sequential")
    quiet_trainer(pl, tmp_path, max_epochs=1, callbacks=[search]).fit(seeded(Inline), datamodule=datamodule)
    [code] = codes(search.directory / "report.html", "comparison")
    quiet = "Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)"
    scope = {"Inline": Inline, "datamodule": datamodule}
    exec(code.replace("Trainer()", quiet).replace("1005", "1001"), scope)
    module, other = scope["module"], Inline()
    other.load_state_dict({name: value for name, value in module.state_dict().items() if name.startswith("net.")})
    search.slots.install(other, search.result.best.criterion)
    batch = next(iter(datamodule.train_dataloader()))
    torch.testing.assert_close(module.training_step(batch, 0), other.training_step(batch, 0), rtol=0, atol=0)
    assert not torch.equal(module.training_step(batch, 0), Inline.training_step(module, batch, 0))


def test_a_report_that_cannot_be_written_costs_no_fit(tmp_path, monkeypatch):
    monkeypatch.setattr("tglo_lightning.reporting.html.files.Fit.save", lambda *_: 1 / 0)
    search = TaylorGLO(**TINY | {"report": True}, evaluator="sequential")
    trainer = quiet_trainer(pl, tmp_path, max_epochs=1, callbacks=[search])
    trainer.fit(Images(), datamodule=pl.LightningDataModule.from_datasets(images(1), images(2), batch_size=16))
    assert trainer.current_epoch == 1
    assert not (search.directory / "fit.json").exists()


def test_no_report_no_files(tmp_path):
    search = TaylorGLO(**TINY, evaluator="sequential")
    trainer = quiet_trainer(pl, tmp_path, max_epochs=1, callbacks=[search])
    trainer.fit(Images(), datamodule=pl.LightningDataModule.from_datasets(images(1), images(2), batch_size=16))
    assert sorted(os.listdir(search.directory)) == ["search.json", "search.jsonl"]


def finals(folder, init, ours, theirs):
    """The report of a search with these finals."""
    best = Finalist(Criterion((SPECS["cubic"],)), "finalist 1", ours, 0.9, 0)
    original = Finalist(Criterion.original(), "CrossEntropyLoss", theirs)
    result = SearchResult("metalearned", "val/acc", "max", best, original, (best,), (), settings={"num_classes": 3})
    result.save(folder / "search.json")
    Journal(folder / "search.jsonl", {"loss": ["criterion"]} | ({"init": init} if init else {})).close()
    return html.unescape(write_report(folder).read_text())


@pytest.mark.parametrize(
    ("init", "told"),
    [
        ("module", 'all trainings start from the same weights, those of the module (init="module")'),
        ("reset", 'Each fresh seed draws new initial weights too (init="reset")'),
        ("function", "starts from the weights of a new module"),
        (None, ""),
    ],
)
def test_it_says_what_a_fresh_seed_changes(tmp_path, init, told):
    text = finals(tmp_path, init, (0.8, 0.9), (0.5, 0.6))
    assert text.count(told) == 2 if init else "init=" not in text
    if init:
        assert re.search(f">init</t[hd]>\\s*<td[^>]*>{init}<", text)
    assert "mean ± standard deviation over 2 fresh seeds" in text
    assert "The seeds made no difference" not in text


def test_seeds_that_make_no_difference_count_as_one_training(tmp_path):
    text = finals(tmp_path, "module", (0.9, 0.9), (0.5, 0.5))
    assert "val/acc, the same from each of 2 fresh seeds" in text
    assert text.count('no shuffling, no dropout, init="module". More seeds change nothing. So the comp') == 2
    assert "more seeds are needed" not in text
    assert "mean ± standard deviation" not in text


def test_a_single_training_has_no_deviation(tmp_path):
    text = finals(tmp_path, "module", (0.9,), (0.5,))
    assert "0.9000 (n\u00a0=\u00a01)" in text
    assert "val/acc, one training of each loss" in text
    assert "±" not in text.replace("scaled to ±1", "")
