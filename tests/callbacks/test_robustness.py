"""RobustnessMonitor within real trainings and searches."""

import pytest
import torch
from helpers.modules import TINY, classifier, cnn, quiet_trainer, seeded
from torch.utils.data import DataLoader, TensorDataset

from tglo_lightning import RobustnessMonitor, TaylorGLO
from tglo_lightning.attacks import FGSM, PGD, Square, evaluate_robustness
from tglo_lightning.losses import BrierLoss
from tglo_lightning.search import Budget

pytest.importorskip("foolbox")
CLASSES = 3


def dataset(count, seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % CLASSES
    x = 0.5 * torch.rand(count, 1, 8, 8, generator=generator)
    for i, label in enumerate(y.tolist()):
        x[i, :, 2 * label : 2 * label + 3] += 0.4
    return TensorDataset(x, y)


def loaders(batch_size=16):
    return {
        "train_dataloaders": DataLoader(dataset(96, 1), batch_size=16, shuffle=True),
        "val_dataloaders": DataLoader(dataset(40, 2), batch_size=batch_size),
    }


def module(api, criterion=None):
    return seeded(lambda: classifier(api)(cnn(), criterion))


def trained(api, tmp_path, *callbacks, criterion=None, **kwargs):
    trainer = quiet_trainer(api, tmp_path, callbacks=list(callbacks), **kwargs)
    net = module(api, criterion)
    torch.manual_seed(1)
    trainer.fit(net, **loaders())
    return trainer, net


def test_it_logs_what_the_evaluation_says(api, tmp_path):
    monitor = RobustnessMonitor("fgsm", epsilon=0.1, weight=0.25)
    trainer, net = trained(api, tmp_path, monitor, criterion=BrierLoss())
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    x, y = dataset(40, 2).tensors
    report = evaluate_robustness(net.eval(), (x, y), [FGSM("own"), FGSM("cross_entropy")], 0.1, checks=False)
    assert metrics["val/robust_acc"] == pytest.approx(report.worst(0.1))
    assert metrics["val/robust_acc_own"] == pytest.approx(report.accuracy("fgsm-own", 0.1))
    assert metrics["val/robust_acc_cross_entropy"] == pytest.approx(report.accuracy("fgsm-cross_entropy", 0.1))
    assert metrics["val/weighted_acc"] == pytest.approx(0.25 * report.worst(0.1) + 0.75 * report.clean_accuracy)
    assert report.worst(0.1) < report.clean_accuracy


def test_the_training_is_bit_for_bit_the_same(api, tmp_path):
    _, plain = trained(api, tmp_path)
    _, watched = trained(api, tmp_path, RobustnessMonitor("pgd", epsilon=0.1))
    for (name, a), b in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_every_n_epochs(api, tmp_path, monkeypatch):
    measured = []
    from tglo_lightning.callbacks import robustness

    def spy(*args, **kwargs):
        measured.append(trainer.current_epoch if trainer.state.fn == "fit" else "validate")
        return evaluate_robustness(*args, **kwargs)

    monkeypatch.setattr(robustness, "evaluate_robustness", spy)
    trainer = quiet_trainer(api, tmp_path, max_epochs=4, callbacks=[RobustnessMonitor(every_n_epochs=2)])
    net = module(api)
    trainer.fit(net, **loaders(batch_size=40))
    assert measured == [1, 3]
    trainer.validate(net, loaders()["val_dataloaders"], verbose=False)
    assert measured[2:] == ["validate"] * 3


def test_samples_bound_the_work(api, tmp_path):
    monitor = RobustnessMonitor(epsilon=0.1, samples=20)
    trainer, net = trained(api, tmp_path, monitor)
    x, y = dataset(40, 2).tensors
    report = evaluate_robustness(net.eval(), (x[:20], y[:20]), FGSM("own"), 0.1, checks=False)
    assert float(trainer.callback_metrics["val/robust_acc"]) == pytest.approx(report.worst(0.1))


def test_epsilon_0_is_the_clean_accuracy(api, tmp_path):
    trainer, _ = trained(api, tmp_path, RobustnessMonitor(PGD("margin"), epsilon=0))
    metrics = trainer.callback_metrics
    assert float(metrics["val/robust_acc"]) == float(metrics["val/weighted_acc"])
    assert float(metrics["val/robust_acc"]) == pytest.approx(float(metrics["val/acc"]))


def test_a_gradient_free_attack_has_one_figure(api, tmp_path):
    pytest.importorskip("pyautoattack")
    trainer, _ = trained(api, tmp_path, RobustnessMonitor(Square(queries=5), epsilon=0.1), max_epochs=1)
    names = {name for name in trainer.callback_metrics if name.startswith("val/")}
    assert names == {"val/acc", "val/robust_acc", "val/weighted_acc"}


@pytest.mark.parametrize(
    ("evaluator", "monitor"), [("vectorized", "val/robust_acc"), ("processes", "val/weighted_acc")]
)
def test_a_search_optimises_it(evaluator, monitor, tmp_path):
    import pytorch_lightning as api

    watch = RobustnessMonitor("fgsm", epsilon=0.05, samples=24)
    options = TINY | {"budget": Budget(steps=6, callbacks=[watch]), "population": 3}
    fitness = {}
    for name in ("trainer", evaluator):
        search = TaylorGLO(monitor=monitor, evaluator=name, seed=1, **options)
        trained(api, tmp_path, search, max_epochs=1)
        assert search.result.settings["evaluator"] == name
        assert [candidate.status for candidate in search.result.history] == ["ok"] * 3
        fitness[name] = [candidate.fitness for candidate in search.result.history]
        assert all(0 <= value <= 1 for value in fitness[name])
    assert fitness[evaluator] == pytest.approx(fitness["trainer"], abs=0.05)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"attack": "deepfool"}, ValueError),
        ({"attack": FGSM}, TypeError),
        ({"every_n_epochs": 0}, ValueError),
        ({"every_n_epochs": 1.5}, TypeError),
        ({"epsilon": -1}, ValueError),
        ({"norm": "l1"}, ValueError),
        ({"losses": ()}, TypeError),
        ({"losses": "own"}, TypeError),
        ({"losses": ("hinge",)}, ValueError),
        ({"weight": 1.5}, ValueError),
        ({"samples": 0}, ValueError),
        ({"bounds": (1, 0)}, ValueError),
        ({"loss": "a b"}, ValueError),
    ],
)
def test_arguments_out_of_range(options, error):
    with pytest.raises(error):
        RobustnessMonitor(**options)


def test_what_cannot_be_attacked_is_told(tmp_path):
    import pytorch_lightning as api

    with pytest.raises(ValueError, match="no attribute 'loss_fn'"):
        trained(api, tmp_path, RobustnessMonitor(loss="loss_fn"))
    with pytest.raises(ValueError, match="Pixels must lie in bounds"):
        trained(api, tmp_path, RobustnessMonitor(bounds=(0, 0.5)))

    class Dictionaries(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            return {"x": torch.zeros(1, 8, 8), "y": 0}

    class Module(classifier(api)):
        def validation_step(self, batch, batch_idx):
            self.log("val/acc", 1.0)

    trainer = quiet_trainer(api, tmp_path, callbacks=[RobustnessMonitor()])
    with pytest.raises(TypeError, match=r"batches \(images, labels\)"):
        trainer.validate(Module(cnn()), DataLoader(Dictionaries()), verbose=False)


def test_mixed_precision(tmp_path):
    import pytorch_lightning as api

    trainer, _ = trained(api, tmp_path, RobustnessMonitor(epsilon=0.05), precision="bf16-mixed", max_epochs=1)
    assert 0 <= float(trainer.callback_metrics["val/robust_acc"]) <= 1
