"""The report of a search on a module of the user's: the code that it gives runs, and does what it says."""

import html
import os
import re
from dataclasses import replace
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from helpers.data import blobs
from helpers.modules import TINY, classifier, cnn, quiet_trainer, seeded
from markupsafe import Markup
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tglo_lightning import AttractionMonitor, TaylorGLO
from tglo_lightning.losses import loss_like, loss_options
from tglo_lightning.reporting import write_report
from tglo_lightning.reporting.html.files import RunFiles
from tglo_lightning.reporting.html.sections.loss import loss
from tglo_lightning.search import Finalist, SearchResult, minimize
from tglo_lightning.search.journal import Journal

pytest.importorskip("matplotlib")
WEIGHT = torch.tensor([0.2, 1.0, 3.1])
THETAS = {
    "smoothed": [2.5, 0.1],
    "quadratic": [0.1, 0.2, 1.5, -0.3, 1.1],
    "cubic": [0.1, 0.2, 1.5, -0.3, 1.1, 0.4, -1.2, 0.7],
    "quartic": [0.1, 0.2, 1.5, -0.3, 1.1, 0.4, -1.2, 0.7, 0.1, -0.2, 0.3, 1 / 3],
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


def shown(result):
    """The section on the loss that was found."""
    return str(Markup().join(loss(RunFiles("search", search=result)).blocks))


def found(theta, options, losses=1):
    best = Finalist(theta, "finalist 1", [0.9, 0.8], 0.9, 0, losses)
    settings = {"num_classes": 3, "losses": losses, "original_options": options}
    return SearchResult(
        "metalearned", "val/acc", "max", best, Finalist(None, "loss", [0.5, 0.6]), [best], [], 0, 1.0, settings
    )


@pytest.mark.parametrize("theta", THETAS.values(), ids=THETAS)
@pytest.mark.parametrize(
    "original",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=1, label_smoothing=0.1),
        nn.NLLLoss(WEIGHT, reduction="sum"),
        partial(F.cross_entropy, weight=WEIGHT, reduction="none"),
        F.cross_entropy,
    ],
    ids=lambda original: getattr(original, "__name__", type(original).__name__),
)
def test_the_code_of_the_loss_builds_that_loss(theta, original):
    result = found(theta, [loss_options(original)])
    result = SearchResult.from_dict(result.to_dict())
    scope = {}
    exec(html.unescape(re.search("<code>(.*?)</code>", shown(result), re.S)[1]), scope)
    torch.testing.assert_close(values(scope["criterion"]), values(result.loss(original)), rtol=0, atol=0)


def test_the_code_of_several_losses_builds_each():
    originals = [nn.CrossEntropyLoss(WEIGHT), nn.CrossEntropyLoss(ignore_index=2)]
    result = found(THETAS["cubic"] + THETAS["cubic"][::-1], list(map(loss_options, originals)), losses=2)
    scope = {}
    exec(html.unescape(re.search("<code>(.*?)</code>", shown(result), re.S)[1]), scope)
    for i, (original, theta) in enumerate(zip(originals, (THETAS["cubic"], THETAS["cubic"][::-1]), strict=True)):
        assert torch.equal(values(scope[f"criterion_{i}"]), values(loss_like(original, theta)))


def test_options_that_no_file_knows_are_not_passed_over():
    result = found(THETAS["cubic"], [])
    del result.settings["original_options"]
    assert "The options of the original loss were not recorded" in shown(result)


