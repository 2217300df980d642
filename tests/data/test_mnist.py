import pytest
import torch
from helpers.hub import write_hub

from tglo_lightning.data import MNISTDataModule
from tglo_lightning.data.hub import load_images


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return write_hub(tmp_path_factory.mktemp("hub") / "mnist")


@pytest.fixture
def build(hub, tmp_path):
    def build(**kwargs):
        kwargs = {"source": str(hub), "val_size": 20, "batch_size": 16, "cache_dir": str(tmp_path)} | kwargs
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


def test_no_such_data_and_no_such_column(tmp_path):
    folder = write_hub(tmp_path / "pictures", column="picture")
    with pytest.raises(ValueError, match="must have a column 'image' or 'img'"):
        load_images(str(folder), "train", tmp_path)
    with pytest.raises(OSError, match="source=FOLDER"):
        load_images(str(tmp_path / "nothing" / "here"), "train", tmp_path)


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
