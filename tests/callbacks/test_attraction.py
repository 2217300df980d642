import copy
import json
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from helpers.data import CLASSES, FEATURES, Stream, blobs, loader, loaders
from helpers.modules import TINY, classifier, cnn, mlp, quiet_trainer, seeded
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler
from torchmetrics.classification import MulticlassAccuracy

from tglo_lightning import AttractionMonitor, TaylorGLO, TaylorGLOLoss, theory
from tglo_lightning.losses import BaikalLoss, CrossEntropyLoss, as_loss
from tglo_lightning.reporting.attraction import QUANTITIES, AttractionRecord, measure
from tglo_lightning.search import Criterion, TaylorSpace

# Evolved for MNIST by the method's authors (arXiv 2010.00788)
THETA = [-10.9408, 7.5216, 8.2896, 0.2415, 7.8726, 8.9666, 2.0184, 7.0513]
pytestmark = pytest.mark.filterwarnings("ignore")


def trainer(api, tmp_path, callbacks, **kwargs):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    defaults = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "default_root_dir": str(tmp_path)}
    return api.Trainer(**(quiet | defaults | kwargs), callbacks=callbacks)


def reference(loss, logits, target):
    """The six quantities, one by one from the functions of the theory."""
    z, n = logits.double(), logits.shape[1]
    h = z.softmax(-1)
    y = torch.nn.functional.one_hot(target, n).double()
    alpha = as_loss(loss).label_smoothing
    gamma = theory.gamma(loss, h, (1 - alpha) * y + alpha / n)
    return {
        "attraction": theory.attraction(loss, z, target),
        "gamma_T": (gamma * y).sum(-1),
        "gamma_notT": (gamma * (1 - y)).sum(-1) / (n - 1),
        "eps": 1 - (h * y).sum(-1),
        "entropy": -(h * h.log()).sum(-1),
        "entropy_rate": theory.entropy_rate(loss, z, target),
    }


LOSSES = {
    "torch": lambda: nn.CrossEntropyLoss(),
    "smoothed": lambda: nn.CrossEntropyLoss(label_smoothing=0.2),
    "weighted": lambda: nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5])),
    "baikal": lambda: BaikalLoss(),
    "theta": lambda: TaylorGLOLoss(THETA),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_measures_what_the_theory_says(kind):
    loss = LOSSES[kind]()
    logits, target = (
        2 * torch.randn(40, CLASSES, generator=torch.Generator().manual_seed(0)),
        torch.arange(40) % CLASSES,
    )
    values = dict(zip(QUANTITIES, measure(as_loss(loss), logits, target), strict=True))
    for name, expected in reference(loss, logits, target).items():
        torch.testing.assert_close(values[name], expected, rtol=1e-9, atol=1e-9)


def test_the_sign_is_right_where_the_label_is_learned_by_heart():
    logits, target = torch.tensor([[60.0, 0.0, 0.0], [300.0, 0.0, 0.0]]), torch.tensor([0, 0])
    assert (measure(CrossEntropyLoss(), logits, target)[0] >= 0).all()
    assert measure(CrossEntropyLoss(), logits, target)[0, 0] > 0
    # The wrong class is certain: what pull is left is far below the rounding of a sum over the classes
    certain = torch.tensor([[0.0, 40.0, 0.0]])
    assert 0 < measure(as_loss("brier"), certain, torch.tensor([0]))[0, 0] < 1e-16
    assert (measure(TaylorGLOLoss([0, 0, 0, -1, 0, 1, 0, 0]), logits, target)[0] < 0)[0]
    assert measure(BaikalLoss(), logits, target).isfinite().all()


