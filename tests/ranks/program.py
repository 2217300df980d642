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

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--api", default="pytorch_lightning")
parser.add_argument("--devices", type=int, default=2)
parser.add_argument("--strategy", default="ddp")
parser.add_argument("--evaluator", default="trainer")
parser.add_argument("--init", default="given")
parser.add_argument("--module", default="Metric")
parser.add_argument("--data", default="loaders")
parser.add_argument("--generations", type=int, default=2)
args = parser.parse_args()
rank = int(os.environ.get("LOCAL_RANK", "0"))
pl = import_module(args.api)
torch.set_num_threads(1)


class Metric(classifier(pl)):
    """Its metric would gather from all ranks, its BatchNorm too, and it tells when it trains."""

    def __init__(self):
        super().__init__(torch.nn.Sequential(torch.nn.BatchNorm1d(8), mlp(dropout=0.2)))
        self.val_acc = MulticlassAccuracy(3, average="micro")

    def training_step(self, batch, batch_idx):
        (args.folder / f"trains-{rank}").touch()
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.val_acc(self(batch[0]), batch[1])
        self.log("val/acc", self.val_acc)
        self.log("val/synced", accuracy(self(batch[0]), batch[1]), sync_dist=True)


class Slow(Metric):
    def on_train_start(self):
        if self.trainer.world_size == 1:
            time.sleep(0.5)


class Fails(Metric):
    """Fails on one rank, and not within a candidate."""

    def __deepcopy__(self, memo):
        if rank == 1:
            raise RuntimeError("no copy on rank 1")
        return super().__deepcopy__(memo) if hasattr(super(), "__deepcopy__") else self


class Weights(pl.Callback):
    """Notes the weights after each epoch of the outer fit, and that the ranks have found each other again."""

    def on_train_epoch_end(self, trainer, pl_module):
        total = torch.tensor(float(trainer.global_rank + 1))
        if trainer.world_size > 1:
            dist.all_reduce(total)
        seen["sum of ranks"] = total.item()
        seen["weights"] = [p.detach().flatten()[:3].tolist() for p in pl_module.parameters()]
        seen["loss"] = type(pl_module.criterion).__name__
        seen["random"] = torch.get_rng_state().sum().item()


seen: dict = {}
# Ranks that start from other weights and other random states than rank 0
torch.manual_seed(0 if args.data == "loaders" else rank)
module = globals()[args.module]()
if rank:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
torch.manual_seed(0 if args.data == "loaders" else rank)
data = (
    {"datamodule": split_datamodule(pl)}
    if args.data == "split"
    else {
        "train_dataloaders": loader(blobs(seed=1), shuffle=True, num_workers=0),
        "val_dataloaders": loader(blobs(48, seed=2)),
    }
)
search = TaylorGLO(
    generations=args.generations,
    population=5,
    candidate_epochs=1,
    finalists=2,
    repeats=2,
    evaluator=args.evaluator,
    init=args.init,
    journal=args.folder / "search.jsonl",
)
trainer = pl.Trainer(
    accelerator="cpu",
    devices=args.devices,
    strategy=args.strategy if args.devices > 1 or args.strategy != "ddp" else "auto",
    max_epochs=2,
    callbacks=[search, Weights()],
    logger=pl.loggers.CSVLogger(args.folder / "logs", version=""),
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    default_root_dir=args.folder,
)
trainer.fit(module, **data)
seen["result"] = search.result.to_dict()
(args.folder / f"rank-{rank}.json").write_text(json.dumps(seen))
