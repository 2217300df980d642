"""A race within a fit: the best of several networks is in the module, and the fit has ended as a training does."""

import json
import math
import warnings

import pytest
import pytorch_lightning as pl
import torch
from helpers.data import loaders
from helpers.modules import accuracy, classifier, cnn, manual, mlp, quiet_trainer, seeded
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, StochasticWeightAveraging
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from torch import nn
from torch.optim import Adam, lr_scheduler

from tglo_lightning import TaylorGLO
from tglo_lightning.evaluation import TrainerEvaluator
from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.attraction import AttractionRecord
from tglo_lightning.search import Budget, Criterion, Finals, Journal, Race, SearchResult

# A fall back would hide what does not work
pytestmark = pytest.mark.filterwarnings("error:Training a population")
MEMBERS = [Criterion.original(0.01), Criterion.of("sce", [0.1, 1.0]), Criterion.of("smoothing", [0.1], step=0.3)]
# The members as they take part: the module's own loss is added in front
RACE = [Criterion.original(), *MEMBERS]


class Scheduled(classifier(pl)):
    """With a schedule, and metrics of training and validation."""

    def configure_optimizers(self):
        optimizer = Adam(self.parameters(), 0.02)
        return [optimizer], [lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.max_epochs)]


def fit(folder, module=None, api=pl, data=None, strategy=None, trainer=None, **kwargs):
    """The callback and the Trainer after a fit with a race."""
    module = seeded(classifier(api)) if module is None else module
    search = TaylorGLO(strategy=strategy or Race(MEMBERS), **({"evaluator": "trainer", "report": False} | kwargs))
    outer = quiet_trainer(api, folder, callbacks=[search], **({"max_epochs": 4} | (trainer or {})))
    outer.fit(module, **(data or loaders()))
    return search, outer


def attraction_of(search, name):
    return AttractionRecord.load(search.directory / f"search-attraction-{name}.npz")


def validated(module, data=None):
    """The accuracy of a module in validation, as its class logs it."""
    module.eval()
    batches = (data or loaders())["val_dataloaders"]
    with torch.no_grad():
        values = [(accuracy(module(x), y), len(y)) for x, y in batches]
    return float(sum(value * size for value, size in values) / sum(size for _, size in values))


def trained(folder, module, strategy=None, **trainer):
    """The Trainer after an ordinary fit with other callbacks."""
    outer = quiet_trainer(pl, folder, **({"max_epochs": 4} | trainer))
    outer.fit(module, **loaders())
    return outer


@pytest.mark.parametrize("evaluator", ["trainer", "vectorized"])
def test_the_best_network_is_in_the_module(either_api, tmp_path, evaluator):
    module = seeded(classifier(either_api))
    search, trainer = fit(tmp_path, module, either_api, evaluator=evaluator)
    result, curves = search.result, search.result.curves
    assert (trainer.current_epoch, trainer.global_step) == (4, 24)
    assert curves.criteria == tuple(RACE)
    assert curves.unit == "steps"  # four epochs are too few for ten checks
    values = [value for row in curves.values for value in row]
    assert result.best.fitness == (max(values),)
    assert result.trainings == len(RACE)
    assert result.best.criterion == curves.criteria[curves.winner] == result.history[curves.winner].criterion
    assert validated(module) == pytest.approx(max(values))
    assert float(trainer.callback_metrics["val/acc"]) == pytest.approx(max(values))
    assert result.kept == ("original" if curves.winner == 0 else "metalearned")
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in module.parameters())
    assert not list(tmp_path.rglob("*.pt"))


def test_evaluators_agree(tmp_path):
    names = ("trainer", "vectorized", "processes")
    found = [fit(tmp_path / name, evaluator=name, report=True)[0] for name in names]
    curves = found[0].result.curves
    assert [search.result.curves for search in found] == [curves] * 3
    records = [attraction_of(search, "original") for search in found]
    assert records[0].epochs == list(curves.checks)
    for record in records:
        torch.testing.assert_close(torch.stack(record.values), torch.stack(records[0].values), rtol=1e-4, atol=1e-5)