def test_dense_soft_and_ignored_targets():
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(4, CLASSES, 2, 2, generator=generator), torch.zeros(4, 2, 2, dtype=torch.long)
    target[1] = -100
    target[2, 0, 0] = -100
    values = measure(CrossEntropyLoss(), logits, target)
    assert values.shape == (6, 4)
    assert values[:, 1].isnan().all()
    h = logits.double().softmax(1)
    torch.testing.assert_close(values[0, 0], (1 - h[0, 0]).mean())
    torch.testing.assert_close(values[0, 2], (1 - h[2, 0]).flatten()[1:].mean())
    soft = torch.full((4, CLASSES), 0.1)
    soft[:, 2] = 0.8
    logits = torch.randn(4, CLASSES, generator=generator)
    expected = theory.attraction(CrossEntropyLoss(), logits.double(), soft.double())
    torch.testing.assert_close(measure(CrossEntropyLoss(), logits, soft)[0], expected)


@pytest.mark.parametrize("kind", LOSSES)
def test_the_file_holds_what_the_theory_says_of_the_final_network(api, tmp_path, kind):
    torch.manual_seed(0)
    module = classifier(api)(mlp(dropout=0.5), LOSSES[kind](), lr=0.001)
    monitor = AttractionMonitor(samples=50, seed=3)
    data = loaders()
    fit = trainer(api, tmp_path, [monitor])
    fit.fit(module, **data)
    with np.load(tmp_path / "attraction.npz") as stored:
        x, y = data["train_dataloaders"].dataset[stored["index"]]
        assert stored["epoch"].tolist() == [0, 1, 2]
        assert stored["step"].tolist() == [0, 6, 12]
        assert stored["target"].tolist() == y.tolist()
        assert len(set(stored["index"].tolist())) == 50
        assert stored["loss"].shape == (3,)
        assert int(stored["num_classes"]) == CLASSES
        expected = theory.equilibria(LOSSES[kind](), CLASSES)
        np.testing.assert_allclose(stored["equilibria"], np.tile(expected, (3, 1)))
        with torch.no_grad():
            logits = module.eval()(x)
        for name, values in reference(LOSSES[kind](), logits, y).items():
            assert stored[name].dtype == np.float32
            assert stored[name].shape == (3, 50)
            np.testing.assert_allclose(stored[name][-1], values, rtol=1e-4, atol=1e-5)


class Draws(torch.utils.data.Dataset):
    """Samples with random noise from every generator there is, one of its own among them."""

    def __init__(self):
        self.data, self.generator = blobs(), torch.Generator().manual_seed(5)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        x, y = self.data[i]
        noise = torch.randn(FEATURES) + random.random() + np.random.rand() + torch.rand((), generator=self.generator)  # noqa: NPY002
        return x + 0.1 * noise, y


def fussy(api):
    """A module with a metric and a buffer that change before the loss is called."""

    class Fussy(classifier(api)):
        def __init__(self):
            super().__init__(nn.Sequential(nn.Unflatten(1, (1, 1, -1)), nn.Upsample((8, 8)), cnn(), nn.Dropout(0.1)))
            self.accuracy = MulticlassAccuracy(CLASSES)
            self.register_buffer("calls", torch.zeros(()))

        def training_step(self, batch, batch_idx):
            x, y = batch
            logits = self(x)
            self.calls += 1
            self.log("train/acc", self.accuracy(logits, y), on_epoch=True)
            self.log("train/epoch_acc", self.accuracy, on_epoch=True, on_step=False)
            return self.criterion(logits, y)

    return Fussy()


def test_leaves_the_training_as_it_is(api, tmp_path):
    def run(callbacks):
        api.seed_everything(1, verbose=False)
        module = fussy(api)
        module.net[0].eval()
        own = torch.Generator().manual_seed(7)
        train = loader(Draws(), shuffle=True, generator=own)
        fit = trainer(api, tmp_path, callbacks, num_sanity_val_steps=0)
        fit.fit(module, train, loader())
        states = [torch.get_rng_state(), own.get_state(), train.dataset.generator.get_state()]
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        plain = (random.getstate(), np.random.get_state()[1].tolist(), fit.global_step)  # noqa: NPY002
        modes = [child.training for child in module.modules()]
        metrics = {name: value.item() for name, value in fit.callback_metrics.items()}
        return [*module.state_dict().values(), *states, *gradients], (plain, modes, metrics)

    tensors, plain = run([AttractionMonitor(samples=40)])
    expected_tensors, expected_plain = run([])
    assert all(torch.equal(one, other) for one, other in zip(tensors, expected_tensors, strict=True))
    assert plain == expected_plain


