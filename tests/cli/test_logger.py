import pytest

from tglo_lightning.cli.logger import logged_in, wandb_logger


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
