from pathlib import Path

import pytest
import torch
from helpers.hub import LAYOUTS, write_hub, write_human_labels

from tglo_lightning import data
from tglo_lightning.data import CIFAR10DataModule, CIFAR10NDataModule, MNISTDataModule, SVHNDataModule
from tglo_lightning.data.hub import load_columns, load_images

CLASSES = {
    "mnist": data.MNISTDataModule,
    "fashion_mnist": data.FashionMNISTDataModule,
    "cifar10": data.CIFAR10DataModule,
    "cifar100": data.CIFAR100DataModule,
    "svhn": data.SVHNDataModule,
}
# Of 60 images 20 are held out
THIRD = 20_000


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return write_hub(tmp_path_factory.mktemp("hub") / "mnist")


@pytest.fixture
def build(hub, tmp_path):
    def build(**kwargs):
        kwargs = {"source": str(hub), "val_size": THIRD, "batch_size": 16, "cache_dir": str(tmp_path)} | kwargs
        return MNISTDataModule(**kwargs)

    return build


def tensors(loader):
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_splits_are_disjoint_and_scaled(build):
    data = build()
    sizes = [len(tensors(loader)[1]) for loader in (data.train_dataloader(), data.val_dataloader())]
    assert sizes == [40, 20]
    images = torch.cat([tensors(data.train_dataloader())[0], tensors(data.val_dataloader())[0]])
    assert images.shape == (60, 1, 28, 28)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < 0.01
    assert 0.99 < images.max() <= 1
    assert len(torch.unique(images.flatten(1), dim=0)) == 60
    assert len(tensors(data.test_dataloader())[1]) == 30


def test_label_noise_spares_the_test_labels(build):
    clean, noisy = build(), build(label_noise=0.5)
    assert torch.equal(tensors(clean.test_dataloader())[1], tensors(noisy.test_dataloader())[1])
    changed = tensors(clean.val_dataloader())[1] != tensors(noisy.val_dataloader())[1]
    assert changed.sum() == 10


def test_a_share_of_the_training_samples_leaves_validation_as_it_is(build):
    whole, part = build(label_noise=0.3), build(label_noise=0.3, train_fraction=0.25)
    assert len(tensors(part.train_dataloader())[1]) == 10
    for one, other in zip(tensors(whole.val_dataloader()), tensors(part.val_dataloader()), strict=True):
        assert torch.equal(one, other)


