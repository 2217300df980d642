import json

import pytest
from helpers.command import TINY, in_process

from tglo_lightning.reporting.attraction import AttractionRecord

WATCHED = ("callbacks=attraction", "callbacks.attraction.samples=30", "trainer.max_epochs=2", "logger=none")
REPORTED = ("search/space=minimal", "search.space.constraint=stable", "evaluation.report=true")


def test_both_losses_are_watched_and_drawn_side_by_side(tmp_path):
    pytest.importorskip("matplotlib")
    printed = in_process(tmp_path, "train", *WATCHED, *TINY[1:], *REPORTED, f"hydra.run.dir={tmp_path / 'run'}")
    run = tmp_path / "run"
    assert (run / "attraction.png").read_bytes().startswith(b"\x89PNG")
    assert str(run / "attraction.png") in printed
    losses = json.loads((run / "result.json").read_text())["losses"]
    assert str(run / "report.html") in printed
    text = (run / "report.html").read_text()
    assert text.count('aria-label="Attraction, ') == 2
    assert 'aria-label="val/acc over' in text
    assert f"tglo-train {WATCHED[0]} {WATCHED[1]}" in text
    records = {}
    for kind, loss in losses.items():
        for i in range(2):
            record = AttractionRecord.load(run / "seeds" / f"{kind}-{i}" / "attraction.npz")
            assert record.epochs == [0, 1, 2]
            assert all(text.startswith(loss["name"]) for text in record.losses)
            records[kind, i] = record
    # The same samples in both, from the same weights
    assert (records["original", 0].index == records["metalearned", 0].index).all()
    eps = [records[kind, 0].quantity("eps")[0] for kind in losses]
    assert eps[0].tolist() == eps[1].tolist()
