"""Time of TaylorGLOLoss, forward and backward, over that of torch.nn.functional.cross_entropy.

    python benchmarks/loss.py --output loss.json

Class-index targets, float32, one thread on the CPU (or ``--device cuda``). The two losses run in turn, in blocks of
about a millisecond, each pair of blocks gives one ratio, and the figure is the median of the ratios. On the CPU it is
processor time, so that other work on the machine disturbs less. Compiled cross-entropy stands beside, for calling
compiled code has its price.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tglo_lightning.losses import TaylorGLOLoss

Loss = Callable[[Tensor, Tensor], Tensor]

# Found and published by the authors of the method for MNIST (arXiv 2002.00059)
THETA = (-10.9408, 7.5216, 8.2896, 0.2415, 7.8726, 8.9666, 2.0184, 7.0513)
# (samples, classes) and the bars that the project set itself
BARS = {(1024, 1000): (2.5, 1.15), (8192, 10): (1.2, 0.6), (128, 100): (3.0, 3.0)}
BLOCK_SECONDS = 1e-3


def clock(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(loss: Loss, logits: Tensor, target: Tensor, repeats: int) -> float:
    """Seconds a forward and backward pass, mean of ``repeats``."""
    start = clock(logits.device)
    for _ in range(repeats):
        logits.grad = None
        loss(logits, target).backward()
    return (clock(logits.device) - start) / repeats


def compare(loss: Loss, logits: Tensor, target: Tensor, rounds: int) -> dict[str, float]:
    """Median and outer deciles of the ratios of ``loss`` to cross-entropy, and median microseconds of both."""
    for warm_up in (loss, F.cross_entropy):
        seconds(warm_up, logits, target, 20)
    repeats = [
        max(1, round(BLOCK_SECONDS / seconds(candidate, logits, target, 5))) for candidate in (loss, F.cross_entropy)
    ]
    pairs = [
        (seconds(loss, logits, target, repeats[0]), seconds(F.cross_entropy, logits, target, repeats[1]))
        for _ in range(rounds)
    ]
    ratios = [ours / theirs for ours, theirs in pairs]
    low, *_, high = statistics.quantiles(ratios, n=10)
    return {
        "ratio": statistics.median(ratios),
        "ratio_p10": low,
        "ratio_p90": high,
        "microseconds": 1e6 * statistics.median(ours for ours, _ in pairs),
        "cross_entropy_microseconds": 1e6 * statistics.median(theirs for _, theirs in pairs),
    }


def measure(rounds: int, device: str, compiled: bool) -> list[dict[str, Any]]:
    eager = TaylorGLOLoss(THETA).to(device)
    losses: dict[str, Loss] = {"eager": eager}
    if compiled:
        losses["compiled"] = torch.compile(eager, fullgraph=True)
        losses["cross-entropy compiled"] = torch.compile(torch.nn.CrossEntropyLoss(), fullgraph=True)
    rows = []
    for (samples, classes), (eager_bar, compiled_bar) in BARS.items():
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(samples, classes, generator=generator).to(device).requires_grad_()
        target = torch.randint(classes, (samples,), generator=generator).to(device)
        bars = {"eager": eager_bar, "compiled": compiled_bar}
        for name, loss in losses.items():
            figures = compare(loss, logits, target, rounds)
            rows.append({"samples": samples, "classes": classes, "loss": name, "bar": bars.get(name), **figures})
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    result = Table("size", "loss", "ratio", "10 % .. 90 %", "bar", "us", title="times F.cross_entropy, eager")
    for row in rows:
        result.add_row(
            f"{row['samples']} x {row['classes']}",
            row["loss"],
            f"{row['ratio']:.2f}",
            f"{row['ratio_p10']:.2f} .. {row['ratio_p90']:.2f}",
            "" if row["bar"] is None else f"{row['bar']:.2f}",
            f"{row['microseconds']:.0f}",
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=301, help="pairs of blocks (default: %(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-compile", action="store_true", help="eager only")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {args.rounds}")
    torch.set_num_threads(1)
    rows = measure(args.rounds, args.device, not args.no_compile)
    Console().print(table(rows))
    if args.output is not None:
        versions = {"torch": torch.__version__, "python": platform.python_version()}
        report = {"device": args.device, "rounds": args.rounds, "versions": versions, "rows": rows}
        args.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