def test_images_are_decoded_once(hub, tmp_path, monkeypatch):
    first = load_images(str(hub), "train", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    again = load_images(str(hub), "train", tmp_path)
    assert first[0].dtype == torch.uint8
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    with pytest.raises(ImportError, match=r"pip install 'tglo-lightning\[data\]'"):
        load_images(str(hub), "test", tmp_path)


def test_a_changed_copy_is_decoded_again(tmp_path):
    folder = write_hub(tmp_path / "copy", train=10)
    assert len(load_images(str(folder), "train", tmp_path)[0]) == 10
    for file in (folder / "mnist").iterdir():
        file.unlink()
    (folder / "mnist").rmdir()
    write_hub(folder, train=12)
    assert len(load_images(str(folder), "train", tmp_path)[0]) == 12


def test_reads_the_column_name_of_cifar(tmp_path):
    images, labels = load_images(str(write_hub(tmp_path / "other", column="img")), "train", tmp_path)
    assert images.shape == (60, 1, 28, 28)
    assert labels.tolist() == [i % 10 for i in range(60)]


@pytest.mark.parametrize("name", CLASSES)
def test_every_task_reads_a_copy_in_its_layout(name, tmp_path):
    folder = write_hub(tmp_path / name, **LAYOUTS[name])
    task = CLASSES[name](source=str(folder), val_size=CLASSES[name].official_train // 4, cache_dir=str(tmp_path))
    task.prepare_data()
    images, labels = tensors(task.train_dataloader())
    total = LAYOUTS[name].get("train", 60)
    assert images.shape == (total - round(total * task.val_size / task.official_train), *task.input_shape)
    assert len(task.mean) == len(task.std) == task.input_shape[0]
    assert labels.max() < task.num_classes == LAYOUTS[name].get("classes", 10)
    assert images.dtype == torch.float32
    assert task._split(0).tensors[0].dtype == torch.uint8
    # nothing is lost on the way
    pixels = torch.cat([images, tensors(task.val_dataloader())[0]]).mul(255).round()
    assert pixels.sum(dtype=torch.double) == load_images(str(folder), "train", tmp_path)[0].sum(dtype=torch.double)


@pytest.mark.parametrize(
    ("name", "train", "val"),
    [
        ("mnist", 55_000, 5_000),
        ("fashion_mnist", 55_000, 5_000),
        ("cifar10", 45_000, 5_000),
        ("cifar100", 45_000, 5_000),
        ("svhn", 47_225, 26_032),
    ],
)
def test_official_splits(name, train, val, monkeypatch):
    kind = CLASSES[name]

    def load(source, split, cache_dir, *, subset=None):
        assert (source, subset) == (kind.default_source, "cropped_digits" if name == "svhn" else None)
        count = kind.official_train if split == "train" else 10
        labels = torch.arange(count) % kind.num_classes
        return torch.zeros(1, dtype=torch.uint8).expand(count, *kind.input_shape), labels

    monkeypatch.setattr("tglo_lightning.data.images.load_images", load)
    monkeypatch.setattr("tglo_lightning.data.images.Pixels", lambda images, labels: labels)
    task = kind()
    assert [len(task._split(i)) for i in (0, 1)] == [train, val]


def test_a_smaller_copy_is_split_in_the_same_proportion(tmp_path):
    folder = write_hub(tmp_path / "cifar", train=200, **LAYOUTS["cifar10"])
    task = CIFAR10DataModule(source=str(folder), cache_dir=str(tmp_path))
    assert [len(task._split(i)) for i in range(3)] == [180, 20, 30]


def test_labels_given_by_people_are_for_training_and_validation(tmp_path):
    images = write_hub(tmp_path / "cifar10", **LAYOUTS["cifar10"])
    true = [i % 10 for i in range(60)]
    given = [(label + (i >= 30)) % 10 for i, label in enumerate(true)]
    table = write_human_labels(tmp_path / "human", label=true, worse=given, aggre_label=true)
    options = {"source": str(images), "labels_source": table, "val_size": 50_000 // 3, "cache_dir": str(tmp_path)}
    clean = CIFAR10DataModule(source=str(images), val_size=options["val_size"], cache_dir=str(tmp_path))
    worse, aggregate = CIFAR10NDataModule(**options), CIFAR10NDataModule(labels="aggregate", **options)
    wrong = 0
    for index in (0, 1):
        pixels, labels = worse._split(index).tensors
        assert torch.equal(pixels, clean._split(index).tensors[0])
        assert torch.equal(aggregate._split(index).tensors[1], clean._split(index).tensors[1])
        wrong += int((labels != clean._split(index).tensors[1]).sum())
    assert wrong == 30
    assert torch.equal(worse._split(2).tensors[1], clean._split(2).tensors[1])


def test_labels_of_other_images_are_refused(tmp_path):
    images = write_hub(tmp_path / "cifar10", **LAYOUTS["cifar10"])
    options = {"source": str(images), "cache_dir": str(tmp_path)}
    table = write_human_labels(tmp_path / "few", worse=[0] * 59)
    with pytest.raises(ValueError, match="one row for each of the 60"):
        CIFAR10NDataModule(labels_source=table, **options).setup()
    table = write_human_labels(tmp_path / "other", worse=[0] * 60, label=[0] * 60)
    with pytest.raises(ValueError, match="other images"):
        CIFAR10NDataModule(labels_source=table, **options).setup()
    with pytest.raises(ValueError, match="column 'random1' or 'random_label1'"):
        CIFAR10NDataModule(labels_source=table, labels="random1", **options).setup()


@pytest.mark.parametrize(("labels", "wrong"), [("worse", 0.41), ("random1", 0.17), ("aggregate", 0.09)])
def test_the_shares_of_wrong_labels_of_a_copy(labels, wrong):
    shared = Path(__file__).parents[3] / "shared" / "data"
    if not (shared / "cifar10n_subset").is_dir():
        pytest.skip("no copy of CIFAR-10N")
    columns = load_columns(str(shared / "cifar10n_subset"), "train", ["label", labels])
    assert float((columns[labels] != columns["label"]).float().mean()) == pytest.approx(wrong, abs=0.015)


def test_a_copy_of_other_images_is_refused(hub, tmp_path):
    with pytest.raises(ValueError, match=r"source .* has images of shape \(1, 28, 28\)"):
        CIFAR10DataModule(source=str(hub), cache_dir=str(tmp_path)).setup()


def test_a_copy_too_small_to_split_is_refused(hub, tmp_path):
    with pytest.raises(ValueError, match="val_size=100 of 60000 is 0 of the 60"):
        MNISTDataModule(source=str(hub), val_size=100, cache_dir=str(tmp_path)).setup()
    with pytest.raises(ValueError, match=r"train_fraction=0.001 of 55 samples"):
        MNISTDataModule(source=str(hub), train_fraction=0.001, cache_dir=str(tmp_path)).setup()


def test_a_copy_of_the_whole_repository_of_svhn(tmp_path):
    folder = write_hub(tmp_path / "svhn", **LAYOUTS["svhn"])
    write_hub(folder, shape=(20, 20, 3), subfolder="full_numbers")
    task = SVHNDataModule(source=str(folder), cache_dir=str(tmp_path))
    assert len(task._split(0)) + len(task._split(1)) == 60


def test_the_cache_stands_beside_that_of_the_hub(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    load_images(str(hub), "test")
    assert [path.suffix for path in (tmp_path / "home" / "tglo_lightning").iterdir()] == [".pt"]


def test_a_cache_that_cannot_be_written_is_no_obstacle(hub, tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="cache_dir"):
        images, _ = load_images(str(hub), "test", tmp_path / "file" / "cache")
    assert len(images) == 30


def test_normalisation_can_be_left_out(hub, tmp_path):
    assert MNISTDataModule(source=str(hub)).mean == (0.1307,)
    task = MNISTDataModule(source=str(hub), normalize=False)
    assert task.mean is task.std is None
    assert MNISTDataModule.mean is not None


def test_no_such_data_and_no_such_column(tmp_path):
    folder = write_hub(tmp_path / "pictures", column="picture")
    with pytest.raises(ValueError, match="must have a column 'image' or 'img'"):
        load_images(str(folder), "train", tmp_path)
    with pytest.raises(OSError, match="source=FOLDER") as caught:
        load_images(str(tmp_path / "nothing" / "here"), "train", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("val_size", 0),
        ("val_size", 60_000),
        ("train_fraction", 0.0),
        ("label_noise", 1.5),
        ("batch_size", 0),
        ("seed", -1),
    ],
)
def test_refuses(argument, value):
    with pytest.raises(ValueError, match=argument):
        MNISTDataModule(**{argument: value})