def test_the_code_after_a_search_in_plain_pytorch(tmp_path):
    x, y = blobs(48).tensors

    def error(loss):
        net = nn.Linear(8, 3)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        loss(net(x), y).backward()
        optimizer.step()
        return (net(x).argmax(1) != y).float().mean()

    original = nn.CrossEntropyLoss(weight=WEIGHT)
    settings = {"generations": 1, "population": 4, "finalists": 1, "repeats": 2, "progress": False}
    result = minimize(error, 3, original=original, journal=tmp_path / "search.jsonl", **settings)
    path = write_report(tmp_path)
    scope = {"test_fn": error}
    exec(codes(path, "loss")[0], scope)
    assert torch.equal(values(scope["criterion"]), values(replace(result, kept="metalearned").loss(original)))
    exec(codes(path, "comparison")[0].replace("1005", "1002"), scope)
    assert torch.equal(values(scope["original"]), values(original))
    assert list(map(len, scope["scores"].values())) == [2, 2]
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
    search = TaylorGLO(**TINY, evaluator="sequential")
    between = []

    class Between(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            between.append((search.directory / "report.html").read_text())

    module = seeded(Images)
    callbacks = [search, AttractionMonitor(samples=20), Between()]
    trainer = quiet_trainer(pl, folder, max_epochs=3, gradient_clip_val=2.5, callbacks=callbacks)
    trainer.fit(module, datamodule=datamodule)
    return search, module, datamodule, between[0]


def drawn(text, section):
    part = text[text.index(f'<section id="{section}"') :]
    return part[: part.index("</section>")].count("<svg")


def test_the_report_is_there_after_the_search_and_whole_after_the_fit(own):
    search, _, _, between = own
    after = (search.directory / "report.html").read_text()
    assert [drawn(between, name) for name in ("search", "curves", "attraction")] == [3, 0, 0]
    assert "The fit that follows the search is not over." in between
    assert [drawn(after, name) for name in ("search", "curves", "attraction")] == [3, 2, 1]
    assert "Epoch by epoch" in after
    assert write_report(search.directory).read_text() == after
    # No command of ours knows the module
    for text in (between, after):
        assert "tglo-train" not in text
        assert "tglo-attack" not in text


def test_the_code_for_a_module_compares_attacks_and_watches(own, tmp_path, monkeypatch):
    search, module, datamodule, between = own
    path = search.directory / "report.html"
    monkeypatch.chdir(tmp_path)
    scope = {"Images": Images, "datamodule": datamodule, "search": search}
    exec(codes(path, "loss")[0], scope)
    original = nn.CrossEntropyLoss(weight=WEIGHT)
    assert torch.equal(values(scope["criterion"]), values(loss_like(original, search.result.best.theta)))
    code = codes(path, "comparison")[0]
    assert "Trainer(max_epochs=3, gradient_clip_val=2.5)  # as this fit had it" in code
    assert "not recorded" not in code
    exec(code.replace("1005", "1002"), scope)
    assert scope["module"].criterion is scope["criterion"]
    assert list(map(len, scope["scores"].values())) == [2, 2]
    pytest.importorskip("foolbox")
    scope["module"] = module
    code = codes(path, "robustness")[0].replace("RUN_DIR", os.fspath(search.directory))
    exec(code.replace("[0, 2 / 255, 8 / 255]", "[0, 0.1]"), scope)
    assert drawn(write_report(search.directory).read_text(), "robustness") == 1
    (tmp_path / "between.html").write_text(between)
    code = codes(tmp_path / "between.html", "comparison")[0]
    assert "Trainer(max_epochs=10, gradient_clip_val=2.5)  # max_epochs is not recorded" in code
    assert "# not recorded: or your DataLoaders" in code
    exec(codes(tmp_path / "between.html", "attraction")[0], scope | {"Trainer": partial(quiet_trainer, pl, tmp_path)})


def test_a_report_that_cannot_be_written_costs_no_fit(tmp_path, monkeypatch):
    monkeypatch.setattr("tglo_lightning.reporting.html.fit.Fit.save", lambda *_: 1 / 0)
    search = TaylorGLO(**TINY, evaluator="sequential")
    trainer = quiet_trainer(pl, tmp_path, max_epochs=1, callbacks=[search])
    trainer.fit(Images(), datamodule=pl.LightningDataModule.from_datasets(images(1), images(2), batch_size=16))
    assert trainer.current_epoch == 1
    assert not (search.directory / "fit.json").exists()


def test_no_report_no_files(tmp_path):
    search = TaylorGLO(**TINY, evaluator="sequential", report=False)
    trainer = quiet_trainer(pl, tmp_path, max_epochs=1, callbacks=[search])
    trainer.fit(Images(), datamodule=pl.LightningDataModule.from_datasets(images(1), images(2), batch_size=16))
    assert sorted(os.listdir(search.directory)) == ["search.json", "search.jsonl"]


def finals(folder, init, ours, theirs):
    """The report of a search with these finals."""
    best = Finalist(THETAS["cubic"], "finalist 1", ours, 0.9, 0)
    original = Finalist(None, "CrossEntropyLoss", theirs)
    settings = {"num_classes": 3, "original_options": [{}]}
    SearchResult("metalearned", "val/acc", "max", best, original, [best], [], 0, 1.0, settings).save(
        folder / "search.json"
    )
    Journal(folder / "search.jsonl", {"loss": ["criterion"]} | ({"init": init} if init else {})).close()
    return html.unescape(write_report(folder).read_text())


@pytest.mark.parametrize(
    ("init", "told"),
    [
        ("given", 'all trainings start from the same weights, those of the module (init="given")'),
        ("reset", 'Each fresh seed draws new initial weights too (init="reset")'),
        ("function", "starts from the weights of a new module"),
        (None, ""),
    ],
)
def test_it_says_what_a_fresh_seed_changes(tmp_path, init, told):
    text = finals(tmp_path, init, [0.8, 0.9], [0.5, 0.6])
    assert text.count(told) == 2 if init else "init=" not in text
    if init:
        assert re.search(f">init</t[hd]>\\s*<td[^>]*>{init}<", text)
    assert "mean ± standard deviation over 2 fresh seeds" in text
    assert "The seeds made no difference" not in text


def test_seeds_that_make_no_difference_count_as_one_training(tmp_path):
    text = finals(tmp_path, "given", [0.9, 0.9], [0.5, 0.5])
    assert "val/acc, the same from each of 2 fresh seeds" in text
    assert text.count('no shuffling, no dropout, init="given". More seeds change nothing. So the comp') == 2
    assert "more seeds are needed" not in text
    assert "mean ± standard deviation" not in text


def test_a_single_training_has_no_deviation(tmp_path):
    text = finals(tmp_path, "given", [0.9], [0.5])
    assert "0.9000 (n\u00a0=\u00a01)" in text
    assert "val/acc, one training of each loss" in text
    assert "±" not in text.replace("scaled to ±1", "")


def test_the_code_for_rows_from_loaders(tmp_path):
    train, val, test = (DataLoader(blobs(48, seed=seed), 16) for seed in (1, 2, 3))
    search = TaylorGLO(**TINY, evaluator="sequential")
    trainer = quiet_trainer(pl, tmp_path, max_epochs=None, max_steps=4, callbacks=[search])
    trainer.fit(seeded(classifier(pl)), train, val)
    path = search.directory / "report.html"
    assert "this search saw none" in path.read_text()
    assert codes(path, "robustness") == []
    code = codes(path, "comparison")[0]
    assert "Trainer(max_steps=4)" in code
    scope = {"Classifier": classifier(pl), "train_loader": train, "val_loader": val, "test_loader": test}
    exec(codes(path, "loss")[0], scope)
    quiet = "Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, "
    exec(code.replace("Trainer(", quiet).replace("1005", "1001"), scope)
    assert list(map(len, scope["scores"].values())) == [1, 1]