def test_the_network_is_that_of_the_best_check(tmp_path):
    """Its weights are those that a training of that length has, and not those of the end."""
    members = [Criterion.original(), Criterion.original(1e-9)]
    module = seeded(classifier(pl), lr=0.02)
    search, _ = fit(tmp_path, module, strategy=Race(members), trainer={"max_epochs": 12})
    curves = search.result.curves
    assert curves.unit == "epochs"
    best = max(range(len(curves.checks)), key=lambda check: (curves.values[0][check], -check))
    assert curves.kept_at == curves.checks[best] < 12
    other = seeded(classifier(pl), lr=0.02)
    again, _ = fit(
        tmp_path / "shorter",
        other,
        strategy=Race(members, score="last"),
        trainer={"max_epochs": curves.kept_at},
    )
    assert again.result.best.fitness == search.result.best.fitness
    assert all(map(torch.equal, module.state_dict().values(), other.state_dict().values()))


def test_the_fit_ends_as_a_training_does(tmp_path):
    """Counters, rates, metrics, logs and checkpoints, with the network of the race in them."""

    def parts(folder):
        checkpoint = ModelCheckpoint(folder / "checkpoints", monitor="val/acc", mode="max", save_last=True)
        watched = ModelCheckpoint(folder / "watched", monitor="train/loss", every_n_train_steps=5, save_top_k=-1)
        stopping = EarlyStopping("val/acc", mode="max", patience=9)
        return {
            "logger": CSVLogger(folder, name="", version=""),
            "callbacks": [stopping, checkpoint, watched],
            "enable_checkpointing": True,
            "max_epochs": 3,
        }

    plain = trained(tmp_path / "plain", seeded(Scheduled), **parts(tmp_path / "plain"))
    module, options = seeded(Scheduled), parts(tmp_path / "race")
    search = TaylorGLO(strategy=Race(MEMBERS), evaluator="trainer", report=False)
    callbacks = [search, *options.pop("callbacks")]
    trainer = quiet_trainer(pl, tmp_path, callbacks=callbacks, **options)
    before = set(trainer.callbacks)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*lr_scheduler.*")
        trainer.fit(module, **loaders())
    assert set(trainer.callbacks) == before
    for name in ("current_epoch", "global_step", "should_stop", "num_val_batches"):
        assert getattr(trainer, name) == getattr(plain, name), name
    assert trainer.callback_metrics.keys() == plain.callback_metrics.keys()
    ours, theirs = (t.lr_scheduler_configs[0].scheduler for t in (trainer, plain))
    rate = search.result.criterion.step
    assert ours.last_epoch == theirs.last_epoch
    assert ours.get_last_lr()[0] == pytest.approx(rate * theirs.get_last_lr()[0])
    saved = torch.load(trainer.checkpoint_callbacks[0].last_model_path, weights_only=True)
    assert (saved["epoch"], saved["global_step"]) == (2, 18)
    loops = []
    for each in (trainer, plain):
        each.save_checkpoint(tmp_path / "end.ckpt")
        loops.append(torch.load(tmp_path / "end.ckpt", weights_only=True)["loops"]["fit_loop"])
    for name in ("epoch_progress", "epoch_loop.batch_progress", "epoch_loop.state_dict"):
        assert loops[0][name] == loops[1][name], name
    steps = [each["epoch_loop.automatic_optimization.optim_progress"]["optimizer"] for each in loops]
    assert steps[0] == steps[1]
    assert trainer.checkpoint_callbacks[0].best_model_score == trainer.callback_metrics["val/acc"]
    assert trainer.checkpoint_callbacks[1].best_k_models
    assert all(map(torch.equal, saved["state_dict"].values(), module.state_dict().values()))
    assert saved["callbacks"][search.state_key]["result"]["curves"]["winner"] == search.result.curves.winner
    rows = (tmp_path / "race" / "metrics.csv").read_text()
    assert "race/member_1" in rows
    assert "train/loss" in rows


