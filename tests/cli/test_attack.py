"""`tglo-attack` and `tglo-landscape`, as a user runs them, and their configs."""

import json
from types import SimpleNamespace

import pytest
from helpers.command import in_process
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tglo_lightning.attacks import Attack, RobustnessReport
from tglo_lightning.cli.attack import run as attack
from tglo_lightning.cli.commands import CONFIG_DIR
from tglo_lightning.cli.recipe import ConfigError, Recipe
from tglo_lightning.cli.train import run as train
from tglo_lightning.cli.trained import of_run
from tglo_lightning.reporting.landscape import Landscape

pytest.importorskip("foolbox")
GROUP = sorted(path.stem for path in (CONFIG_DIR / "attack").glob("*.yaml"))
EXPERIMENTS = sorted(
    str(path.relative_to(CONFIG_DIR / "experiment").with_suffix("")) for path in CONFIG_DIR.glob("experiment/**/*.yaml")
)
TRAINING = (
    "trainer.max_epochs=2",
    "task.train_size=200",
    "evaluation.seeds=1",
    "evaluation.report=false",
    "trainer.enable_progress_bar=false",
)


def compose_config(name, *overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose(name, overrides=list(overrides))


def write_run(folder, *overrides):
    """What `tglo-train` leaves of a training, after one step."""
    cfg = compose_config("train", f"paths.output_dir={folder}", "search=none", "logger=none", *overrides)
    recipe = Recipe(cfg)
    trainer = recipe.quiet_trainer(max_steps=1)
    trainer.fit(recipe.module(), datamodule=recipe.datamodule)
    trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    (folder / ".hydra").mkdir()
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    return folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A small search with a CNN, and a network with a given TaylorGLO loss."""
    cwd = tmp_path_factory.mktemp("runs")
    search = ("search.generations=1", "search.population=2", "search.budget.epochs=1")
    search += ("search.finals.finalists=1", "search.finals.seeds=0", "search.finals.confirm=1")
    folder = cwd / "robust"
    cfg = compose_config(
        "train", f"paths.output_dir={folder}", "experiment=robust_digits", "logger=none", *TRAINING, *search
    )
    train(cfg)
    (folder / ".hydra").mkdir()
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    write_run(cwd / "given", "loss=taylorglo", "loss.theta=[0.84,1.49,1.57,-1.44,2.36,-0.66,-2.86,-1.13]")
    return cwd


def test_the_search_of_the_experiment_optimises_robust_accuracy(runs):
    log = json.loads((runs / "robust" / "result.json").read_text())
    assert log["search"]["candidates"] == 2
    saved = OmegaConf.load(runs / "robust" / ".hydra" / "config.yaml")
    assert saved.search.monitor == "val/robust_acc"


def test_attack_knows_the_network_from_its_run(runs):
    pytest.importorskip("pyautoattack")
    small = ("attack.attacks.pgd.steps=3", "attack.attacks.square.queries=10")
    small += ("attack.attacks.autoattack.steps=2", "attack.attacks.autoattack.queries=5")
    options = ("attack=standard", "attack.epsilons=[0,0.1]", "attack.samples=30", *small)
    printed = in_process(runs, "attack", "ckpt=robust/checkpoints/last.ckpt", *options, "hydra.run.dir=attacked")
    report = RobustnessReport.load(runs / "attacked" / "robustness.json")
    names = {"fgsm-own", "fgsm-cross_entropy", "pgd-own", "pgd-cross_entropy", "pgd-margin", "square", "autoattack"}
    assert {attack.name for attack in report.attacks} == names
    assert (report.samples, report.epsilons) == (30, [0.0, 0.1])
    assert report["pgd-own"].settings["steps"] == 3
    assert "worst case" in printed
    assert "own loss" in printed
    assert (runs / "attacked" / "robustness.png").is_file()


@pytest.mark.slow
def test_attack_sweeps_over_checkpoints_and_attacks(runs):
    options = ("ckpt=robust,given", "attack=paper,fgsm", "attack.epsilons=[0.1]", "attack.samples=30")
    in_process(runs, "attack", "-m", *options, "hydra.sweep.dir=swept")
    reports = [RobustnessReport.load(runs / "swept" / str(job) / "robustness.json") for job in range(4)]
    assert [report.attacks[0].name for report in reports] == ["fgsm-own", "fgsm-cross_entropy"] * 2
    assert reports[2].own_loss == "TaylorGLOLoss"
    assert reports[0].attacks[0].robust.shape == (1, 30)


@pytest.mark.slow
def test_landscapes_of_two_networks_in_one_picture(runs):
    options = ("landscape.directions=2", "landscape.points=3", "landscape.surface_points=3", "samples=50")
    printed = in_process(
        runs, "landscape", "ckpts={robust: robust, given: given}", *options, "hydra.run.dir=landscapes"
    )
    for name in ("robust", "given"):
        assert Landscape.load(runs / "landscapes" / f"{name}.npz").accuracy.shape == (2, 3)
        assert name in printed
    assert {path.name for path in (runs / "landscapes").glob("*.png")} == {"basins.png", "surfaces.png"}


# In this process: what the configs hold


@pytest.fixture
def config(tmp_path):
    def build(*overrides, name="attack"):
        return compose_config(name, f"paths.output_dir={tmp_path}", *overrides)

    return build


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("written") / "run", "arch=cnn")


def test_the_group_has_what_it_should():
    assert set(GROUP) == {"base", "fgsm", "pgd", "square", "autoattack", "paper", "standard"}


@pytest.mark.parametrize("name", GROUP)
def test_every_attack_composes_and_instantiates(config, name):
    cfg = config(f"attack={name}", "ckpt=x")
    options = OmegaConf.to_container(cfg.attack, resolve=True)
    attacks = [instantiate(attack) for attack in options["attacks"].values()]
    assert all(isinstance(attack, Attack) for attack in attacks)
    assert bool(attacks) == (name != "base")
    assert options["epsilons"] == [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]


def test_the_paper_attacks_through_the_own_loss_once(config):
    [attack] = config("attack=paper", "ckpt=x").attack.attacks.values()
    assert (attack._target_.split(".")[-1], attack.loss) == ("FGSM", "own")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_it_composes_with_experiments(config, experiment):
    cfg = config(f"experiment={experiment}", "attack=pgd", "ckpt=x")
    assert cfg.search._target_ is None
    assert cfg.attack.attacks.pgd.steps == 40


@pytest.mark.parametrize(
    "override",
    [
        "attack.epsilons=[-1]",
        "attack.norm=l3",
        "attack.bounds=[1,0]",
        "attack.samples=0",
        "attack.attacks.pgd.steps=0",
        "attack.loss=loss_fn",
    ],
)
def test_a_value_out_of_range_is_rejected_by_its_key(config, checkpoint, override):
    cfg = config("arch=cnn", "attack=pgd", "attack.attacks.pgd.loss=own", f"ckpt={checkpoint}", override)
    with pytest.raises(ConfigError, match=r"^attack"):
        attack(cfg)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("ckpt=nowhere",), "^ckpt: there is no checkpoint nowhere"),
        (("ckpt={checkpoint}", "arch=mlp"), "^ckpt: .* does not fit the network of this config.*evaluate_robustness"),
        (("ckpt={config}", "arch=cnn"), "^ckpt: .* is no checkpoint"),
        (("ckpt={checkpoint}", "arch=cnn", "split=train"), "^split: must be test or val"),
    ],
)
def test_a_wrong_checkpoint_or_split_is_told(config, checkpoint, overrides, message):
    paths = {"checkpoint": checkpoint, "config": checkpoint.parents[1] / ".hydra" / "config.yaml"}
    cfg = config("attack=paper", *(override.format(**paths) for override in overrides))
    with pytest.raises(ConfigError, match=message):
        attack(cfg)


@pytest.mark.parametrize("experiment", ["robust_digits", "robust_mnist", "robust_cifar10"])
def test_robust_experiments_search_with_another_attack_than_the_final_one(config, experiment):
    cfg = config(f"experiment={experiment}", name="train")
    [monitor] = instantiate(cfg.search.budget.callbacks)
    final = config("attack=standard", "ckpt=x").attack.attacks
    assert cfg.search.monitor == "val/robust_acc"
    assert {attack.name for attack in monitor.attacks.values()} == {"fgsm-own", "fgsm-cross_entropy"}
    assert set(final) - {"fgsm", "fgsm_own"} == {"pgd", "pgd_own", "pgd_margin", "square", "autoattack"}
    weighted = config(f"experiment={experiment}", "search.monitor=val/weighted_acc", "fitness.weight=0.7", name="train")
    [monitor] = instantiate(weighted.search.budget.callbacks)
    assert monitor.weight == 0.7


@pytest.mark.parametrize(
    ("given", "arch", "train_size", "batch_size"),
    [
        ([], "SmallCNN", 321, 64),
        (["attack=pgd", "task.batch_size=8"], "SmallCNN", 321, 8),
        (["arch=mlp", "++task.batch_size=8"], "MLP", 321, 8),
        (["task=digits"], "SmallCNN", 1000, 64),
        (["experiment=digits"], "MLP", 1000, 64),
    ],
)
def test_the_command_line_goes_before_the_run(tmp_path, monkeypatch, given, arch, train_size, batch_size):
    checkpoint = write_run(tmp_path / "run", "arch=cnn", "task.train_size=321")
    overrides = SimpleNamespace(overrides=SimpleNamespace(task=given))
    hydra = SimpleNamespace(initialized=lambda: True, get=lambda: overrides)
    monkeypatch.setattr("tglo_lightning.cli.trained.HydraConfig", hydra)
    cfg = of_run(compose_config("attack", "ckpt=x", *given), checkpoint)
    assert cfg.arch._target_.split(".")[-1] == arch
    assert (cfg.task.train_size, cfg.task.batch_size) == (train_size, batch_size)
    assert "attacks" in cfg.attack
