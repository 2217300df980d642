from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from tglo_lightning.cli.commands import CONFIG_DIR
from tglo_lightning.cli.logger import logged_in, wandb_logger
from tglo_lightning.cli.recipe import ConfigError, Recipe


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def _mode(tmp_path):
    # what the logger hands to wandb.init; no run is started
    return wandb_logger(save_dir=str(tmp_path), project="p")._wandb_init["mode"]


def test_offline_without_a_login(tmp_path):
    assert not logged_in()
    assert _mode(tmp_path) == "offline"


def test_no_setting_is_handed_on_that_wandb_warns_of(tmp_path):
    assert "anonymous" not in wandb_logger(save_dir=str(tmp_path), project="p")._wandb_init


def test_online_with_a_key(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert _mode(tmp_path) == "online"


@pytest.mark.parametrize(
    ("host", "base", "expected"),
    [
        ("api.wandb.ai", None, True),
        ("wandb.example.org", "https://wandb.example.org", True),
        ("wandb.example.org", None, False),
    ],
)
def test_a_stored_login_counts_for_its_host(monkeypatch, tmp_path, host, base, expected):
    (tmp_path / "netrc").write_text(f"machine {host} login user password {'x' * 40}\n")
    if base is not None:
        monkeypatch.setenv("WANDB_BASE_URL", base)
    assert logged_in() is expected


def test_a_broken_store_is_no_login(tmp_path):
    (tmp_path / "netrc").write_text("machine\n")
    assert not logged_in()


def test_wandb_mode_decides(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert _mode(tmp_path) == "offline"


@pytest.fixture
def job(tmp_path):
    """Sets Hydra's config as a job has it; returns what W&B gets to know of it."""

    def build(*overrides, number=None):
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            cfg = compose("train", overrides=[*overrides], return_hydra_config=True)
        with open_dict(cfg):
            cfg.hydra.runtime.output_dir = str(tmp_path)
            cfg.hydra.mode = "RUN" if number is None else "MULTIRUN"
            cfg.hydra.sweep.dir = str(tmp_path / "2026-01-31" / "12-00-00")
            cfg.hydra.job.num = number or 0
        HydraConfig.instance().set_config(cfg)
        [logger] = Recipe.loggers(SimpleNamespace(cfg=cfg))
        return logger._wandb_init

    yield build
    HydraConfig.instance().cfg = None


def test_jobs_of_a_multirun_have_names_of_their_own_and_one_group(tmp_path, job):
    typed = ["experiment=digits_noisy", "seed=1,2", "optimizer.lr=0.1,0.2", "trainer.enable_progress_bar=false"]
    folder = tmp_path / "2026-01-31" / "12-00-00"
    folder.mkdir(parents=True)
    OmegaConf.save({"hydra": {"overrides": {"task": typed}}}, folder / "multirun.yaml")
    runs = []
    for number, (seed, lr) in enumerate([(1, 0.1), (1, 0.2), (2, 0.1)]):
        runs.append(job(typed[0], f"seed={seed}", f"optimizer.lr={lr}", typed[3], number=number))
    assert [run["name"] for run in runs] == [
        "digits_noisy-seed1-0-optimizer.lr=0.1",
        "digits_noisy-seed1-1-optimizer.lr=0.2",
        "digits_noisy-seed2-2-optimizer.lr=0.1",
    ]
    assert {run["group"] for run in runs} == {"2026-01-31/12-00-00"}
    assert runs[0]["tags"] == [
        "experiment=digits_noisy",
        "seed=1",
        "optimizer.lr=0.1",
        "trainer.enable_progress_bar=false",
    ]


def test_a_single_run_is_named_by_its_experiment(job):
    run = job("experiment=digits_noisy", f"name={'x' * 70}", "logger.group=mine")
    assert (run["name"], run["group"]) == ("x" * 70 + "-seed0", "mine")
    assert run["tags"] == ["experiment=digits_noisy", f"name={'x' * 59}", "logger.group=mine"]


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_logger_says_what_to_install(tmp_path, name):
    if find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("train", overrides=[f"logger={name}", f"paths.output_dir={tmp_path}"])
    with pytest.raises(ConfigError, match=r"^logger: .*pip install"):
        Recipe.loggers(SimpleNamespace(cfg=cfg))
