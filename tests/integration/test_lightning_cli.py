"""TaylorGLO as a class path in the YAML file of a LightningCLI."""

import importlib
import re

import pytest
import yaml
from helpers.data import loaders
from helpers.modules import classifier

from tglo_lightning import AttractionMonitor, TaylorGLO

pytest.importorskip("jsonargparse")
# LightningCLI finds the arguments of pytest
pytestmark = pytest.mark.filterwarnings("ignore:LightningCLI's args parameter", "ignore:No seed found")


def lenient(theta: list[float]) -> bool:
    """A constraint by its import path."""
    return True


def built():
    """A fresh module by its import path, whatever Trainer it is for."""
    import pytorch_lightning

    return classifier(pytorch_lightning)()


def data(api):
    class Data(api.LightningDataModule):
        def train_dataloader(self):
            return loaders()["train_dataloaders"]

        def val_dataloader(self):
            return loaders()["val_dataloaders"]

    return Data


def cli(api, tmp_path, *callbacks, run=True, **trainer):
    """A LightningCLI over the YAML file of these callbacks."""
    config = tmp_path / "given.yaml"
    trainer |= {"accelerator": "cpu", "max_epochs": 1, "logger": False, "enable_checkpointing": False}
    trainer |= {"enable_progress_bar": False, "default_root_dir": str(tmp_path), "callbacks": list(callbacks)}
    config.write_text(yaml.safe_dump({"trainer": trainer}))
    return parsed(api, config, run=run)


def parsed(api, config, run):
    kind = importlib.import_module(f"{api.__name__}.cli").LightningCLI
    args = [*(["fit"] if run else []), "--config", str(config)]
    return kind(classifier(api), data(api), run=run, args=args)


def search_of(made):
    (search,) = [callback for callback in made.trainer.callbacks if isinstance(callback, TaylorGLO)]
    return search


def taylorglo(**arguments):
    return {"class_path": "tglo_lightning.TaylorGLO", "init_args": arguments}


TINY = {"generations": 1, "population": 4, "candidate_steps": 2, "finalists": 1, "repeats": 1}


def test_from_yaml_and_the_saved_config_again(api, tmp_path):
    evaluator = {"class_path": "tglo_lightning.evaluation.VectorizedEvaluator", "init_args": {"chunk_size": 2}}
    arguments = {"evaluator": evaluator, "constraint": None, "journal": str(tmp_path / "search.jsonl"), "sigma": 0.5}
    summary = {"class_path": f"{api.__name__}.callbacks.ModelSummary", "init_args": {"max_depth": 2}}
    first = search_of(cli(api, tmp_path, taylorglo(**TINY, **arguments, candidate_callbacks=[summary])))
    assert first.result.failed == 0
    assert first.evaluator.chunk_size == 2
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    [callback] = saved["trainer"]["callbacks"]
    assert callback["init_args"].items() >= (TINY | {"constraint": None, "sigma": 0.5}).items()
    (tmp_path / "config.yaml").rename(tmp_path / "again.yaml")
    again = search_of(parsed(api, tmp_path / "again.yaml", run=True))
    assert (again.settings, again.budget) == (first.settings, first.budget)
    assert again.evaluator.chunk_size == 2
    assert [type(callback) for callback in again.candidate_callbacks] == [api.callbacks.ModelSummary]
    # and its search goes on from the same journal: nothing is trained twice
    assert again.result.history == first.result.history


def test_functions_by_their_import_paths(api, tmp_path):
    paths = {"constraint": f"{__name__}.lenient", "init": f"{__name__}.built"}
    made = cli(api, tmp_path, taylorglo(**TINY, **paths), run=False)
    search = search_of(made)
    assert (search.settings.constraint, search.init) == (lenient, built)
    [callback] = yaml.safe_load(made.parser.dump(made.config))["trainer"]["callbacks"]
    assert callback["init_args"].items() >= paths.items()


def test_the_pair_of_min_fitness_after(api, tmp_path):
    made = cli(api, tmp_path, taylorglo(**TINY | {"min_fitness_after": [1, 0.05]}), run=False)
    assert (search_of(made).budget.minimum.after, search_of(made).budget.minimum.value) == (1, 0.05)


def test_beside_other_callbacks(api, tmp_path):
    others = [
        {"class_path": "tglo_lightning.AttractionMonitor"},
        {"class_path": f"{api.__name__}.callbacks.EarlyStopping", "init_args": {"monitor": "val/acc", "mode": "max"}},
    ]
    made = cli(api, tmp_path, taylorglo(loss=["criterion"]), *others, run=False)
    assert search_of(made).slots.paths == ["criterion"]
    assert any(isinstance(callback, AttractionMonitor) for callback in made.trainer.callbacks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"generation": 1}, "Option 'generation' is not accepted"),
        ({"order": 1}, "`order` must be at least 2, got 1"),
        ({"init": "rest"}, "`init` must be one of .*got 'rest'"),
        ({"evaluator": "fast"}, "`evaluator` must be one of 'auto'"),
    ],
)
def test_a_wrong_argument_is_named(api, tmp_path, capsys, arguments, message):
    with pytest.raises((SystemExit, ValueError)) as refused:
        cli(api, tmp_path, taylorglo(**arguments))
    assert re.search(message, f"{refused.value} {capsys.readouterr().err}")
