"""Every published experiment trains: small here, in full size in the slow tests."""

import pytest
import pytorch_lightning as pl
import torch
from helpers.hub import LAYOUTS, write_hub
from hydra import compose, initialize_config_dir

from tglo_lightning.cli.commands import CONFIG_DIR
from tglo_lightning.cli.recipe import Recipe
from tglo_lightning.models import Normalize

pytest.importorskip("kornia")

NAMES = ("task", "arch", "schedule", "augment")
CIFAR10 = {
    "alexnet": "alexnet",
    "allcnn_c": "allcnn_c",
    "densenet_bc100_k12": "densenet",
    "preresnet20": "resnet",
    "preresnet32": "resnet",
    "preresnet56": "resnet",
    "pyramidnet110_a48": "densenet",
    "resnet20": "resnet",
    "resnet32": "resnet",
    "resnet56": "resnet",
    "wrn_16_8": "wrn",
    "wrn_28_5": "wrn",
    "wrn_28_10": "wrn",
}
# All that was published, as in recipes/paper_cifar10
EXPERIMENTS = [
    *(("cifar10", arch, schedule, "crop_flip") for arch, schedule in CIFAR10.items()),
    *(("cifar10", arch, CIFAR10[arch], "cutout") for arch in ("allcnn_c", "preresnet20", "wrn_16_8", "wrn_28_5")),
    ("cifar10", "wrn_28_10", "wrn", "cutmix"),
    ("cifar100", "resnet56", "resnet", "crop_flip"),
    ("cifar100", "wrn_28_10", "wrn", "crop_flip"),
    ("svhn", "wrn_16_8", "wrn_svhn", "none"),
    ("svhn", "wrn_28_5", "wrn_svhn", "none"),
    ("mnist", "cnn_mnist", "mnist", "none"),
    ("mnist", "lenet5", "mnist", "none"),
    ("fashion_mnist", "lenet5", "mnist", "none"),
]
SMALL = ("cifar10", "resnet20", "resnet", "crop_flip")


@pytest.fixture(scope="module")
def hubs(tmp_path_factory):
    """Folders of small copies of all data sets, and one for what is decoded."""
    root = tmp_path_factory.mktemp("hubs")
    return {name: write_hub(root / name, **layout) for name, layout in LAYOUTS.items()} | {"cache": root / "cache"}


@pytest.fixture
def config(hubs, tmp_path):
    def build(experiment, *overrides):
        task = experiment[0]
        local = (f"paths.output_dir={tmp_path}", f"task.source={hubs[task]}", f"task.cache_dir={hubs['cache']}")
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            chosen = [f"{name}={option}" for name, option in zip(NAMES, experiment, strict=True)]
            return compose("train", ["experiment=paper", *chosen, "trainer.accelerator=cpu", *local, *overrides])

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


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids="-".join)
def test_trains_two_batches_at_reduced_width(config, experiment):
    cfg = config(experiment, "arch.width=0.1", "task.batch_size=8")
    recipe = Recipe(cfg)
    assert recipe.search().settings.population == 20
    module = fit_two_batches(recipe)
    assert isinstance(module.net[0], Normalize)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS, ids="-".join)
def test_trains_two_batches_in_full_size(config, experiment):
    fit_two_batches(Recipe(config(experiment, "task.batch_size=4")))


@pytest.mark.parametrize(
    ("task", "arch", "schedule", "lr", "decay", "epochs", "milestones", "gamma"),
    [
        ("cifar10", "allcnn_c", "allcnn_c", 0.01, 1e-3, 350, [200, 250, 300], 0.1),
        ("cifar10", "resnet20", "resnet", 0.1, 1e-4, 200, [100, 150], 0.1),
        ("cifar10", "wrn_28_10", "wrn", 0.1, 5e-4, 200, [60, 120, 160], 0.2),
        ("cifar10", "alexnet", "alexnet", 0.1, 5e-4, 164, [81, 122], 0.1),
        ("cifar10", "densenet_bc100_k12", "densenet", 0.1, 1e-4, 300, [150, 225], 0.1),
        ("svhn", "wrn_16_8", "wrn_svhn", 0.01, 5e-4, 160, [80, 120], 0.1),
    ],
)
def test_schedules_are_the_published_ones(config, task, arch, schedule, lr, decay, epochs, milestones, gamma):
    cfg = config((task, arch, schedule, "crop_flip"), "arch.width=0.1")
    assert (cfg.trainer.max_epochs, cfg.task.batch_size) == (epochs, 128)
    configured = Recipe(cfg).module().configure_optimizers()
    [group] = configured["optimizer"].param_groups
    assert (group["initial_lr"], group["weight_decay"], group["momentum"]) == (lr, decay, 0.9)
    assert group["nesterov"] is False
    assert cfg.search.budget.epochs == epochs // 10
    rates = {}
    for epoch in range(epochs):
        rates.setdefault(group["lr"], epoch)
        configured["optimizer"].step()
        configured["lr_scheduler"].step()
    assert list(rates.values()) == [0, *milestones]
    assert list(rates) == pytest.approx([lr * gamma**i for i in range(len(milestones) + 1)])


def test_mnist_is_trained_by_steps(config):
    cfg = config(("mnist", "cnn_mnist", "mnist", "none"))
    assert (cfg.trainer.max_epochs, cfg.scheduler, cfg.task.batch_size, cfg.optimizer.lr) == (37, None, 100, 0.01)
    assert (cfg.search.budget.epochs, cfg.search.budget.steps) == (None, 2000)


@pytest.mark.parametrize(("task", "schedule", "rate"), [("cifar10", "wrn", 0.3), ("svhn", "wrn_svhn", 0.4)])
def test_dropout_is_the_published_one(config, task, schedule, rate):
    assert config((task, "wrn_28_5", schedule, "none")).arch.dropout == rate


def test_the_search_is_the_published_one(config):
    search = Recipe(config(SMALL, "arch.width=0.1")).search().settings
    assert (search.population, search.strategy.sigma) == (20, 1.0)
    space = search.space
    assert (space.order, space.coordinates, space.constraint, set(space.spread)) == (3, "full", None, {1.2})


def test_a_search_over_an_augmented_paper_experiment(config):
    overrides = ("arch.width=0.1", "task.batch_size=16", "search.budget.epochs=null", "search.budget.steps=2")
    small = (
        "search.evaluator=vectorized",
        "search.generations=1",
        "search.population=3",
        "search.finals.finalists=1",
        "search.finals.confirm=1",
        "trainer.max_epochs=1",
    )
    recipe = Recipe(config(("cifar10", "allcnn_c", "allcnn_c", "cutmix"), *overrides, *small))
    search = recipe.search()
    trainer = recipe.quiet_trainer(callbacks=[search], limit_train_batches=1)
    trainer.fit(recipe.module(), datamodule=recipe.datamodule)
    assert [candidate.status for candidate in search.result.history] == ["ok"] * 3


def test_without_a_network_one_line_says_what_to_do(config, monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("Couldn't reach 'uoft-cs/cifar10' on the Hub\nTraceback")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    cfg = config(SMALL, "task.source=uoft-cs/cifar10")
    with pytest.raises(ValueError, match=r"^task: Cannot read uoft-cs/cifar10\. .*source=FOLDER") as caught:
        Recipe(cfg)
    assert "\n" not in str(caught.value)