def test_nothing_moves_during_a_measurement(api, tmp_path):
    module = fussy(api)
    monitor = AttractionMonitor(samples=40)

    class Watch(api.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            pl_module.accuracy.update(torch.eye(CLASSES), torch.arange(CLASSES))
            for parameter in pl_module.parameters():
                parameter.grad = torch.ones_like(parameter)

            def state():
                gradients = [parameter.grad.clone() for parameter in pl_module.parameters()]
                metric = [value.clone() for value in pl_module.accuracy.metric_state.values()]
                tensors = [*copy.deepcopy(pl_module.state_dict()).values(), *gradients, *metric, torch.get_rng_state()]
                return tensors, (pl_module.accuracy.update_count, [child.training for child in pl_module.modules()])

            before, plain = state()
            monitor.on_train_epoch_end(trainer, pl_module)
            after, plain_after = state()
            assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
            assert plain == plain_after
            assert "log" not in vars(pl_module)
            assert trainer.training
            self.seen = True

    watch = Watch()
    trainer(api, tmp_path, [monitor, watch]).fit(module, **loaders())
    assert watch.seen


def test_a_manual_optimisation_is_left_alone(api, tmp_path):
    class Manual(classifier(api)):
        automatic_optimization = False

        def training_step(self, batch):
            x, y = batch
            optimizer = self.optimizers()
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            loss = self.criterion(self(x), y)
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def run(callbacks):
        api.seed_everything(1, verbose=False)
        module = Manual()
        trainer(api, tmp_path, callbacks).fit(module, **loaders())
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        return [*module.state_dict().values(), *gradients]

    assert all(map(torch.equal, run([AttractionMonitor(samples=20)]), run([])))


def test_follows_a_search(api, tmp_path):
    api.seed_everything(2, verbose=False)
    module = classifier(api)(lr=0.02)
    search = TaylorGLO(**(TINY | {"space": TaylorSpace(constraint="stable")}))
    monitor = AttractionMonitor(samples=20)
    # The order of the callbacks makes no difference
    trainer(api, tmp_path, [monitor, search]).fit(module, **loaders())
    assert search.result is not None
    if search.result.kept == "metalearned":
        assert all(loss.startswith("TaylorGLOLoss") for loss in monitor.record.losses)
    else:
        assert all(loss.startswith("CrossEntropyLoss") for loss in monitor.record.losses)


@pytest.mark.parametrize("kept", ["metalearned", "original"])
def test_follows_a_search_for_a_function(api, tmp_path, kept):
    class Functional(classifier(api)):
        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0]), batch[1], label_smoothing=0.1)

        def validation_step(self, batch, batch_idx):
            replaced = any(isinstance(child, TaylorGLOLoss) for child in self.modules())
            self.log("val/acc", float(replaced == (kept == "metalearned")))

    module, monitor = Functional(), AttractionMonitor(samples=20)
    del module.criterion
    search = TaylorGLO(**TINY)
    trainer(api, tmp_path, [search, monitor]).fit(module, **loaders())
    assert search.result.kept == kept
    [loss] = {loss.split("(")[0] for loss in monitor.record.losses}
    assert (loss == "CrossEntropyLoss") == (kept == "original")
    assert any(type(child).__name__ == "InlineLoss" for child in module.modules()) == (kept == "metalearned")
    assert ("training_step" in vars(module)) == (kept == "metalearned")


