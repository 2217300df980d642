import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from helpers.hub import LAYOUTS, write_hub, write_human_labels
from hydra import compose, initialize_config_dir
from torch import nn

from tglo_lightning.cli.commands import CONFIG_DIR
from tglo_lightning.cli.recipe import ConfigError, Recipe
from tglo_lightning.cli.train import run

THETA = "loss.theta=[0,0,1,-1,0.5,2,-1,0]"
# all but paths, whose output_dir comes from a run of Hydra, attack, which belongs to tglo-attack, and hparams_search,
# which needs a plugin
OPTIONS = [
    f"{path.parent.name}={path.stem}"
    for path in sorted(Path(CONFIG_DIR).glob("*/*.yaml"))
    if path.parent.name not in ("paths", "attack", "hparams_search")
] + [f"search/{path.parent.name}={path.stem}" for path in sorted(Path(CONFIG_DIR).glob("search/*/*.yaml"))]
# What options do not stand without
NEEDED = {
    "loss=taylorglo": [THETA],
    "loss=metalearned": ["search=none"],
    "schedule=wrn_svhn": ["arch=wrn_16_8", "arch.width=0.1", "task=mnist"],
}
# Experiments that search for one of the losses they sweep over
SWEPT = ("noise_levels", "data_utilization")
MULTIRUNS = tuple(f"experiment={experiment}" for experiment in SWEPT)
SEARCHLESS = ("search=none", "loss=taylorglo", "debug=overfit", "debug=profiler", *MULTIRUNS)
UNLOGGED = ("logger=none", "debug=fast", "debug=overfit", "debug=profiler", *MULTIRUNS)


@pytest.fixture
def config(tmp_path):
    def build(*overrides):
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            return compose("train", overrides=[f"paths.output_dir={tmp_path}", *overrides])

    return build


@pytest.mark.parametrize("option", OPTIONS)
def test_every_config_composes_and_trains_two_batches(config, option, tmp_path):
    overrides = [option, *NEEDED.get(option, [])]
    group, name = option.split("=")
    if group == "arch":
        overrides += ["task=mnist"] if name in ("mlp", "cnn") else ["task=mnist", "arch.width=0.1"]
    cfg = config(*overrides)
    if "source" in cfg.task and cfg.task.source != "wine":
        layout = cfg.task.source.split("/")[-1]
        cfg.task.source = str(write_hub(tmp_path / layout, **LAYOUTS[layout]))
        cfg.task.cache_dir = str(tmp_path / "cache")
    if option == "task=cifar10n":
        cfg.task.labels_source = str(write_human_labels(tmp_path / "human", worse=[0] * 60))
    recipe = Recipe(cfg)
    if option not in ("logger=tensorboard", "logger=mlflow"):
        loggers = recipe.loggers()
        assert all(isinstance(logger, pl.loggers.Logger) for logger in loggers)
        assert len(loggers) == {"logger=many": 2, **dict.fromkeys(UNLOGGED, 0)}.get(option, 1)
    search = recipe.search()
    assert (search is None) == (option in SEARCHLESS)
    assert all(isinstance(c, pl.Callback) for c in recipe.callbacks())
    module = recipe.module()
    assert isinstance(module.criterion, nn.Module)
    before = [p.detach().clone() for p in module.parameters()]
    trainer = recipe.quiet_trainer(max_epochs=1, max_steps=-1, limit_train_batches=2, limit_val_batches=1)
    trainer.fit(module, datamodule=recipe.datamodule)
    assert 1 <= trainer.global_step <= (3 if option == "debug=overfit" else 2)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    assert any(not torch.equal(one, other) for one, other in zip(before, module.parameters(), strict=True))


def test_all_groups_are_there():
    groups = {path.name for path in Path(CONFIG_DIR).iterdir() if path.is_dir()}
    assert groups >= {
        "task",
        "augment",
        "arch",
        "schedule",
        "loss",
        "search",
        "trainer",
        "logger",
        "callbacks",
        "experiment",
        "paths",
    }