def test_a_checkpoint_goes_on_without_another_race(tmp_path):
    keep = ModelCheckpoint(tmp_path / "checkpoints", save_last=True)
    search, first = fit(tmp_path, trainer={"enable_checkpointing": True}, strategy=Race(MEMBERS))
    first.save_checkpoint(tmp_path / "end.ckpt")
    module = classifier(pl)()
    again = TaylorGLO(strategy=Race(MEMBERS), evaluator="trainer")
    trainer = quiet_trainer(pl, tmp_path, callbacks=[again, keep], max_epochs=5, enable_checkpointing=True)
    trainer.fit(module, **loaders(), ckpt_path=tmp_path / "end.ckpt")
    assert (trainer.current_epoch, trainer.global_step) == (5, 30)
    assert again.result.to_dict() == search.result.to_dict()


@pytest.mark.parametrize("limits", [{"max_steps": 9, "max_epochs": -1}, {"max_steps": 9}, {"max_steps": 900}])
def test_a_budget_in_steps(tmp_path, limits):
    """The end lies within an epoch, and is validated all the same; of two limits the first one counts."""
    plain = trained(tmp_path, seeded(Scheduled if limits.get("max_epochs", 4) > 0 else classifier(pl)), **limits)
    search, trainer = fit(tmp_path, trainer=limits)
    assert (trainer.current_epoch, trainer.global_step) == (plain.current_epoch, plain.global_step)
    assert search.result.curves.checks[-1] == plain.global_step
    assert float(trainer.callback_metrics["val/acc"]) == pytest.approx(search.result.best.fitness[0])


@pytest.mark.parametrize("evaluator", ["trainer", "vectorized"])
def test_running_means_are_those_of_the_network(tmp_path, evaluator):
    """BatchNorm changes its buffers in every pass, also in the one that trains nothing."""
    data = loaders(images=True)
    module = seeded(classifier(pl), cnn(), lr=0.02)
    search, trainer = fit(tmp_path, module, data=data, evaluator=evaluator, trainer={"accumulate_grad_batches": 2})
    assert validated(module, data) == pytest.approx(search.result.best.fitness[0])
    assert trainer.global_step == 12


def test_manual_optimization_and_own_attributes(tmp_path):
    module = seeded(manual(pl))
    search, trainer = fit(tmp_path, module)
    assert trainer.global_step == 24
    assert validated(module) == pytest.approx(search.result.best.fitness[0])


def test_fresh_networks_and_a_confirmation(tmp_path):
    """From networks that ``init`` builds; the test is about the loss, the network stays in any case."""
    module = classifier(pl)()
    search, _ = fit(
        tmp_path, module, init=classifier(pl), strategy=Race(MEMBERS, confirm=True), finals=Finals(confirm=2)
    )
    result = search.result
    assert validated(module) == pytest.approx(result.history[result.curves.winner].fitness)
    assert result.curves.winner != 0
    assert len(result.best.fitness) == len(result.original.fitness) == 2
    assert result.trainings == 8
    with pytest.raises(ValueError, match=r"what `init` builds differs from it in net"):
        fit(tmp_path, module, init=lambda: classifier(pl)(nn.Linear(8, 3)))


@pytest.fixture(autouse=True)
def written(monkeypatch):
    """Notes are written at every check, however quick the training is."""
    monkeypatch.setattr("tglo_lightning.search.racing.SAVE_SECONDS", 0.0)


class Fatal(TrainerEvaluator):
    """Dies after so many scores."""

    def __init__(self, scores):
        self.scores = scores

    def start(self, criteria, seed):
        population = super().start(criteria, seed)
        whole = population.scores

        def some():
            for score in whole():
                self.scores -= 1
                if self.scores < 0:
                    raise KeyboardInterrupt
                yield score

        population.scores = some
        return population