def test_follows_a_swap_in_the_middle(api, tmp_path):
    class Swap(api.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                pl_module.criterion = TaylorGLOLoss(THETA)

    module = classifier(api)(lr=0.001)
    monitor = AttractionMonitor(samples=96)
    data = loaders()
    trainer(api, tmp_path, [Swap(), monitor]).fit(module, **data)
    assert [loss.split("(")[0] for loss in monitor.record.losses] == ["CrossEntropyLoss"] * 2 + ["TaylorGLOLoss"]
    x, y = data["train_dataloaders"].dataset[monitor.record.index]
    expected = reference(TaylorGLOLoss(THETA), module.eval()(x).detach(), y)["attraction"]
    np.testing.assert_allclose(monitor.record.quantity("attraction")[-1], expected, rtol=1e-4)


def test_resume_goes_on_with_the_record(api, tmp_path):
    def run(epochs, folder, ckpt_path=None, **kwargs):
        monitor = AttractionMonitor(samples=30)
        keep = api.callbacks.ModelCheckpoint(dirpath=tmp_path / folder, save_last=True)
        fit = trainer(api, tmp_path / folder, [monitor, keep], max_epochs=epochs, enable_checkpointing=True, **kwargs)
        api.seed_everything(4, verbose=False)
        fit.fit(classifier(api)(), **(loaders() | {"train_dataloaders": loader(blobs(seed=1))}), ckpt_path=ckpt_path)
        return monitor.record

    whole = run(4, "whole")
    first = run(2, "first")
    resumed = run(4, "second", ckpt_path=tmp_path / "first" / "last.ckpt")
    assert resumed.epochs == whole.epochs == [0, 1, 2, 3, 4]
    assert resumed.steps == whole.steps
    assert torch.equal(torch.stack(resumed.values[:3]), torch.stack(first.values))
    torch.testing.assert_close(torch.stack(resumed.values), torch.stack(whole.values))
    assert AttractionRecord.load(tmp_path / "second" / "attraction.npz").epochs == resumed.epochs


def test_another_training_starts_another_record(api, tmp_path):
    monitor = AttractionMonitor(samples=30)
    for epochs in (3, 1):
        trainer(api, tmp_path, [monitor], max_epochs=epochs).fit(classifier(api)(), **loaders())
    assert monitor.record.epochs == [0, 1]


def test_epochs_between_measurements(api, tmp_path):
    monitor = AttractionMonitor(every_n_epochs=3, samples=500)
    trainer(api, tmp_path, [monitor], max_epochs=5).fit(classifier(api)(), **loaders())
    assert monitor.record.epochs == [0, 3, 5]
    assert len(monitor.record.index) == 96


def test_an_early_end_keeps_the_file(api, tmp_path):
    class Crash(api.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                raise RuntimeError("as a test")

    with pytest.raises(RuntimeError, match="as a test"):
        trainer(api, tmp_path, [AttractionMonitor(), Crash()], max_epochs=4).fit(classifier(api)(), **loaders())
    assert AttractionRecord.load(tmp_path / "attraction.npz").epochs == [0, 1, 2]


# Samples


def record_of(api, tmp_path, train, **kwargs):
    monitor = AttractionMonitor(**kwargs)
    trainer(api, tmp_path, [monitor], max_epochs=1, limit_train_batches=2).fit(classifier(api)(), train)
    return monitor.record


def test_the_seed_draws_the_samples(api, tmp_path):
    one, same, other = (record_of(api, tmp_path, loader(shuffle=True), samples=20, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.index, same.index)
    assert not torch.equal(one.index, other.index)


def test_samples_of_streams_subsets_ready_batches_and_several_loaders(api, tmp_path):
    stream = record_of(api, tmp_path, DataLoader(Stream(), batch_size=16), samples=20)
    assert stream.index.tolist() == [-1] * 20
    chosen = list(range(0, 96, 3))
    subset = record_of(api, tmp_path, loader(sampler=SubsetRandomSampler(chosen)), samples=20)
    assert set(subset.index.tolist()) <= set(chosen)
    batches = [tuple(part) for part in zip(*(t.split(10) for t in blobs().tensors), strict=True)]
    ready = record_of(api, tmp_path, DataLoader(batches, batch_size=None, shuffle=True), samples=25)
    assert len(ready.target) == 25

    class Pair(classifier(api)):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["left"], batch_idx)

    monitor = AttractionMonitor(samples=20)
    pair = {"left": loader(shuffle=True), "right": loader()}
    trainer(api, tmp_path, [monitor], max_epochs=1).fit(Pair(), pair)
    assert len(monitor.record.target) == 20


def test_a_loader_of_its_own(api, tmp_path):
    class Plain(classifier(api)):
        def attraction_dataloader(self):
            return loader(blobs(12, seed=9))

    monitor = AttractionMonitor()
    trainer(api, tmp_path, [monitor]).fit(Plain(), **loaders())
    assert sorted(monitor.record.index.tolist()) == list(range(12))


def test_forward_is_another_way_to_the_logits(api, tmp_path):
    class Mixed(classifier(api)):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return self.criterion(self(x.flip(0)), y)

    data = loaders()
    module = Mixed()
    monitor = AttractionMonitor(samples=96, through="forward")
    trainer(api, tmp_path, [monitor]).fit(module, **data)
    x, y = data["train_dataloaders"].dataset[monitor.record.index]
    expected = reference(nn.CrossEntropyLoss(), module.eval()(x).detach(), y)["eps"]
    np.testing.assert_allclose(monitor.record.quantity("eps")[-1], expected, atol=1e-5)


# Loggers


def test_scalars_for_any_logger(api, tmp_path):
    logger = api.loggers.CSVLogger(tmp_path, name="csv", version="")
    monitor = AttractionMonitor(samples=30)
    trainer(api, tmp_path, [monitor], logger=logger).fit(classifier(api)(), **loaders())
    text = (tmp_path / "csv" / "metrics.csv").read_text().splitlines()
    column = text[0].split(",").index("attraction/q50")
    values = [float(line.split(",")[column]) for line in text[1:] if line.split(",")[column]]
    np.testing.assert_allclose(values, np.median(monitor.record.quantity("attraction"), axis=1), rtol=1e-5)
    assert (tmp_path / "csv" / "attraction.npz").exists()


def test_an_offline_wandb_run_holds_the_series_and_the_pictures(api, tmp_path):
    wandb = pytest.importorskip("wandb")
    pytest.importorskip("matplotlib")

    logger = api.loggers.WandbLogger(save_dir=tmp_path, offline=True, project="test")
    monitor = AttractionMonitor(samples=30)
    try:
        module = classifier(api)(lr=0.01, criterion=TaylorGLOLoss(THETA))
        trainer(api, tmp_path, [monitor], logger=logger, max_epochs=3).fit(module, **loaders())
    finally:
        wandb.finish()
    [file] = tmp_path.glob("wandb/offline-run-*/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    inspected = subprocess.run(command, capture_output=True, text=True, check=True)
    records = [json.loads(line) for line in inspected.stdout.splitlines()]
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    metrics = [record["metric"] for record in records if record["type"] == "metric"]
    axes = {m["name"]: m.get("step_metric") for m in metrics if m.get("name")}
    assert axes["attraction/q50"] == axes["attraction/repelled"] == axes["attraction/histogram"] == "attraction/epoch"
    assert not any("histogram" in str(record) for record in records if record["type"] == "summary")
    rows = [row for row in history if "attraction/q50" in row]
    assert [row["attraction/epoch"] for row in rows] == [0, 1, 2, 3]
    pulls = monitor.record.quantity("attraction")
    for name, expected in {
        "q05": np.quantile(pulls, 0.05, axis=1),
        "q95": np.quantile(pulls, 0.95, axis=1),
        "repelled": (pulls < 0).mean(1),
        "eps": np.median(monitor.record.quantity("eps"), axis=1),
    }.items():
        np.testing.assert_allclose([row[f"attraction/{name}"] for row in rows], expected, rtol=1e-4)
    text = json.dumps(history)
    assert text.count('"attraction/histogram') >= 4
    for medium in ("attraction/scatter", "attraction/samples"):
        assert medium in text
    for pattern in ("images/attraction/*.png", "table/attraction/*.json"):
        assert list(tmp_path.glob(f"wandb/offline-run-*/files/media/{pattern}"))


# Errors


def test_a_loss_outside_of_the_family_is_refused_before_the_training(api, tmp_path):
    for criterion in (nn.NLLLoss(), lambda logits, target: logits.sum(), nn.MSELoss()):
        module = classifier(api)()
        del module.criterion
        module.criterion = criterion
        with pytest.raises(ValueError, match="loss='criterion'"):
            trainer(api, tmp_path, [AttractionMonitor()]).fit(module, **loaders())
        assert not (tmp_path / "attraction.npz").exists()
    with pytest.raises(ValueError, match="no attribute 'objective'"):
        trainer(api, tmp_path, [AttractionMonitor(loss="objective")]).fit(classifier(api)(), **loaders())


def test_the_loss_is_that_of_the_search_beside_it(api, tmp_path):
    class Headed(api.LightningModule):
        def __init__(self):
            super().__init__()
            self.head = nn.Module()
            self.head.objective, self.net = nn.CrossEntropyLoss(), mlp()

        def training_step(self, batch):
            return self.head.objective(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    monitor, search = AttractionMonitor(), TaylorGLO("head.objective")
    fit = trainer(api, tmp_path, [monitor, search], fast_dev_run=True)
    fit.fit(Headed(), loader())
    assert monitor.slot.path == "head.objective"
    with pytest.raises(ValueError, match=r"AttractionMonitor: `loss='criterion'`: Headed has no attribute"):
        trainer(api, tmp_path, [AttractionMonitor()]).fit(Headed(), loader())


def test_a_loss_that_is_never_called(api, tmp_path):
    class Functional(classifier(api)):
        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

    with pytest.raises(ValueError, match="does not call the loss"):
        trainer(api, tmp_path, [AttractionMonitor()]).fit(Functional(), **loaders())


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("every_n_epochs", 0, ValueError),
        ("samples", 0, ValueError),
        ("samples", 2.5, TypeError),
        ("seed", -1, ValueError),
        ("loss", 3, TypeError),
        ("through", "backward", ValueError),
        ("filename", "a/b.npz", ValueError),
        ("filename", "b.txt", ValueError),
    ],
)
def test_refuses(argument, value, error):
    with pytest.raises(error, match=argument):
        AttractionMonitor(**{argument: value})


def test_a_loss_of_a_search_that_cannot_be_measured_costs_no_fit(tmp_path):
    """Logit adjustment is no sum over classes, and regression has none."""

    class Kept(TaylorGLO):
        def _search(self, trainer, pl_module):
            result = super()._search(trainer, pl_module)
            criterion = Criterion.of("logit_adjustment", [1.0, 0.5, 0.3, 0.2])
            return replace(result, kept="metalearned", best=replace(result.best, criterion=criterion))

    monitor = AttractionMonitor()
    search = Kept("criterion", "val/acc", **TINY | {"evaluator": "trainer"})
    fitting = quiet_trainer(pl, tmp_path, max_epochs=1, callbacks=[search, monitor])
    with pytest.warns(UserWarning, match="AttractionMonitor measures nothing in this fit"):
        fitting.fit(seeded(classifier(pl)), **loaders())
    assert fitting.current_epoch == 1
    assert monitor.record is None
