"""The numbers of this recipe's README, from the files of a run.

    python recipes/attraction/measure.py outputs/.../ [--digits]

Over the fresh seeds of each loss: the share of repelled samples, and confidence at the end beside the predicted
equilibrium. With ``--digits`` (a run of attraction_digits) the same by whether the label is right.
"""

import sys
from pathlib import Path

import numpy as np

from tglo_lightning.data import DigitsDataModule
from tglo_lightning.reporting.attraction import AttractionRecord


def mislabelled(record: AttractionRecord) -> np.ndarray:
    """Which samples of `digits_noisy` have a wrong label: the same split without the noise knows."""
    clean = DigitsDataModule(train_size=600, val_size=400, label_noise=0.0)
    labels = clean.train_dataloader().dataset.tensors[1]
    return (labels[record.index] != record.target).numpy()


def report(name: str, confidence: np.ndarray, pulls: np.ndarray) -> None:
    """One line on the last measurement of all seeds."""
    low, middle, high = np.quantile(confidence, [0.05, 0.5, 0.95])
    above, below = np.mean(confidence > 0.9), np.mean(confidence < 0.1)
    print(
        f"  {name}: confidence q05 {low:.3f}, median {middle:.3f}, q95 {high:.3f}; above 0.9: {above:.1%}, below 0.1:",
        end="",
    )
    print(f" {below:.1%}; median attraction {np.median(pulls):.2g}, least {pulls.min():.2g}")


def main(run: Path, noisy_digits: bool) -> None:
    """Print what the records of a run hold."""
    for kind in ("original", "metalearned"):
        records = [AttractionRecord.load(path) for path in sorted(run.glob(f"seeds/{kind}-*/attraction.npz"))]
        if not records:
            continue
        rests = ", ".join(f"{1 - eps:.4f}" for eps in records[0].equilibria[-1]) or "none below 1"
        print(f"{kind}: {records[0].losses[-1]}\n  predicted equilibrium: {rests}")
        shares = np.array([(record.quantity("attraction") < 0).mean(1) for record in records])
        pushed = np.flatnonzero(shares.max(0))
        first = records[0].epochs[pushed[0]] if len(pushed) else "never"
        print(
            f"  pushed away: first at epoch {first}, at most {shares.max():.1%}, at the end {shares[:, -1].mean():.1%}"
        )
        confidence = np.concatenate([1 - record.quantity("eps")[-1] for record in records])
        pulls = np.concatenate([record.quantity("attraction")[-1] for record in records])
        report("all samples", confidence, pulls)
        if noisy_digits:
            wrong = np.tile(mislabelled(records[0]), len(records))
            report("label right", confidence[~wrong], pulls[~wrong])
            report("label wrong", confidence[wrong], pulls[wrong])


if __name__ == "__main__":
    main(Path(sys.argv[1]), noisy_digits="--digits" in sys.argv)
