"""`tglo-explain`: what the theory says of a loss, as text and as a picture."""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tglo_lightning.cli.given import theta_of_result
from tglo_lightning.losses.published import EVOLVED, PUBLISHED_NAMES
from tglo_lightning.losses.registry import NAMED
from tglo_lightning.theory import LossLike, explain

PICTURE = "explanation.png"
EXAMPLES = """Examples
  tglo-explain baikal                                   a name
  tglo-explain outputs/DAY/TIME/result.json             what a search found
  tglo-explain last.ckpt --buffer criterion             the loss of a trained network
  tglo-explain --theta "0 0 1.5 -1 0.5 2 -1 0" --num-classes 100
  tglo-explain mnist_published --output mnist.png       with a picture of D(eps) (extra `plots`)
"""
KNOWN = f"{', '.join([*NAMED, *EVOLVED])}, cross_entropy_2 to cross_entropy_10"


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain the loss that the command line names.

    Returns:
        The exit status: 0, or 2 after one line on stderr that says what is wrong.
    """
    options = _parser().parse_args(_join_theta(sys.argv[1:] if arguments is None else list(arguments)))
    try:
        if (options.theta is None) == (options.loss is None):
            raise ValueError("give one loss: a name, a checkpoint or result.json, or --theta '...'.")
        loss = _numbers(options.theta) if options.loss is None else _read(options.loss, options.buffer)
        explanation = explain(loss, options.num_classes)
        print(explanation.text)
        if options.output is not None:
            print(f"\nPicture: {explanation.plot(_picture(options.output))}")
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"tglo-explain: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tglo-explain",
        description="Why a loss works: can it be trained, does it hold or push away what is learned by heart,\n"
        "at which confidence does it settle.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "loss",
        nargs="?",
        help=f"a name ({KNOWN}), a checkpoint (.ckpt) that holds a TaylorGLO loss, or a result.json",
    )
    parser.add_argument("--theta", metavar="NUMBERS", help="parameters of a TaylorGLO loss: 8 numbers at order 3")
    parser.add_argument("--num-classes", type=int, default=10, metavar="N", help="number of classes (default: 10)")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help=f"draw D(eps) into this file, or into {PICTURE} of this folder; the suffix chooses the format",
    )
    parser.add_argument("--buffer", metavar="NAME", help="which loss of a checkpoint that holds several")
    return parser


def _join_theta(arguments: list[str]) -> list[str]:
    """What follows `--theta`, in one word or many, as one option: to argparse a leading minus means another option."""
    if "--theta" not in arguments:
        return arguments
    start = arguments.index("--theta") + 1
    stop = start
    while stop < len(arguments) and not arguments[stop].startswith("--"):
        stop += 1
    return [*arguments[: start - 1], "--theta=" + " ".join(arguments[start:stop]), *arguments[stop:]]


def _numbers(text: str) -> list[float]:
    words = text.translate(str.maketrans(",[]()", "     ")).split()
    try:
        return [float(word) for word in words]
    except ValueError:
        raise ValueError(f"--theta must hold numbers, got {text!r}.") from None


def _read(name: str, buffer: str | None) -> LossLike:
    if name in NAMED or name in PUBLISHED_NAMES:
        return name
    path = Path(name)
    if not path.suffix and not path.exists():
        raise ValueError(f"unknown loss {name!r}; give {KNOWN}, a checkpoint, a result.json or --theta.")
    if not path.is_file():
        raise FileNotFoundError(f"no file {name!r}.")
    return theta_of_result(path) if path.suffix == ".json" else _from_checkpoint(path, buffer)


def _from_checkpoint(path: Path, buffer: str | None) -> Tensor:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError):
        raise ValueError(f"{path} is not a checkpoint that can be read with weights_only=True.") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    found = {key: value for key, value in state.items() if isinstance(value, Tensor) and f".{key}".endswith(".theta")}
    if buffer is not None:
        found = {key: value for key, value in found.items() if key in (buffer, f"{buffer}.theta")}
    if not found:
        named = f" called {buffer!r}" if buffer else ""
        raise ValueError(f"{path} holds no TaylorGLO loss{named}: no buffer whose name ends in '.theta'.")
    if len(found) > 1:
        raise ValueError(f"{path} holds several losses, choose one with --buffer: {', '.join(found)}.")
    return next(iter(found.values()))


def _picture(output: Path) -> Path:
    return output if output.suffix and not output.is_dir() else output / PICTURE


if __name__ == "__main__":
    sys.exit(main())
