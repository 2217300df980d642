import pickle
from functools import cache, partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.functional import pad

from tglo_lightning import TaylorGLO
from tglo_lightning.data import BatchAugmentation, DigitsDataModule
from tglo_lightning.data.augment import cut_out, mix_up
from tglo_lightning.models import MLP, Classifier
from tglo_lightning.search import Budget, Finals, TaylorSpace

pytest.importorskip("kornia")

BATCH, SIDE, CLASSES = 48, 12, 5
OFF = {"crop_padding": 0, "flip": False}
FULL = {"crop_padding": 1, "cutout": 3, "cutmix": 0.5}


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(BATCH, 3, SIDE, SIDE, generator=generator), torch.arange(BATCH) % CLASSES


def apply(batch, seed=0, fill=None, **kwargs):
    torch.manual_seed(seed)
    return BatchAugmentation(**kwargs)(*batch, num_classes=CLASSES, fill=fill)


def test_a_crop_is_a_shift_into_black(batch):
    images, labels = batch
    cropped, same = apply(batch, flip=False)
    assert same is labels
    padded = pad(images, (4, 4, 4, 4))
    shifts = {
        (r, c): padded[:, :, r : r + SIDE, c : c + SIDE].sub(cropped).flatten(1).abs().amax(1) < 1e-6
        for r in range(9)
        for c in range(9)
    }
    assert torch.stack(list(shifts.values())).any(0).all()
    # shifts differ from image to image, and reach all the way
    used = [shift for shift, hit in shifts.items() if hit.any()]
    assert len(used) > 20
    assert {0, 8} <= {r for r, _ in used}
    assert {0, 8} <= {c for _, c in used}


def test_about_half_of_the_images_are_mirrored(batch):
    images, _ = batch
    flipped, _ = apply(batch, crop_padding=0)
    kept = flipped.eq(images).flatten(1).all(1)
    mirrored = flipped.eq(images.flip(3)).flatten(1).all(1)
    assert (kept ^ mirrored).all()
    assert 12 <= mirrored.sum() <= 36


def test_cutout_paints_a_square_that_may_reach_over_the_border():
    torch.manual_seed(0)
    images = torch.rand(4000, 1, 8, 8)
    cut = cut_out(images, 4, fill=[0.5]) != images
    rows, columns = cut.any(3).squeeze(1), cut.any(2).squeeze(1)
    assert torch.equal(cut.squeeze(1), rows[:, :, None] & columns[:, None, :])
    heights = rows.sum(1).bincount(minlength=5)
    # centre c paints rows c - 2 to c + 1: 2 rows for c = 0, 3 for c = 1 and for c = 7, 4 for the other five
    assert heights[:2].sum() == 0
    assert (heights[2:] / 4000 - torch.tensor([1, 2, 5]) / 8).abs().max() < 0.03


def test_cutout_takes_the_mean_colour(batch):
    images, _ = batch
    cut, _ = apply(batch, **OFF, cutout=6, fill=(0.1, 0.2, 0.3))
    changed = cut != images
    assert changed.any(1).any(2).any(1).all()
    for channel, colour in enumerate((0.1, 0.2, 0.3)):
        assert (cut[:, channel][changed[:, channel]] - colour).abs().max() < 1e-6


def test_cutmix_mixes_labels_by_area():
    # constant images tell which pixels come from where
    labels = torch.arange(BATCH) % CLASSES
    images = labels.float().view(-1, 1, 1, 1).expand(BATCH, 1, SIDE, SIDE) / CLASSES
    mixed, targets = apply((images, labels), **OFF, cutmix=1.0)
    assert targets.shape == (BATCH, CLASSES)
    found = (mixed * CLASSES).round().long().flatten(1)
    area = torch.stack([(found == k).float().mean(1) for k in range(CLASSES)], dim=1)
    assert (area - targets).abs().max() < 1e-5
    assert (targets.amax(1) < 1).float().mean() > 0.4


def test_cutmix_for_half_of_the_batches(batch):
    mixed = [bool((apply(batch, seed, **OFF, cutmix=0.5)[1].amax(1) < 1).any()) for seed in range(60)]
    assert 18 <= sum(mixed) <= 42
    # labels have one form, mixed or not
    assert all(apply(batch, seed, **OFF, cutmix=0.5)[1].shape == (BATCH, CLASSES) for seed in range(3))


def test_mixup_averages_with_one_weight():
    torch.manual_seed(0)
    targets = torch.eye(6)
    images = targets.clone()
    weights = []
    for _ in range(300):
        mixed, soft = mix_up(images, targets, 1.0, 0.4)
        assert torch.equal(mixed, soft)
        assert torch.allclose(soft.sum(1), torch.ones(6))
        diagonal = soft.diagonal()[soft.diagonal() < 1]
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal))
        weights += diagonal[:1].tolist()
    # Beta(0.4, 0.4): mean 1/2, variance 1 / (4 (2 alpha + 1))
    assert torch.tensor(weights).mean() == pytest.approx(0.5, abs=0.08)
    assert torch.tensor(weights).var() == pytest.approx(1 / 7.2, abs=0.03)