def test_experiment_and_command_line_have_the_last_word(config):
    cfg = config("experiment=digits_noisy", "search.generations=3")
    assert (cfg.task.train_size, cfg.task.val_size, cfg.task.label_noise) == (600, 400, 0.4)
    assert cfg.search.generations == 3
    assert cfg.search.budget.epochs == cfg.trainer.max_epochs


@pytest.mark.parametrize("experiment", SWEPT)
def test_a_sweep_searches_for_one_of_its_losses(config, experiment):
    cfg = config(f"experiment={experiment}", "loss=metalearned")
    assert cfg.search._target_ == "tglo_lightning.TaylorGLO"
    assert config(f"experiment={experiment}", "loss=baikal").search._target_ is None


def test_an_experiment_without_its_search(config):
    cfg = config("experiment=digits_noisy", "search=none", "search.generations=3", "search/space=minimal")
    assert Recipe(cfg).search() is None


def test_a_given_theta_is_what_the_module_trains_with(config):
    criterion = Recipe(config("loss=taylorglo", THETA)).module().criterion
    assert criterion.theta.tolist() == [0, 0, 1, -1, 0.5, 2, -1, 0]


def test_search_keys_reach_the_callback(config):
    search = Recipe(config("search.generations=3", "search.population=7", "seed=5")).search()
    settings = search.settings
    assert (settings.generations, settings.population, settings.seed) == (3, 7, 5)


def test_scheduler(config):
    overrides = ("+scheduler._target_=torch.optim.lr_scheduler.StepLR", "+scheduler._partial_=true")
    module = Recipe(config(*overrides, "+scheduler.step_size=3")).module()
    assert module.configure_optimizers()["lr_scheduler"].step_size == 3


@pytest.mark.parametrize(
    "override",
    [
        "seed=-1",
        "seed=true",
        "monitor=val/f1",
        "evaluation.seeds=0",
        "optimizer.lr=-0.1",
        "optimizer.lr=fast",
        "task.label_noise=1.5",
        "task.train_size=1500",
        "task.batch_size=0",
        "arch.hidden=[0]",
        "trainer.accelerator=abacus",
        "search.generations=0",
        "search.budget.epochs=0",
        "search.population=1",
        "search.evaluator=abacus",
        "+search.genrations=3",
    ],
)
def test_a_value_out_of_range_is_rejected_by_its_key(config, override):
    key = override.split("=")[0].lstrip("+").split(".")
    with pytest.raises(ConfigError, match=rf"^{key[0]}\b.*: ") as caught:
        Recipe(config(override))
    assert "\n" not in str(caught.value)
    assert key[0] == "optimizer" or key[-1] in str(caught.value)


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        ("[1]", r"5, 8, 12, 17, \.\.\. values"),
        ("[0,0,1,-1,0.5,2,-1,nan]", "finite"),
    ],
)
def test_a_wrong_theta_is_rejected_by_its_key(config, theta, message):
    with pytest.raises(ConfigError, match=rf"^loss: `theta` .*{message}"):
        Recipe(config("loss=taylorglo", f"loss.theta={theta}"))


def test_returns_the_validation_metric_of_the_kept_loss_and_repeats(config, tmp_path):
    overrides = ("search=none", "logger=none", "trainer.max_epochs=2", "evaluation.seeds=2")
    cfg = config(*overrides, "trainer.enable_progress_bar=false")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    metric = run(cfg)
    first = json.loads((tmp_path / "result.json").read_text())
    assert torch.equal(before, torch.get_rng_state())
    assert 0.5 < metric <= 1
    # not a mean of test accuracies: with 400 validation samples and two seeds it is a multiple of 1/800
    assert metric * 800 == pytest.approx(round(metric * 800), abs=1e-3)
    assert run(cfg) == metric
    assert json.loads((tmp_path / "result.json").read_text())["losses"] == first["losses"]
