"""TaylorGLO as a class path in the YAML file of a LightningCLI."""

import importlib
import math
import re

import pytest
import yaml
from helpers.data import loaders
from helpers.modules import classifier

from tglo_lightning import AttractionMonitor, TaylorGLO
from tglo_lightning.losses import SmoothedCrossEntropyLoss
from tglo_lightning.search import CMAES, Budget, Criterion, FamilySpace, Finals, RandomSearch, Space, TaylorSpace

pytest.importorskip("jsonargparse")
# LightningCLI finds the arguments of pytest
pytestmark = pytest.mark.filterwarnings("ignore:LightningCLI's args parameter", "ignore:No seed found")


class Rates(Space):
    """The module's own loss at other learning rates."""

    axes, centre, spread = ("log_step",), (0.0,), (1.0,)

    def decode(self, x):
        return Criterion.original(math.exp(x[0]))


class Own(RandomSearch):
    """A strategy of one's own, with an argument."""

    def __init__(self, share: float = 0.5) -> None:
        self.share = share


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


def part(name, **arguments):
    return {"class_path": name if "." in name else f"tglo_lightning.search.{name}", "init_args": arguments}


TINY = {"generations": 1, "population": 4, "budget": part("Budget", steps=2), "finals": 1, "report": False}


def test_from_yaml_and_the_saved_config_again(api, tmp_path):
    evaluator = {"class_path": "tglo_lightning.evaluation.VectorizedEvaluator", "init_args": {"chunk_size": 2}}
    arguments = {
        "evaluator": evaluator,
        "space": part("TaylorSpace", constraint=None, step=True),
        "strategy": part("CMAES", sigma=0.5),
        "budget": part("Budget", steps=2, callbacks=[part(f"{api.__name__}.callbacks.ModelSummary", max_depth=2)]),
        "journal": str(tmp_path / "search.jsonl"),
    }
    first = search_of(cli(api, tmp_path, taylorglo(**TINY | arguments)))
    assert first.result.failed == 0
    assert first.evaluator.chunk_size == 2
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    [callback] = saved["trainer"]["callbacks"]
    assert callback["init_args"]["strategy"] == arguments["strategy"]
    (tmp_path / "config.yaml").rename(tmp_path / "again.yaml")
    again = search_of(parsed(api, tmp_path / "again.yaml", run=True))
    assert again.settings.to_dict() == first.settings.to_dict()
    assert again.evaluator.chunk_size == 2
    assert [type(callback) for callback in again.settings.budget.callbacks] == [api.callbacks.ModelSummary]
    # and its search goes on from the same journal: nothing is trained twice
    assert again.result.history == first.result.history


def test_functions_by_their_import_paths(api, tmp_path):
    space = part("TaylorSpace", constraint=f"{__name__}.lenient")
    made = cli(api, tmp_path, taylorglo(**TINY, space=space, init=f"{__name__}.built"), run=False)
    search = search_of(made)
    assert (search.settings.space.constraint, search.init) == (lenient, built)
    [callback] = yaml.safe_load(made.parser.dump(made.config))["trainer"]["callbacks"]
    assert callback["init_args"]["init"] == f"{__name__}.built"
    assert callback["init_args"]["space"]["init_args"]["constraint"] == f"{__name__}.lenient"


@pytest.mark.parametrize(
    ("given", "check"),
    [
        ({"space": "smoothing", "strategy": "random"}, lambda s: type(s.space) is FamilySpace),
        ({"space": "taylorglo", "strategy": "cmaes"}, lambda s: type(s.strategy) is CMAES),
        ({"space": part(f"{__name__}.Rates")}, lambda s: type(s.space) is Rates),
        ({"space": part("FamilySpace", family="smoothing", step=False)}, lambda s: s.space.axes == ("alpha",)),
        (
            {"space": "tglo_lightning.losses.SmoothedCrossEntropyLoss"},
            lambda s: s.space.family is SmoothedCrossEntropyLoss,
        ),
        ({"space": part("TaylorSpace", order=4)}, lambda s: (type(s.space), s.space.order) == (TaylorSpace, 4)),
        (
            {"strategy": part(f"{__name__}.Own", share=0.3)},
            lambda s: (type(s.strategy), s.strategy.share) == (Own, 0.3),
        ),
        ({"budget": 3}, lambda s: s.budget == Budget(epochs=3)),
        (
            {"budget": part("Budget", epochs=3, min_fitness_after=[1, 0.05])},
            lambda s: s.budget.min_fitness_after == (1, 0.05),
        ),
        ({"finals": 4}, lambda s: s.finals == Finals(confirm=4)),
        ({"finals": part("Finals", finalists=2, level=0.1)}, lambda s: s.finals == Finals(finalists=2, level=0.1)),
    ],
)
def test_parts_by_name_number_and_class_path(api, tmp_path, given, check):
    assert check(search_of(cli(api, tmp_path, taylorglo(**TINY | given), run=False)).settings)


def test_a_strategy_and_a_space_of_ones_own_search(api, tmp_path):
    own = {"space": part(f"{__name__}.Rates"), "strategy": part(f"{__name__}.Own")}
    result = search_of(cli(api, tmp_path, taylorglo(**TINY | own))).result
    assert result.settings["strategy"] == {"name": f"{__name__}.Own", "share": 0.5}
    assert result.failed == 0
    assert all(c.criterion.losses == () for c in result.history)


def test_beside_other_callbacks(api, tmp_path):
    others = [
        {"class_path": "tglo_lightning.AttractionMonitor"},
        {"class_path": f"{api.__name__}.callbacks.EarlyStopping", "init_args": {"monitor": "val/acc", "mode": "max"}},
    ]
    made = cli(api, tmp_path, taylorglo(loss=["criterion"]), *others, run=False)
    assert search_of(made).loss == ["criterion"]
    assert any(isinstance(callback, AttractionMonitor) for callback in made.trainer.callbacks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"generation": 1}, "Option 'generation' is not accepted"),
        ({"population": 1}, "`population` must be at least 2, got 1"),
        ({"space": part("TaylorSpace", order=1)}, "`order` must be at least 2, got 1"),
        ({"strategy": "cma"}, "`strategy` must be one of .*got 'cma'"),
        ({"init": "rest"}, "`init` must be one of .*got 'rest'"),
        ({"evaluator": "fast"}, "`evaluator` must be one of 'auto'"),
    ],
)
def test_a_wrong_argument_is_named(api, tmp_path, capsys, arguments, message):
    with pytest.raises((SystemExit, ValueError)) as refused:
        cli(api, tmp_path, taylorglo(**arguments))
    assert re.search(message, f"{refused.value} {capsys.readouterr().err}")
