"""What a race costs: a fit with ten networks side by side against the same fit without it.

    python benchmarks/race.py [--epochs 40] [--runs 3]

The MLP of `experiment=digits_noisy`, the fits in turns. Prints the median seconds of each fit, by the clock and of the
processor, and the ratios to the fit without a race.
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


def seconds(epochs: int, race: Race | None, evaluator: str) -> tuple[float, float]:
    """Wall-clock time and processor time of a fit."""
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
        started = time.perf_counter(), time.process_time()
        trainer.fit(module, datamodule=data)
        return time.perf_counter() - started[0], time.process_time() - started[1]


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
    races = {"race of ten": Race(), "the same, no halving": Race(halving=False)}
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in ("one training", *races)}
    for _ in range(arguments.runs):
        took["one training"].append(seconds(arguments.epochs, None, ""))
        for name, race in races.items():
            took[name].append(seconds(arguments.epochs, race, arguments.evaluator))
    medians = {name: [statistics.median(column) for column in zip(*times, strict=True)] for name, times in took.items()}
    one = medians["one training"]
    print(f"{'':20} {'clock':>9} {'':7} {'processor':>9}")
    for name, (clock, processor) in medians.items():
        print(f"{name:20} {clock:7.2f} s x {clock / one[0]:4.2f}  {processor:7.2f} s x {processor / one[1]:4.2f}")


if __name__ == "__main__":
    main()
