"""What a user's script is to the tests: a search, then a training, on as many ranks as asked for.

Each rank writes what it ended with to ``<folder>/rank-<number>.json``.
"""

import argparse
import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torch.distributed as dist
from helpers.data import blobs, loader, split_datamodule
from helpers.modules import accuracy, classifier, mlp
from torchmetrics.classification import MulticlassAccuracy

from tglo_lightning import TaylorGLO


def arguments(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--api", default="pytorch_lightning")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--evaluator", default="trainer")
    parser.add_argument("--split", action="store_true", help="a datamodule that splits at random, unseeded")
    parser.add_argument("--slow", action="store_true", help="time enough to be killed")
    return parser.parse_args(argv)


def module(pl, slow):
    class Metric(classifier(pl)):
        """Its metrics would gather from all ranks, were they not alone; dropout and BatchNorm draw and average."""

        def __init__(self):
            super().__init__(torch.nn.Sequential(torch.nn.BatchNorm1d(8), mlp(dropout=0.2)))
            self.val_acc = MulticlassAccuracy(3, average="micro")

        def validation_step(self, batch, batch_idx):
            self.val_acc(self(batch[0]), batch[1])
            self.log("val/acc", self.val_acc)
            self.log("val/synced", accuracy(self(batch[0]), batch[1]), sync_dist=True)

    def sleep(net):
        if net.trainer.world_size == 1:
            time.sleep(0.4)

    if slow:
        # No class of its own, so that the journal fits both
        Metric.on_train_start = sleep
    return Metric()


def outer(pl, seen):
    class Outer(pl.Callback):
        """Notes what the fit after the search has: its loss, its weights, and whether the ranks are together again."""

        def on_train_epoch_end(self, trainer, pl_module):
            total = torch.tensor(float(trainer.global_rank + 1))
            if trainer.world_size > 1:
                dist.all_reduce(total)
            seen["sum of ranks"] = total.item()
            seen["weights"] = [parameter.flatten()[:3].tolist() for parameter in pl_module.parameters()]
            seen["loss"] = type(pl_module.criterion).__name__

    return Outer()


def main(args):
    """What this rank ends with."""
    rank = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
    (args.folder / f"pid-{rank}").write_text(str(os.getpid()))
    pl = import_module(args.api)
    # Other weights and other random numbers on each rank
    torch.manual_seed(rank)
    net = module(pl, args.slow)
    data = {
        "train_dataloaders": loader(blobs(seed=1), shuffle=True),
        "val_dataloaders": loader(blobs(48, seed=2)),
    }
    seen = {}
    search = TaylorGLO(
        generations=2,
        population=5,
        candidate_epochs=1,
        finalists=2,
        repeats=2,
        evaluator=args.evaluator,
        journal=args.folder / "search.jsonl",
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=args.devices,
        strategy="ddp" if args.devices > 1 else "auto",
        max_epochs=1,
        callbacks=[search, outer(pl, seen)],
        logger=pl.loggers.CSVLogger(args.folder / "logs", version=""),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=args.folder,
    )
    trainer.fit(net, **({"datamodule": split_datamodule(pl)} if args.split else data))
    seen["result"] = search.result.to_dict()
    (args.folder / f"rank-{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    # By its own name, as the tests import it: a journal tells modules of one class from those of another
    from ranks import program

    torch.set_num_threads(1)
    program.main(program.arguments())
