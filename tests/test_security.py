"""Nothing from disk is unpickled or evaluated, and nothing is written outside of the run's directory."""

import ast
import os
import pickle
import time
from importlib import import_module
from pathlib import Path

import pytest
import torch
from faults import victim
from helpers.runs import finished
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import OmegaConf

import tglo_lightning
from tglo_lightning.cli import trained
from tglo_lightning.cli.recipe import ConfigError
from tglo_lightning.untrusted import load_yaml

MLP = {"_target_": "tglo_lightning.models.MLP"}
PACKAGE = Path(tglo_lightning.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
# Functions that run what they read
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads",
    "shelve.open", "joblib.load", "yaml.load", "yaml.unsafe_load", "os.system", "os.popen", "torch.hub.load",
    "torch.jit.load",
}  # fmt: skip


def calls(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            keywords = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            yield ast.unparse(node.func), keywords, f"{path.name}:{node.lineno}"


def test_no_call_runs_what_it_reads():
    found = [(name, where) for path in SOURCES for name, _, where in calls(path) if name in FORBIDDEN]
    # Weights that a worker process of this search sent through its pipe
    own = [entry for entry in found if entry[0] == "pickle.loads" and entry[1].startswith(("pool.py:", "worker.py:"))]
    assert [entry for entry in found if entry not in own] == []


def test_arrays_and_checkpoints_are_loaded_as_data():
    loads = [
        (name, k, where) for path in SOURCES for name, k, where in calls(path) if name in ("torch.load", "np.load")
    ]
    assert len(loads) >= 3
    safe = {"torch.load": {"weights_only": True}, "np.load": {"allow_pickle": False}}
    assert [entry for entry in loads if not safe[entry[0]].items() <= entry[1].items()] == []


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("where", ["checkpoint", "result", "journal"])
def test_pickles_are_not_run(tmp_path, where):
    bomb, mark = tmp_path / "bomb", tmp_path / "mark"
    torch.save({"state_dict": {"net.0.weight": Bomb(mark)}}, bomb)
    if where == "checkpoint":
        with pytest.raises(ValueError, match="weights_only"):
            tglo_lightning.load_from_checkpoint(victim.Victim, bomb)
    else:
        path = tmp_path / ("a.json" if where == "result" else "a.jsonl")
        path.write_bytes(pickle.dumps(Bomb(mark)) + b"\n")
        with pytest.raises(ValueError, match=str(path)):
            tglo_lightning.search.SearchResult.load(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "torch.hub.load",
        "torch.nn.ParameterDict",
        "torch.nn.Module.__call__",
        "torch.nn.utils._deprecation_utils.lazy_deprecated_import",
        "torch.nn.functional.torch.hub.load",
        "torch.optim.SGD",
        "torch.utils.collect_env.run",
        "tglo_lightning.cli.given.theta_of_result",
        "tglo_lightning.data.images.Path",
        "tglo_lightning.models.MLP.__init__",
        "tglo_lightning.models.metrics.torch.load",
        "somewhere.Net",
        {"_target_": "os.system"},
        5,
    ],
)
@pytest.mark.parametrize("depth", [0, 1])
def test_a_runs_config_names_only_what_the_configs_of_the_package_name(tmp_path, monkeypatch, target, depth):
    arch = {"_target_": target} if depth == 0 else MLP | {"a": [{"_target_": target}]}
    run, cfg = write_run(tmp_path, monkeypatch, arch)
    name = "arch._target_" if depth == 0 else r"arch\.a\.0\._target_"
    with pytest.raises(ConfigError, match=f"^{name}: .* is not in this package's configs; .* 'trust="):
        trained.of_run(cfg, run)


@pytest.mark.parametrize(
    "arch",
    [
        "${oc.create:'{_target_: os.system, command: touch mark}'}",
        MLP | {"hidden": "${oc.env:HOME}"},
        {"_target_": "${oc.decode:os.system}"},
        {"_target_": "\\\\${oc.decode:os.system}"},
    ],
)
def test_a_runs_config_is_not_resolved(tmp_path, monkeypatch, arch):
    run, cfg = write_run(tmp_path, monkeypatch, arch)
    with pytest.raises(ConfigError, match=r"^arch"):
        trained.of_run(cfg, run)