@pytest.mark.parametrize("kwargs", [FULL, {"mixup": 1.0, "mixup_alpha": 0.2}], ids=["cutmix", "mixup"])
def test_repeats_with_the_seed_and_leaves_its_input(batch, kwargs):
    images, labels = batch[0].clone(), batch[1].clone()
    first, again, other = (apply(batch, seed, **kwargs) for seed in (0, 0, 1))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])
    assert torch.equal(batch[0], images)
    assert torch.equal(batch[1], labels)
    assert first[0].dtype == first[1].dtype == torch.float32
    assert torch.allclose(first[1].sum(1), torch.ones(BATCH))
    assert 0 <= first[0].min() <= first[0].max() <= 1


def test_survives_a_trip_to_another_process(batch):
    sent = pickle.loads(pickle.dumps(BatchAugmentation(**FULL)))
    torch.manual_seed(0)
    assert torch.equal(sent(*batch, num_classes=CLASSES)[0], apply(batch, **FULL)[0])


def test_no_kornia(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "kornia.augmentation", None)
    with pytest.raises(ImportError, match=r"pip install 'tglo-lightning\[vision\]'"):
        BatchAugmentation()


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [
        ({"crop_padding": -1}, "crop_padding"),
        ({"cutout": -1}, "cutout"),
        ({"cutmix": 2}, "cutmix"),
        ({"mixup": -0.1}, "mixup"),
        ({"cutmix": 0.5, "mixup": 0.5}, "cannot both"),
        ({"cutmix_alpha": 0}, "cutmix_alpha"),
        ({"mixup_alpha": float("nan")}, "mixup_alpha"),
    ],
)
def test_refuses(kwargs, name):
    with pytest.raises(ValueError, match=name):
        BatchAugmentation(**kwargs)


def test_refuses_what_is_no_batch_of_images():
    with pytest.raises(ValueError, match="augment needs images"):
        BatchAugmentation()(torch.rand(4, 8), torch.zeros(4).long(), num_classes=2)
    with pytest.raises(TypeError, match="augment must be a function"):
        DigitsDataModule(augment="cutout")


class Counted:
    """Counts the batches that an augmentation is asked for."""

    def __init__(self):
        self.augment = BatchAugmentation(**FULL)
        self.calls = 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return self.augment(*args, **kwargs)


def trainer(tmp_path, **kwargs):
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", default_root_dir=tmp_path, enable_model_summary=False, **silent, **kwargs)


def module():
    net = MLP(input_shape=(1, 8, 8), num_classes=10, hidden=(16,))
    return Classifier(net, nn.CrossEntropyLoss(), 10, partial(torch.optim.SGD, lr=0.1, momentum=0.9))


def test_only_training_batches_are_augmented(tmp_path):
    augment = Counted()
    data = DigitsDataModule(train_size=160, val_size=40, batch_size=32, augment=augment)
    fitted = trainer(tmp_path, max_epochs=2)
    fitted.fit(module(), datamodule=data)
    fitted.test(fitted.lightning_module, datamodule=data, verbose=False)
    assert augment.calls == 10
    # nor where there is no Trainer
    assert next(iter(data.train_dataloader()))[1].shape == (32,)
    assert augment.calls == 10


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """A search over augmented digits: the fitness of each candidate, and the batches augmented in all."""

    def run(evaluator, population):
        pl.seed_everything(0, verbose=False)
        augment = Counted()
        data = DigitsDataModule(train_size=160, val_size=400, batch_size=32, augment=augment)
        options = {"generations": 1, "population": population, "budget": Budget(steps=15), "finals": Finals(1, 0, 1)}
        options |= {"report": False}
        search = TaylorGLO(evaluator=evaluator, space=TaylorSpace(constraint="stable"), seed=1, **options)
        trainer(tmp_path_factory.mktemp(evaluator), max_steps=1, callbacks=[search]).fit(module(), datamodule=data)
        return [candidate.fitness for candidate in search.result.history], augment.calls

    return cache(run)


def test_a_batch_is_augmented_once_for_the_whole_population(search):
    assert search("vectorized", 3)[1] == search("vectorized", 6)[1]
    assert search("trainer", 6)[1] - search("vectorized", 6)[1] > 4 * 15


def test_both_evaluators_train_on_the_same_augmented_batches(search):
    together, _ = search("vectorized", 6)
    assert len(set(together)) > 1
    assert together == pytest.approx(search("trainer", 6)[0], abs=0.006)
