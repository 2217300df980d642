import numpy as np
import pytest
import torch

from tglo_lightning.losses import TaylorGLOLoss, as_loss
from tglo_lightning.reporting.attraction import AttractionRecord, measure

# Settles at eps = 0.469 with 10 classes (arXiv 2010.00788)
THETA = [-10.9408, 7.5216, 8.2896, 0.2415, 7.8726, 8.9666, 2.0184, 7.0513]


def record_of(loss, epochs=(0, 2, 4), samples=60):
    loss = as_loss(loss)
    target = torch.arange(samples) % 10
    record = AttractionRecord(torch.arange(samples) + 1000, target, 10)
    noise = 0.3 * torch.randn(samples, 10, generator=torch.Generator().manual_seed(0))
    for epoch in epochs:
        logits = noise.scatter_add(1, target[:, None], torch.full((samples, 1), 1.5 * epoch))
        record.append(epoch, 7 * epoch, loss, measure(loss, logits, target))
    return record


@pytest.fixture(scope="module")
def records():
    return {"cross-entropy": record_of("cross_entropy"), "metalearned": record_of(TaylorGLOLoss(THETA))}


def test_the_record_comes_back_from_its_file_and_its_state(records, tmp_path):
    for name, record in records.items():
        again = AttractionRecord.load(record.save(tmp_path / "deep" / f"{name}.npz"))
        torch.save(record.state_dict(), tmp_path / "state.pt")
        state = AttractionRecord.from_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        for other in (again, state):
            for key, value in record.arrays().items():
                np.testing.assert_array_equal(other.arrays()[key], value)
            assert other.scalars() == record.scalars()


def test_refuses_what_is_no_record(tmp_path, records):
    np.savez(tmp_path / "other.npz", a=1)
    np.save(tmp_path / "other.npy", np.ones(2))
    for name in ("other.npz", "other.npy"):
        with pytest.raises(ValueError, match="no file of AttractionMonitor"):
            AttractionRecord.load(tmp_path / name)
    with pytest.raises(ValueError, match="one of"):
        records["metalearned"].quantity("pull")


def test_an_epoch_measured_again_replaces_what_came_after(records):
    record = record_of("cross_entropy", epochs=(0, 1, 2, 3))
    record.append(2, 1, as_loss("brier"), record.values[0])
    assert record.epochs == [0, 1, 2]
    assert record.losses[-1].startswith("BrierLoss")


def test_rows_tell_when_a_sample_was_first_pushed_away(records):
    columns, rows = records["metalearned"].rows()
    assert len(rows) == 60
    first = [row[columns.index("first_repelled")] for row in rows]
    assert set(first) == {2, 4}
    columns, rows = records["cross-entropy"].rows()
    assert {row[columns.index("first_repelled")] for row in rows} == {-1}


def test_scalars(records):
    scalars = records["metalearned"].scalars()
    pulls = records["metalearned"].quantity("attraction")[-1]
    assert scalars["repelled"] == 1.0
    assert scalars["mean"] == pytest.approx(pulls.mean())
    assert scalars["q25"] == pytest.approx(np.quantile(pulls, 0.25))
    assert scalars["gamma_T"] == pytest.approx(np.median(records["metalearned"].quantity("gamma_T")[-1]))