@pytest.mark.parametrize("tag", ["!!pairs", "!!omap"])
def test_pairs_do_not_hide_a_target(tmp_path, monkeypatch, tag):
    run, cfg = write_run(tmp_path, monkeypatch, MLP)
    (tmp_path / ".hydra" / "config.yaml").write_text(f"arch:\n  a: {tag} [b: {{_target_: os.system}}]\n")
    with pytest.raises(ConfigError, match=r"^arch\.a\.0\.1\._target_"):
        trained.of_run(cfg, run)


def test_a_runs_config_may_name_what_is_known_or_trusted(tmp_path, monkeypatch):
    assert trained.known_targets() >= {"tglo_lightning.data.DigitsDataModule", "torch.nn.CrossEntropyLoss"}
    for target, trust in ((MLP["_target_"], []), ("somewhere.Net", ["somewhere.Net"])):
        run, cfg = write_run(tmp_path, monkeypatch, {"_target_": target, "_partial_": True}, trust)
        assert trained.of_run(cfg, run).arch._target_ == target


# Targets that are no classes: they make a loss of numbers
FUNCTIONS = {"tglo_lightning.cli.given.given_loss", "tglo_lightning.losses.robust"}


def test_every_known_target_is_of_the_package_or_a_loss_of_torch():
    strange = {t for t in trained.known_targets() if not t.startswith("tglo_lightning.")}
    assert strange == {"torch.nn.CrossEntropyLoss"}
    for target in trained.known_targets() - strange - FUNCTIONS:
        assert isinstance(get_object(target), type), target


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "aliases"),
        ("base: &base {a: 1}\narch:\n  <<: *base\n", "aliases"),
        ("arch: " + "x" * 1_000_000, "more than 100,000 bytes"),
        ("arch: " + "[" * 90_000, "cannot be read"),
        ("arch: !!python/object/apply:os.system [touch mark]", "cannot be read"),
        ("arch: [", "cannot be read"),
        ("\x00", "cannot be read"),
        ("arch: " + "9" * 90_000, "cannot be read"),
    ],
)
def test_yaml_that_costs_more_than_its_size_is_rejected(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    run, cfg = write_run(tmp_path, monkeypatch, MLP)
    path = tmp_path / ".hydra" / "config.yaml"
    path.write_text(content)
    start = time.monotonic()
    with pytest.raises(ValueError, match=message):
        load_yaml(path)
    with pytest.raises(ConfigError, match=f"^ckpt: .*{message}"):
        trained.of_run(cfg, run)
    assert time.monotonic() - start < 5
    assert not (tmp_path / "mark").exists()


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(ValueError, match="not a file"):
        load_yaml(tmp_path / "config.yaml")


def write_run(folder, monkeypatch, arch, trust=()):
    """A run's checkpoint with a config beside it, and the config of a command that reads it."""
    (folder / ".hydra").mkdir(exist_ok=True)
    OmegaConf.save(OmegaConf.create({"arch": arch}), folder / ".hydra" / "config.yaml")
    hydra = OmegaConf.create({"overrides": {"task": []}})
    monkeypatch.setattr(HydraConfig, "initialized", staticmethod(lambda: True))
    monkeypatch.setattr(HydraConfig, "get", staticmethod(lambda: hydra))
    return folder / "last.ckpt", OmegaConf.create({"arch": MLP, "trust": list(trust)})


@pytest.mark.parametrize("name", ["report.html", "comparison.json", "comparison.png"])
def test_nothing_is_written_through_a_link(tmp_path, name, capsys):
    kept = tmp_path / "kept"
    kept.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    finished(run)
    (run / name).symlink_to(kept)
    command = "report" if name == "report.html" else "compare"
    assert import_module(f"tglo_lightning.cli.{command}").main([str(run)]) == 2
    assert "is a symbolic link" in capsys.readouterr().err
    assert kept.read_text() == "mine"


def test_a_search_writes_below_the_runs_directory_only(tmp_path, monkeypatch):
    home, run = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    monkeypatch.chdir(home)
    search, _ = victim.fit(run)
    written = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    place = search.directory.relative_to(run)
    assert written == [str(place / name) for name in ("search.json", "search.jsonl")]
    assert list(home.rglob("*")) == []
    assert set(os.listdir(tmp_path)) == {"home", "run"}
