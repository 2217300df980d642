"""A search that keeps the original loss leaves the outer fit bit for bit as it would have been."""

import random

import numpy as np
import pytest
import torch
from helpers.data import blobs, loader, loaders, split_datamodule
from helpers.modules import TINY, classifier, cnn, mlp, quiet_trainer, seeded, theta_of

from tglo_lightning import TaylorGLO

# A tie keeps the original loss, and a constant metric is always a tie
CONSTANT = "val/constant"
TWO_EPOCHS = TINY | {"budget": 2}


def with_constant(api):
    class WithConstant(classifier(api)):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            super().validation_step(batch, batch_idx)
            self.log("val/constant", 1.0)

    return WithConstant


def states():
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "torch": torch.get_rng_state().tolist(),
    }


def assert_equal(one, two):
    """Equality to the bit through nested containers."""
    assert type(one) is type(two)
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_equal(one[key], two[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert_equal(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    else:
        assert one == two


def fit(api, tmp_path, callback, build, data, **trainer_kwargs):
    """What can be seen of a fit: weights, metrics, random states, counters, checkpoint."""
    random.seed(1), np.random.seed(2)  # noqa: NPY002
    module = seeded(build)
    rows = []

    class Rows(api.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            rows.append((trainer.global_step, outputs["loss"].item(), batch[0].sum().item()))

    trainer = quiet_trainer(
        api, tmp_path, callbacks=[Rows(), *([] if callback is None else [callback])], **trainer_kwargs
    )
    arguments = data()
    trainer.fit(module, **arguments)
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["callbacks"] = {k: v for k, v in checkpoint["callbacks"].items() if "TaylorGLO" not in k}
    return {
        "rows": rows,
        "metrics": {name: value.item() for name, value in trainer.callback_metrics.items()},
        "random": states(),
        "steps": (trainer.global_step, trainer.current_epoch),
        "checkpoint": checkpoint,
        "loss": type(module.criterion).__name__,
        "setups": getattr(arguments.get("datamodule"), "calls", None),
        "mode": module.training,
        "generators": [
            value.generator.get_state() for value in arguments.values() if getattr(value, "generator", None) is not None
        ],
    }


def own_generator(**kwargs):
    return {
        "train_dataloaders": loader(blobs(seed=1), shuffle=True, generator=torch.Generator().manual_seed(7)),
        "val_dataloaders": loader(blobs(48, seed=2)),
    }


@pytest.mark.parametrize(
    ("data", "evaluator"),
    [
        (loaders, "trainer"),
        (own_generator, "trainer"),
        (own_generator, "auto"),
        (split_datamodule, "auto"),
        (split_datamodule, "processes"),
    ],
)
def test_outer_fit_is_identical(api, tmp_path, data, evaluator):
    def source():
        return {"datamodule": split_datamodule(api)} if data is split_datamodule else data()

    def build():
        return with_constant(api)(mlp(dropout=0.3))

    search = TaylorGLO(monitor=CONSTANT, evaluator=evaluator, **TWO_EPOCHS)
    plain = fit(api, tmp_path, None, build, source)
    searched = fit(api, tmp_path, search, build, source)
    assert search.result.kept == "original"
    assert search.result.failed == 0
    assert_equal(searched, plain)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1},
        {"precision": "bf16-mixed"},
        {"precision": "64-true"},
        {"limit_train_batches": 3, "limit_val_batches": 0.5, "num_sanity_val_steps": 0},
        {"overfit_batches": 2},
        {"reload_dataloaders_every_n_epochs": 1},
        {"val_check_interval": 2},
    ],
    ids=lambda kwargs: next(iter(kwargs)),
)
def test_outer_fit_is_identical_with_batchnorm_and(tmp_path, kwargs):
    import pytorch_lightning as api

    def build():
        return with_constant(api)(cnn())

    def data():
        return loaders(images=True)

    if kwargs.get("precision") == "64-true":

        def data():
            arguments = loaders(images=True)
            for value in arguments.values():
                value.dataset.tensors = (value.dataset.tensors[0].double(), value.dataset.tensors[1])
            return arguments

    search = TaylorGLO(monitor=CONSTANT, evaluator="trainer", **TINY)
    plain = fit(api, tmp_path, None, build, data, **kwargs)
    searched = fit(api, tmp_path, search, build, data, **kwargs)
    assert search.result.failed == 0
    assert_equal(searched, plain)


def test_outer_fit_is_identical_after_crashed_candidates(api, tmp_path):
    class Crashing(with_constant(api)):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if type(self.criterion).__name__ == "TaylorGLOLoss" and batch_idx == 1 and self.criterion.theta.sum() > 1:
                raise RuntimeError("no such luck")
            return loss

    search = TaylorGLO(monitor=CONSTANT, evaluator="trainer", **TINY)
    plain = fit(api, tmp_path, None, Crashing, own_generator)
    searched = fit(api, tmp_path, search, Crashing, own_generator)
    assert 0 < search.result.failed < 4
    assert_equal(searched, plain)


def test_outer_fit_from_the_swap_on_equals_a_fit_with_that_loss(api, tmp_path):
    """With a metalearned loss kept, the fit is the one of a module that had this loss from the start."""

    class Opposed(classifier(api)):
        def validation_step(self, batch, batch_idx):
            self.log("val/taylor", float(type(self.criterion).__name__ == "TaylorGLOLoss"))

    search = TaylorGLO(monitor="val/taylor", evaluator="trainer", **TINY)
    searched = fit(api, tmp_path, search, lambda: Opposed(mlp(0.3)), own_generator)
    assert search.result.kept == "metalearned"

    from tglo_lightning.losses import TaylorGLOLoss

    theta = theta_of(search.result.best)
    given = fit(api, tmp_path, None, lambda: Opposed(mlp(0.3), TaylorGLOLoss(theta)), own_generator)
    assert_equal(searched, given)


def test_generators_of_datasets_go_on(tmp_path):
    import pytorch_lightning as api

    class Augmented(torch.utils.data.Dataset):
        def __init__(self):
            self.rng = np.random.default_rng(0)
            self.data = blobs(seed=1)

        def __len__(self):
            return len(self.data)

        def __getitem__(self, index):
            x, y = self.data[index]
            return x + float(self.rng.normal()), y

    def data():
        return {"train_dataloaders": loader(Augmented(), shuffle=True), "val_dataloaders": loader(blobs(48, seed=2))}

    search = TaylorGLO(monitor=CONSTANT, evaluator="trainer", **TINY)
    plain = fit(api, tmp_path, None, with_constant(api), data)
    assert_equal(fit(api, tmp_path, search, with_constant(api), data), plain)


def test_persistent_workers(tmp_path):
    import pytorch_lightning as api

    def data():
        arguments = loaders()
        arguments["train_dataloaders"] = loader(blobs(seed=1), shuffle=True, num_workers=1, persistent_workers=True)
        return arguments

    search = TaylorGLO(monitor=CONSTANT, evaluator="trainer", **TINY)
    plain = fit(api, tmp_path, None, with_constant(api), data)
    assert_equal(fit(api, tmp_path, search, with_constant(api), data), plain)
