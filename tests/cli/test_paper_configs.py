"""Every published experiment trains, small here, in full size in the slow tests."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from helpers.hub import LAYOUTS, write_hub
from hydra import compose, initialize_config_dir

from tglo_lightning.cli.commands import CONFIG_DIR
from tglo_lightning.cli.recipe import Recipe
from tglo_lightning.models import Normalize

pytest.importorskip("kornia")

EXPERIMENTS = sorted(path.stem for path in Path(CONFIG_DIR, "experiment", "paper").glob("*.yaml"))
EXPERIMENTS.remove("settings")


@pytest.fixture(scope="module")
def hubs(tmp_path_factory):
    """Folders of small copies of all data sets, and one for what is decoded."""
    root = tmp_path_factory.mktemp("hubs")
    return {name: write_hub(root / name, **layout) for name, layout in LAYOUTS.items()} | {"cache": root / "cache"}


@pytest.fixture
def config(hubs, tmp_path):
    def build(experiment, *overrides):
        task = max((name for name in LAYOUTS if experiment.startswith(name)), key=len)
        local = (f"paths.output_dir={tmp_path}", f"task.source={hubs[task]}", f"task.cache_dir={hubs['cache']}")
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            return compose("train", [f"experiment=paper/{experiment}", "trainer.accelerator=cpu", *local, *overrides])

    return build


def fit_two_batches(recipe):
    pl.seed_everything(0, verbose=False)
    module = recipe.module()
    before = [p.detach().clone() for p in module.parameters()]
    trainer = recipe.quiet_trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=1)
    trainer.fit(module, datamodule=recipe.datamodule)
    assert trainer.global_step == 2
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    assert 0 <= trainer.callback_metrics["val/acc"] <= 1
    moved = [not torch.equal(one, other) for one, other in zip(before, module.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)
    return module


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_trains_two_batches_at_reduced_width(config, experiment):
    cfg = config(experiment, "arch.width=0.1", "task.batch_size=8")
    assert cfg.name == experiment
    recipe = Recipe(cfg)
    assert recipe.search().settings.population == 20
    module = fit_two_batches(recipe)
    assert isinstance(module.net[0], Normalize)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_trains_two_batches_in_full_size(config, experiment):
    fit_two_batches(Recipe(config(experiment, "task.batch_size=4")))


@pytest.mark.parametrize(
    ("experiment", "lr", "decay", "epochs", "milestones", "gamma"),
    [
        ("cifar10_allcnn_c", 0.01, 1e-3, 350, [200, 250, 300], 0.1),
        ("cifar10_resnet20", 0.1, 1e-4, 200, [100, 150], 0.1),
        ("cifar10_wrn_28_10", 0.1, 5e-4, 200, [60, 120, 160], 0.2),
    ],
)
def test_schedules_are_the_published_ones(config, experiment, lr, decay, epochs, milestones, gamma):
    cfg = config(experiment, "arch.width=0.1")
    assert (cfg.trainer.max_epochs, cfg.task.batch_size) == (epochs, 128)
    configured = Recipe(cfg).module().configure_optimizers()
    [group] = configured["optimizer"].param_groups
    assert (group["initial_lr"], group["weight_decay"], group["momentum"]) == (lr, decay, 0.9)
    rates = {}
    for epoch in range(epochs):
        rates.setdefault(group["lr"], epoch)
        configured["optimizer"].step()
        configured["lr_scheduler"].step()
    assert list(rates.values()) == [0, *milestones]
    assert list(rates) == pytest.approx([lr * gamma**i for i in range(len(milestones) + 1)])


def test_a_search_over_an_augmented_paper_experiment(config):
    overrides = ("arch.width=0.1", "task.batch_size=16", "search.candidate_epochs=null", "search.candidate_steps=2")
    small = (
        "search.evaluator=vectorized",
        "search.generations=1",
        "search.population=3",
        "search.finalists=1",
        "trainer.max_epochs=1",
    )
    recipe = Recipe(config("cifar10_allcnn_c_cutout", "augment=cutmix", *overrides, *small))
    search = recipe.search()
    trainer = recipe.quiet_trainer(callbacks=[search], limit_train_batches=1)
    trainer.fit(recipe.module(), datamodule=recipe.datamodule)
    assert [candidate.status for candidate in search.result.history] == ["ok"] * 3


def test_without_a_network_one_line_says_what_to_do(config, monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("Couldn't reach 'uoft-cs/cifar10' on the Hub\nTraceback")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    cfg = config("cifar10_resnet20", "task.source=uoft-cs/cifar10")
    with pytest.raises(ValueError, match=r"^task\.source: Cannot read uoft-cs/cifar10\. .*source=FOLDER") as caught:
        Recipe(cfg)
    assert "\n" not in str(caught.value)
