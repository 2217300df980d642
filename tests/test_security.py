"""Nothing from disk is unpickled or evaluated, and nothing is written outside of the run's directory."""

import ast
import os
import pickle
from pathlib import Path

import pytest
import torch
from faults import victim
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

import tglo_lightning
from tglo_lightning.cli import trained
from tglo_lightning.cli.checks import ConfigError

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
    assert found == []


def test_arrays_and_checkpoints_are_loaded_as_data():
    loads = [
        (name, k, where) for path in SOURCES for name, k, where in calls(path) if name in ("torch.load", "np.load")
    ]
    assert len(loads) >= 4
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
        with pytest.raises(pickle.UnpicklingError, match="weights_only"):
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
        "torch.load",
        "torch.hub.load",
        "torch.nn.functional.torch.hub.load",
        "torch.optim.optimizer.torch.load",
        "tglo_lightning.models.metrics.torch.load",
        "tglo_lightning.data.images.Path",
        "somewhere.Net",
        "${oc.env:HOME}",
        5,
    ],
)
@pytest.mark.parametrize("depth", [0, 1])
def test_a_runs_config_calls_what_is_known_only(tmp_path, monkeypatch, target, depth):
    run, cfg = write_run(tmp_path, monkeypatch, {"_target_": target} if depth == 0 else {"a": [{"_target_": target}]})
    name = "arch._target_" if depth == 0 else r"arch\.a\.0\._target_"
    with pytest.raises(ConfigError, match=f"^{name}: .* is taken from the command line only"):
        trained.of_run(cfg, run)


def test_a_runs_config_calls_what_is_known_or_asked_for(tmp_path, monkeypatch):
    known = {"_target_": "tglo_lightning.models.MLP", "_partial_": True}
    run, cfg = write_run(tmp_path, monkeypatch, known)
    assert trained.of_run(cfg, run).arch._target_ == "tglo_lightning.models.MLP"
    run, cfg = write_run(tmp_path, monkeypatch, {"_target_": "somewhere.Net"}, ["arch._target_=somewhere.Net"])
    assert trained.of_run(cfg, run).arch._target_ == "somewhere.Net"


def write_run(folder, monkeypatch, arch, overrides=()):
    """A run's checkpoint with a config beside it, and the config of a command that reads it."""
    (folder / ".hydra").mkdir(exist_ok=True)
    OmegaConf.save(OmegaConf.create({"arch": arch}), folder / ".hydra" / "config.yaml")
    hydra = OmegaConf.create({"overrides": {"task": list(overrides)}})
    monkeypatch.setattr(HydraConfig, "initialized", staticmethod(lambda: True))
    monkeypatch.setattr(HydraConfig, "get", staticmethod(lambda: hydra))
    return folder / "last.ckpt", OmegaConf.create({"arch": {"_target_": "tglo_lightning.models.MLP"}})


def test_a_search_writes_below_the_runs_directory_only(tmp_path, monkeypatch):
    home, run = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    monkeypatch.chdir(home)
    search, _ = victim.fit(run)
    written = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    place = search.directory.relative_to(run)
    assert written == [str(place / name) for name in ("fit.json", "report.html", "search.json", "search.jsonl")]
    assert list(home.rglob("*")) == []
    assert set(os.listdir(tmp_path)) == {"home", "run"}
