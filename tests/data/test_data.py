import pytest
import torch
from torch.utils.data import TensorDataset

from tglo_lightning.data import DigitsDataModule, batch_loader, flip_labels


def test_images_labels_and_sizes():
    data = DigitsDataModule(train_size=600, val_size=400, batch_size=64)
    data.setup()
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    for loader, size in zip(loaders, (600, 400, 797), strict=True):
        images = torch.cat([x for x, _ in loader])
        labels = torch.cat([y for _, y in loader])
        assert images.shape == (size, 1, 8, 8)
        assert images.dtype == torch.float32
        assert images.min() == 0
        assert images.max() == 1
        assert labels.shape == (size,)
        assert set(labels.tolist()) == set(range(10))
    assert [len(y) for _, y in data.train_dataloader()] == [64] * 9 + [24]


def _labels(data):
    return [torch.cat([y for _, y in loader]) for loader in (data.val_dataloader(), data.test_dataloader())]


def test_noise_is_on_validation_and_training_labels_only():
    clean, noisy = DigitsDataModule(), DigitsDataModule(label_noise=0.4)
    (clean_val, clean_test), (noisy_val, noisy_test) = _labels(clean), _labels(noisy)
    assert torch.equal(clean_test, noisy_test)
    assert (clean_val != noisy_val).sum() == 0.4 * 400
    clean_train, noisy_train = clean._split(0).tensors[1], noisy._split(0).tensors[1]
    assert (clean_train != noisy_train).sum() == 0.4 * 1000
    half = DigitsDataModule(label_noise=0.4, train_fraction=0.5)
    assert torch.equal(half._split(0).tensors[1], noisy_train[:500])
    assert torch.equal(_labels(half)[0], noisy_val)


def test_task_depends_on_its_own_seed_alone():
    torch.manual_seed(1)
    first = _labels(DigitsDataModule(label_noise=0.4, seed=3))
    torch.manual_seed(2)
    again = _labels(DigitsDataModule(label_noise=0.4, seed=3))
    other = _labels(DigitsDataModule(label_noise=0.4, seed=4))
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))


def test_setup_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    DigitsDataModule(label_noise=0.4).setup()
    assert torch.equal(state, torch.get_rng_state())


def test_shuffling_follows_the_global_seed():
    data = DigitsDataModule()
    orders = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        orders.append(torch.cat([y for _, y in data.train_dataloader()]))
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"train_size": 0}, "train_size"),
        ({"val_size": 0}, "val_size"),
        ({"train_size": 1400, "val_size": 397}, "train_size"),
        ({"label_noise": 1.5}, "label_noise"),
        ({"label_noise": -0.1}, "label_noise"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
    ],
)
def test_refuses_values_out_of_range(arguments, name):
    with pytest.raises(ValueError, match=name):
        DigitsDataModule(**arguments)


def test_flipped_labels_are_wrong_and_uniform():
    labels = torch.zeros(90_000, dtype=torch.long)
    noisy = flip_labels(labels, 10, 1.0, torch.Generator().manual_seed(0))
    counts = noisy.bincount(minlength=10)
    assert counts[0] == 0
    # 10,000 expected in each other class, with a standard deviation of 94
    assert (counts[1:] - 10_000).abs().max() < 500
    assert torch.equal(labels, torch.zeros_like(labels))


def test_flip_labels_refuses_bad_arguments():
    generator = torch.Generator()
    with pytest.raises(ValueError, match="num_classes"):
        flip_labels(torch.zeros(3), 1, 0.5, generator)
    with pytest.raises(ValueError, match="shape"):
        flip_labels(torch.zeros(3, 2), 10, 0.5, generator)


def test_batch_loader_keeps_pairs_together():
    values = torch.arange(10)
    batches = list(batch_loader(TensorDataset(values, values * 2), 4, shuffle=True))
    assert [len(a) for a, _ in batches] == [4, 4, 2]
    assert all(torch.equal(2 * a, b) for a, b in batches)
    assert sorted(torch.cat([a for a, _ in batches]).tolist()) == list(range(10))