def outcome(search, module):
    values = search.result.to_dict()
    for candidate in values["history"]:
        del candidate["seconds"]
    del values["seconds"]
    measured = [attraction_of(search, name).state_dict() for name in ("original", "winner")]
    return json.dumps(
        [values, [{k: torch.as_tensor(v).tolist() for k, v in m.items() if k != "loss"} for m in measured]]
    ), module.state_dict()


# The first one learns nothing, so another one wins
KILLED = {
    "strategy": Race([Criterion.original(), Criterion.of("sce", [0.1, 1.0])], 0.25, halving=False, confirm=True),
    "finals": Finals(confirm=2),
    "report": True,
}


class Idle(classifier(pl)):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return 0 * loss if isinstance(self.criterion, nn.CrossEntropyLoss) else loss


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What comes out of a race that was not killed."""
    module = seeded(Idle)
    return outcome(fit(tmp_path_factory.mktemp("whole"), module, **KILLED)[0], module)


@pytest.mark.parametrize("scores", [1, 7, 11, *(pytest.param(scores, marks=pytest.mark.slow) for scores in (5, 9))])
def test_a_killed_race_ends_as_if_it_had_not_been(tmp_path, whole, scores):
    """Killed in the first check, in the middle, in the last one, and in the confirmation."""
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path, seeded(Idle), evaluator=Fatal(scores), **KILLED)
    [journal] = tmp_path.glob("tglo/*/search.jsonl")
    # 8 scores are those of the race
    assert len(list(journal.parent.glob("*.pt"))) == (scores > 1)
    assert len(Journal.read(journal)[1]) == {1: 0, 5: 2, 7: 3, 9: 5, 11: 7}[scores]
    assert SearchResult.load(journal).finished is False
    module, evaluator = seeded(Idle), Fatal(1000)
    search, _ = fit(tmp_path, module, evaluator=evaluator, **KILLED)
    found = outcome(search, module)
    assert found[0] == whole[0]
    assert all(map(torch.equal, found[1].values(), whole[1].values()))
    # It goes on after the last check, with all of its members
    assert 1000 - evaluator.scores == 12 - (scores // 2 * 2 if scores < 8 else scores)
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize("evaluator", ["trainer", "vectorized"])
def test_a_network_is_written_into_any_module(tmp_path, evaluator):
    """With layers that learn their size in the first step, an expanded buffer, and a schedule that cannot be saved."""

    class Lazy(classifier(pl)):
        def __init__(self):
            super().__init__(nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(3)))
            self.register_buffer("mask", torch.ones(1).expand(8))

        def forward(self, x):
            return self.net(x * self.mask)

        def configure_optimizers(self):
            optimizer = Adam(self.parameters(), 0.02)
            return [optimizer], [lr_scheduler.LambdaLR(optimizer, Table(lambda epoch: 0.9**epoch))]

    module = Lazy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search, _ = fit(tmp_path, module, evaluator=evaluator)
    assert validated(module) == pytest.approx(search.result.best.fitness[0])


class Table:
    """Rates by a function that cannot be pickled."""

    def __init__(self, rate):
        self.rate = rate

    def __call__(self, epoch):
        return self.rate(epoch)


def kill(folder, scores=5, **options):
    """Kill a race in its third check; the path of its notes."""
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(folder, seeded(Idle), evaluator=Fatal(scores), **KILLED, **options)
    [notes] = folder.rglob("*.pt")
    return notes


def test_notes_that_cannot_be_read_are_not_needed(tmp_path, whole):
    kill(tmp_path).write_bytes(b"torn")
    module = seeded(Idle)
    with pytest.warns(UserWarning, match=r"search-race.pt cannot be read .* so the race starts anew"):
        search, _ = fit(tmp_path, module, evaluator=Fatal(1000), **KILLED)
    assert outcome(search, module)[0] == whole[0]


def test_notes_beside_a_new_journal_are_those_of_another_race(tmp_path, whole):
    notes = kill(tmp_path, 9, journal=tmp_path / "own.jsonl")
    assert "result" in torch.load(notes, weights_only=True)
    (tmp_path / "own.jsonl").unlink()
    # A checkpoint of the user's that goes by the name of the journal is none of them
    (tmp_path / "own.pt").write_bytes(b"a checkpoint")
    module, evaluator = seeded(Idle), Fatal(1000)
    search, _ = fit(tmp_path, module, evaluator=evaluator, journal=tmp_path / "own.jsonl", **KILLED)
    assert 1000 - evaluator.scores == 12
    assert search.result.best.to_dict() == json.loads(whole[0])[0]["best"]
    assert list(tmp_path.rglob("*.pt")) == [tmp_path / "own.pt"]
    assert (tmp_path / "own.pt").read_bytes() == b"a checkpoint"


def test_a_disk_that_is_full_does_not_end_a_race(tmp_path, monkeypatch):
    def full(values, path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(UserWarning, match=r"search-race.pt cannot be written \(.*No space left .* starts anew") as told:
        search, _ = fit(tmp_path)
    assert len([w for w in told if "cannot be written" in str(w.message)]) == 1
    assert search.result.best is not None
    assert not list(tmp_path.rglob("*.pt*"))


def test_a_training_that_does_not_repeat_is_said_and_counts(tmp_path):
    outside = tmp_path / "outside.txt"

    class Noisy(classifier(pl)):
        def validation_step(self, batch, batch_idx):
            self.log("val/acc", float(outside.read_text()))

    outside.write_text("0.25")
    fit(tmp_path, seeded(Noisy))
    outside.write_text("0.5")
    with pytest.warns(UserWarning, match="does not repeat what .* from check 1 on"):
        search, _ = fit(tmp_path, seeded(Noisy))
    assert search.result.best.fitness == (0.5,)


def test_halving(tmp_path):
    search, _ = fit(tmp_path, strategy=Race(), trainer={"max_epochs": 8})
    curves = search.result.curves
    running = [sum(map(math.isfinite, column)) for column in zip(*curves.values, strict=True)]
    assert running == [10, 10, 10, 5, 5, 3, 3, 3, 3, 3]


def test_networks_that_fail_are_no_obstacle(tmp_path):
    members = [Criterion.original(1e30), Criterion.of("sce", [0.1, 1.0])]
    search, _ = fit(tmp_path, strategy=Race(members))
    assert search.result.history[1].status == "diverged"
    assert search.result.failed == 1


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        while True:
            yield torch.zeros(8), 0


def test_what_a_race_cannot_do_is_said_before_it(tmp_path):
    averaging = {"callbacks": [StochasticWeightAveraging(0.1)]}
    with pytest.raises(ValueError, match="StochasticWeightAveraging would change nothing"):
        quiet_trainer(pl, tmp_path, callbacks=[TaylorGLO(strategy="race"), *averaging["callbacks"]]).fit(
            classifier(pl)(), **loaders()
        )
    with pytest.raises(ValueError, match="24 steps, and `budget` has 3 epochs"):
        fit(tmp_path, budget=3)
    with pytest.raises(ValueError, match="`min_fitness_after` has no effect: Race decides"):
        TaylorGLO(strategy="race", budget=Budget(epochs=4, min_fitness_after=(1, 0.5)))
    endless = {"train_dataloaders": torch.utils.data.DataLoader(Endless(), 4)}
    with pytest.raises(ValueError, match="set `limit_train_batches`"):
        fit(tmp_path, data=loaders() | endless, trainer={"max_steps": 5})
    _, trainer = fit(tmp_path, classifier(pl)(mlp()))
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    state = torch.load(tmp_path / "some.ckpt", weights_only=True)
    state["callbacks"] = {}
    torch.save(state, tmp_path / "some.ckpt")
    outer = quiet_trainer(pl, tmp_path, callbacks=[TaylorGLO(strategy="race")], max_epochs=5)
    with pytest.raises(ValueError, match=r"would go on from .*some\.ckpt"):
        outer.fit(classifier(pl)(), **loaders(), ckpt_path=tmp_path / "some.ckpt")


@pytest.mark.parametrize(
    ("module", "options", "limits"),
    [
        (classifier(pl), {}, None),
        (manual(pl), {}, "`global_step` counts one step a batch."),
        (classifier(pl), {"max_time": "00:01:00:00"}, "`max_time` does not count the race."),
        (
            classifier(pl),
            {"logger": True, "enable_checkpointing": True, "callbacks": [EarlyStopping("val/acc", mode="max")]},
            "loggers get `race/*` in place of the epochs before the last; EarlyStopping sees one epoch; "
            "ModelCheckpoint saves no earlier epoch, and optimizers without their state.",
        ),
    ],
)
def test_what_is_not_true_of_this_fit_is_said(tmp_path, caplog, module, options, limits):
    search = TaylorGLO(strategy=Race(MEMBERS), evaluator="trainer", report=False, dry_run=True)
    callbacks = [search, *options.get("callbacks", [])]
    with caplog.at_level("INFO", logger="tglo_lightning"):
        quiet_trainer(pl, tmp_path, **(options | {"callbacks": callbacks})).fit(module(), **loaders())
    told = [m.partition("would, except that ")[2] for m in caplog.messages if "ends as a training" in m]
    assert told == [limits] * (limits is not None)
    assert any(f"up to {len(RACE)} trainings" in message for message in caplog.messages)


def test_the_curves_are_shown(tmp_path, monkeypatch):
    """In W&B as numbers and as one picture; in the report, with what a race does not prove."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb = pytest.importorskip("wandb")
    logged = []
    monkeypatch.setattr("wandb.sdk.wandb_run.Run.log", lambda self, data, *args, **kwargs: logged.append(data))
    try:
        logger = WandbLogger(save_dir=tmp_path, offline=True, project="tests")
        strategy = Race(MEMBERS, halving=False)
        search, _ = fit(tmp_path, seeded(Idle), report=True, strategy=strategy, trainer={"logger": logger})
        outcome = dict(logger.experiment.summary)
        assert logger.experiment.config["tglo"]["monitor"] == "val/acc"
    finally:
        wandb.finish()
    curves = search.result.curves
    assert outcome["search/formula"] == search.result.criterion.formula
    assert "networks that of" in outcome["search/summary"]
    checks = [row for row in logged if "race/trained" in row]
    assert [row["race/trained"] for row in checks] == list(curves.checks)
    assert [row["race/member_2"] for row in checks] == list(curves.values[1])
    assert [type(row["race/curves"]) for row in logged if "race/curves" in row] == [wandb.Image]
    assert [type(row["race/attraction"]) for row in logged if "race/attraction" in row] == [wandb.Image]
    page = (search.directory / "report.html").read_text()
    assert "Attraction, CrossEntropyLoss: after 24 steps" in page
    assert "Attraction, winner: after 24 steps" in page
    names = curves.names("CrossEntropyLoss")
    assert names == ["CrossEntropyLoss", "CrossEntropyLoss, rate x 0.01", "sce", "smoothing, rate x 0.3"]
    assert f"Of 4 networks that of {names[curves.winner]} is kept." in page
    assert f"This is {names[curves.winner]}, the loss of the network that is kept" in page
    assert f"The network that is kept is that of the check after {curves.kept_at} step" in page
    assert "The race in numbers" in page
    assert "proves nothing about its loss" in page
    figure = pictures.race(search.result)
    widths = [line.get_linewidth() for line in figure.axes[0].get_lines()[:4]]
    assert widths.index(max(widths)) == curves.winner
    assert "One network each, chosen by validation" in figure.get_label()
