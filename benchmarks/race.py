"""What a race costs: a fit with ten networks side by side against the same fit without it.

    python benchmarks/race.py [--epochs 40] [--runs 3]

The MLP of `experiment=digits_noisy`. Prints the seconds of both fits, in turns, and their ratio.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from functools import partial

import pytorch_lightning as pl
import torch

from tglo_lightning import TaylorGLO
from tglo_lightning.data import DigitsDataModule
from tglo_lightning.losses import CrossEntropyLoss
from tglo_lightning.models import MLP, Classifier
from tglo_lightning.search import Race


def seconds(epochs: int, race: Race | None, evaluator: str) -> float:
    """Wall-clock time of a fit."""
    pl.seed_everything(0, verbose=False)
    data = DigitsDataModule(train_size=600, val_size=400, label_noise=0.4)
    data.prepare_data()
    data.setup()
    net = MLP(input_shape=data.input_shape, num_classes=data.num_classes)
    module = Classifier(net, CrossEntropyLoss(), data.num_classes, partial(torch.optim.Adam, lr=0.02))
    callbacks = [] if race is None else [TaylorGLO(strategy=race, evaluator=evaluator, report=False)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        started = time.perf_counter()
        trainer.fit(module, datamodule=data)
        return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--evaluator", default="vectorized")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch", "tglo_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    seconds(2, None, "")
    races = {"race of ten": Race(), "the same, halving": Race(halving=True)}
    took: dict[str, list[float]] = {name: [] for name in ("one training", *races)}
    for _ in range(arguments.runs):
        took["one training"].append(seconds(arguments.epochs, None, ""))
        for name, race in races.items():
            took[name].append(seconds(arguments.epochs, race, arguments.evaluator))
    one = statistics.median(took["one training"])
    for name, times in took.items():
        middle = statistics.median(times)
        print(f"{name:20} {middle:6.2f} s  x {middle / one:.2f}  ({', '.join(f'{t:.2f}' for t in times)})")


if __name__ == "__main__":
    main()
