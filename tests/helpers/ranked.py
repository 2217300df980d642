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
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from helpers.data import blobs, loader, split_datamodule
from helpers.modules import accuracy, classifier, mlp
from tglo_lightning import TaylorGLO
from tglo_lightning.evaluation import ranks
from tglo_lightning.search import CMAES, Finals, Race, racing


def arguments(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--api", default="pytorch_lightning")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--evaluator", default="trainer")
    parser.add_argument("--split", action="store_true", help="a datamodule that splits at random, unseeded")
    parser.add_argument("--plain", action="store_true", help="train each candidate to its end at once")
    parser.add_argument("--race", action="store_true", help="a race in place of a search and a training")
    parser.add_argument("--slow", action="store_true", help="the same, half a second an epoch and member")
    parser.add_argument("--stall", action="store_true", help="the same, and the second one of a rank takes a minute")
    parser.add_argument("--dry", action="store_true", help="only estimate the cost")
    parser.add_argument("--leave", action="store_true", help="the same, but the other rank leaves there")
    return parser.parse_args(argv)


# Three look at the module and its data, one candidate is trained
STALLS = 3 + 1 + 1


class Halving(CMAES):
    """Trains all members for an epoch, then the better half to the end; keeps what it sees of their weights."""

    def __init__(self):
        super().__init__()
        self._weights = []

    def train(self, population):
        population.advance(1)
        scores = list(population.scores())
        best = sorted(population.members, key=lambda member: -scores[member].fitness)[: len(scores) // 2]
        population.keep(best)
        population.advance(population.length - 1)
        for member, late in zip(population.members, population.scores(), strict=True):
            scores[member] = late
            self._weights.append(population.weights(member)["net.1.0.bias"].tolist())
        return scores


def module(pl, args, rank):
    class Metric(classifier(pl)):
        """Its metrics would gather from all ranks, were they not alone; dropout and BatchNorm draw and average."""

        def __init__(self):
            super().__init__(nn.Sequential(nn.BatchNorm1d(8), mlp(dropout=0.2)))
            self.val_acc = MulticlassAccuracy(3, average="micro")

        def validation_step(self, batch, batch_idx):
            self.val_acc(self(batch[0]), batch[1])
            self.log("val/acc", self.val_acc)
            self.log("val/synced", accuracy(self(batch[0]), batch[1]), sync_dist=True)

    trainings = []

    def sleep(net):
        trainings.append(net.trainer.current_epoch)
        if len(trainings) == STALLS:
            if args.leave and rank == 1:
                sys.exit("no more")
            time.sleep(60)

    # Not in the code of the module, so that the journal fits both
    if args.stall:
        pl.LightningModule.on_train_start = sleep
    if args.slow:
        pl.LightningModule.on_train_epoch_start = lambda net: time.sleep(0.5)
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
    racing.SAVE_SECONDS = 0.0
    rank = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
    (args.folder / f"pid-{rank}").write_text(str(os.getpid()))
    pl = import_module(args.api)
    if args.stall:
        ranks.BEAT_SECONDS, ranks.SILENT_BEATS = 0.2, 10
    # Other weights and other random numbers on each rank
    torch.manual_seed(rank)
    net = module(pl, args, rank)
    data = {
        "train_dataloaders": loader(blobs(seed=1), shuffle=True),
        "val_dataloaders": loader(blobs(48, seed=2)),
    }
    seen = {}
    strategy = Halving()
    race = {"strategy": Race(5, 0.25), "budget": None} if args.race else {}
    options = {"budget": 2, "strategy": "cmaes" if args.plain or args.stall else strategy, **race}
    search = TaylorGLO(
        generations=2,
        population=5,
        finals=Finals(finalists=2, seeds=1, confirm=2),
        evaluator=args.evaluator,
        journal=args.folder / "search.jsonl",
        report=False,
        dry_run=args.dry,
        **options,
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=args.devices,
        strategy="ddp" if args.devices > 1 else "auto",
        max_epochs=4 if args.race else 1,
        callbacks=[search, outer(pl, seen)],
        logger=pl.loggers.CSVLogger(args.folder / "logs", version=""),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=args.folder,
    )
    trainer.fit(net, **({"datamodule": split_datamodule(pl)} if args.split else data))
    seen |= {"result": search.result and search.result.to_dict(), "members": strategy._weights}
    (args.folder / f"rank-{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    # By its own name, as the tests import it: a journal tells modules of one class from those of another
    from helpers import ranked

    torch.set_num_threads(1)
    ranked.main(ranked.arguments())
