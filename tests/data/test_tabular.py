import pytest
import torch

from tglo_lightning.data import TabularDataModule


def tensors(loader):
    inputs, labels = zip(*loader, strict=True)
    return torch.cat(inputs), torch.cat(labels)


@pytest.mark.parametrize(("source", "shape", "classes"), [("wine", (13,), 3), ("breast_cancer", (30,), 2)])
def test_bundles(source, shape, classes):
    task = TabularDataModule(source=source)
    assert (task.input_shape, task.num_classes) == (shape, classes)
    inputs, labels = tensors(task.train_dataloader())
    assert inputs.dtype == torch.float32
    assert inputs.mean(0).abs().max() < 1e-5
    assert (inputs.std(0, correction=0) - 1).abs().max() < 1e-5
    sizes = [len(labels), *(len(tensors(loader)[1]) for loader in (task.val_dataloader(), task.test_dataloader()))]
    total = {"wine": 178, "breast_cancer": 569}[source]
    assert sum(sizes) == total
    assert sizes[1:] == pytest.approx([0.2 * total] * 2, abs=1)
    # every split has its share of each class
    share = labels.bincount() / len(labels)
    for loader in (task.val_dataloader(), task.test_dataloader()):
        held = tensors(loader)[1]
        assert (held.bincount() / len(held) - share).abs().max() < 0.03


def test_splits_depend_on_the_seed_alone():
    splits = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(splits))
        splits.append(tensors(TabularDataModule(seed=seed).val_dataloader())[0])
    assert torch.equal(splits[0], splits[1])
    assert not torch.equal(splits[0], splits[2])


def test_noise_and_share_spare_the_test_set():
    clean, noisy = TabularDataModule(), TabularDataModule(label_noise=0.5, train_fraction=0.5)
    assert torch.equal(tensors(clean.test_dataloader())[1], tensors(noisy.test_dataloader())[1])
    assert (tensors(clean.val_dataloader())[1] != tensors(noisy.val_dataloader())[1]).sum() == 18
    assert len(noisy._split(0)) == len(clean._split(0)) // 2


TABLE = """size,colour,kind,weight
1.5,red,b,10
2.5,green,a,20
{rows}"""


@pytest.fixture
def table(tmp_path):
    def write(text=None, name="table.csv"):
        rows = "".join(f"{i},{'red' if i % 2 else 'green'},{'ab'[i % 2]},{2 * i}\n" for i in range(38))
        path = tmp_path / name
        path.write_text(TABLE.format(rows=rows) if text is None else text)
        return str(path)

    return write


def test_a_csv_file_with_words(table):
    task = TabularDataModule(source=table(), target="kind")
    assert task.classes == ["a", "b"]
    assert task.features == ["size", "colour=green", "colour=red", "weight"]
    inputs, labels = tensors(task.train_dataloader())
    assert inputs.shape == (24, 4)
    # in the table the class follows the colour, but for its first two rows
    assert (inputs[:, 2] > 0).eq(labels == 1).float().mean() > 0.9


def test_classes_that_are_numbers_are_in_their_order(table):
    text = "x,class\n" + "".join(f"{i},{(i % 3) * 5}\n" for i in range(30))
    assert TabularDataModule(source=table(text)).classes == ["0", "5", "10"]


def test_a_constant_feature(table):
    text = "x,same,class\n" + "".join(f"{i},7,{i % 2}\n" for i in range(30))
    inputs, _ = tensors(TabularDataModule(source=table(text)).train_dataloader())
    assert inputs[:, 1].abs().max() == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n1,2\n", "target 'class' is no column"),
        ("x,class\n1\n", "row 1 after the header"),
        ("x,class\n1,a\n,b\n", "row 2 after the header"),
        ("x,class\nnan,a\n1,b\n", "column 'x' must hold finite numbers"),
        ("x,class\n", "must have rows"),
        ("class\na\n", "must have rows"),
        ("", "is no column"),
        ("x,class\n1,a\n2,a\n", "at least 2 classes"),
    ],
)
def test_refuses_tables_that_do_not_fit(table, text, message):
    with pytest.raises(ValueError, match=message):
        TabularDataModule(source=table(text))


def test_a_rare_class_is_named(table):
    text = "x,class\n" + "".join(f"{i},{'rare' if i == 3 else 'often'}\n" for i in range(30))
    with pytest.raises(ValueError, match="class 'rare' with 1 of 30"):
        TabularDataModule(source=table(text)).setup()


def test_no_such_file():
    with pytest.raises(FileNotFoundError, match=r"CSV file or one of wine"):
        TabularDataModule(source="nothing.csv")


@pytest.mark.parametrize(
    "arguments",
    [{"val_fraction": 0.0}, {"test_fraction": 1.0}, {"val_fraction": 0.6, "test_fraction": 0.5}, {"train_fraction": 2}],
)
def test_refuses_values_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        TabularDataModule(**arguments)
