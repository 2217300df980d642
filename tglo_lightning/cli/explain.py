"""`tglo-explain`: what the theory says of a loss, as text and as a picture."""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tglo_lightning.cli.given import given_loss, read_json, theta_of_result
from tglo_lightning.losses.published import EVOLVED, PUBLISHED_NAMES
from tglo_lightning.losses.registry import NAMED
from tglo_lightning.reporting import pictures
from tglo_lightning.search import SearchResult
from tglo_lightning.search.journal import Journal
from tglo_lightning.search.record import FOLDER
from tglo_lightning.search.space import split_theta
from tglo_lightning.theory import LossLike, explain

PICTURE = "explanation.png"
ASSUMED = 10
# What -log h of the true class is called
CROSS_ENTROPIES = {"CrossEntropyLoss", "cross_entropy", "NLLLoss", "nll_loss"}
EXAMPLES = """Examples
  tglo-explain baikal                                   a name
  tglo-explain outputs/DAY/TIME                         what a search found, or that it kept the original loss
  tglo-explain tglo/1a2b3c/search.json                  the same of the callback
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
            raise ValueError("give one loss: a name, a checkpoint, a run's directory or result, or --theta '...'.")
        subject = (
            Subject(given_loss(_numbers(options.theta)))
            if options.loss is None
            else _read(options.loss, options.buffer)
        )
        num_classes, told = subject.classes(options.num_classes)
        explanation = explain(subject.loss, num_classes)
        # Before anything is printed, so that a picture that cannot be written is all that is told
        picture = options.output and pictures.save(pictures.explanation(explanation), _picture(options.output))
        for line in filter(None, (subject.note, told)):
            print(f"{line}\n")
        print(explanation.text)
        if picture is not None:
            print(f"\nPicture: {picture}")
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
        help=f"a name ({KNOWN}), a checkpoint (.ckpt) that holds a TaylorGLO loss, the directory of a run, or its "
        "result.json or search.json",
    )
    parser.add_argument("--theta", metavar="NUMBERS", help="parameters of a TaylorGLO loss: 8 numbers at order 3")
    parser.add_argument(
        "--num-classes", type=int, metavar="N", help=f"number of classes (default: what the file knows, else {ASSUMED})"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help=f"draw D(eps) into this file, or into {PICTURE} of this folder; the suffix chooses the format",
    )
    parser.add_argument("--buffer", metavar="NAME", help="which loss of a checkpoint or search that holds several")
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


@dataclass
class Subject:
    """What is to be explained.

    Attributes:
        loss: the loss.
        num_classes: how many classes it is for; None if that is not known.
        source: what knows it.
        note: a line to say first.
    """

    loss: LossLike
    num_classes: int | None = None
    source: str = ""
    note: str = ""

    def classes(self, asked: int | None) -> tuple[int, str]:
        """The number of classes to explain it for, and where that comes from, in words."""
        known = self.num_classes
        if asked is None and known is None:
            return ASSUMED, f"Number of classes: {ASSUMED}, assumed; --num-classes N says otherwise."
        if asked is None and known is not None:
            return known, f"Number of classes: {known}, from {self.source}."
        assert asked is not None
        if known is None or asked == known:
            return asked, ""
        return asked, f"Number of classes: {asked}, as --num-classes says; but {known} by {self.source}."


def _read(name: str, buffer: str | None) -> Subject:
    if name in NAMED or name in PUBLISHED_NAMES:
        return Subject(name)
    path = Path(name)
    if not path.suffix and not path.exists():
        raise ValueError(f"unknown loss {name!r}; give {KNOWN}, a checkpoint, a run's directory or result, or --theta.")
    if path.is_dir():
        path = _of_run(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {name!r}.")
    if path.suffix == ".jsonl":
        return _from_search(SearchResult.load(path), path, buffer)
    if path.suffix != ".json":
        return _from_checkpoint(path, buffer)
    values = read_json(path)
    if "best" in values:
        return _from_search(SearchResult.load(path), path, buffer)
    if values.get("kept") == "original":
        try:
            original = values["losses"]["original"]
            subject = _kept(original["name"], [original.get("options", {})], original.get("theta"))
        except (KeyError, TypeError):
            raise ValueError(f"{path} says that the original loss was kept, and not which one that is.") from None
    else:
        subject = Subject(given_loss(theta_of_result(path)))
    return replace(subject, num_classes=values.get("num_classes"), source=str(path))


def _of_run(folder: Path) -> Path:
    """The file in the directory of a run that tells of its search."""
    for name in ("search.json", "result.json", "search.jsonl"):
        if (folder / name).is_file():
            return folder / name
    below = sorted({path.parent for path in folder.glob(f"{FOLDER}/*/search.json*")})
    if len(below) == 1:
        return _of_run(below[0])
    advice = f"; give one of {', '.join(map(str, below))}" if below else ""
    raise ValueError(f"{folder} holds no search.json, result.json or search.jsonl{advice}.")


def _from_search(result: SearchResult, path: Path, buffer: str | None) -> Subject:
    header = Journal.header(path.with_suffix(".jsonl"))
    if not result.finished:
        raise ValueError(f"the search of {path} has not come to its end; tglo-report tells what there is so far.")
    names = list(header.get("loss") or [])
    if result.kept == "original":
        subject = _kept(result.original.name, result.settings.get("original_options", [{}]), None)
    elif result.best is None or result.best.theta is None:
        raise ValueError(f"{path} tells of no metalearned loss.")
    else:
        parts = split_theta(result.best.theta, result.best.losses)
        part = _one(dict(zip(names or map(str, range(len(parts))), parts, strict=False)), path, buffer)
        subject = Subject(given_loss(part))
    return replace(subject, num_classes=result.settings.get("num_classes", header.get("classes")), source=str(path))


def _kept(name: str, options: Sequence[Mapping[str, Any]], theta: Sequence[float] | None) -> Subject:
    """The original loss of a search that kept it."""
    note = f"The search kept the original loss, {name}: no metalearned loss beat it. This explains {name}."
    if theta is not None:
        return Subject(given_loss(theta), note=note)
    if set(name.split(", ")) <= CROSS_ENTROPIES:
        smoothing = options[0].get("label_smoothing", 0.0) if options else 0.0
        return Subject(nn.CrossEntropyLoss(label_smoothing=smoothing), note=note)
    for known in NAMED.values():
        if known.__name__ == name:
            return Subject(known(), note=note)
    raise ValueError(f"the search kept the original loss, {name}, and no file says what that computes.")


def _from_checkpoint(path: Path, buffer: str | None) -> Subject:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError):
        raise ValueError(f"{path} is not a checkpoint that can be read with weights_only=True.") from None
    checkpoint = checkpoint if isinstance(checkpoint, dict) else {}
    state = checkpoint.get("state_dict", checkpoint)
    state = state if isinstance(state, dict) else {}
    found = {
        key.removesuffix(".theta"): value
        for key, value in state.items()
        if isinstance(value, Tensor) and f".{key}".endswith(".theta")
    }
    callbacks = checkpoint.get("callbacks") or {}
    results = [saved.get("result") for name, saved in callbacks.items() if name.startswith("TaylorGLO")]
    kept = [result for result in results if result and result["kept"] == "original"]
    if not found and kept:
        subject = _kept(kept[0]["original"]["name"], kept[0]["settings"].get("original_options", [{}]), None)
    else:
        if not found:
            raise ValueError(f"{path} holds no TaylorGLO loss: no buffer whose name ends in '.theta'.")
        subject = Subject(given_loss(_one(found, path, buffer).tolist()))
    if results and results[0] and "num_classes" in results[0].get("settings", {}):
        return replace(
            subject, num_classes=results[0]["settings"]["num_classes"], source="the search in this checkpoint"
        )
    known = (checkpoint.get("hyper_parameters") or {}).get("num_classes")
    if isinstance(known, int) and not isinstance(known, bool):
        return replace(subject, num_classes=known, source="hyper_parameters.num_classes of this checkpoint")
    # The layer that was made last, if it is a linear one: else its width may mean something else
    layers = [(k, v) for k, v in state.items() if isinstance(v, Tensor) and k.endswith(".weight") and v.dim() > 1]
    if layers and layers[-1][1].dim() == 2 and len(layers[-1][1]) > 1:
        name, weight = layers[-1]
        source = f"the width of the last layer, {name.removesuffix('.weight')}"
        return replace(subject, num_classes=len(weight), source=source)
    return subject


def _one(found: Mapping[str, Any], path: Path, buffer: str | None) -> Any:
    """The only loss of a file, or that which is asked for."""
    if buffer is not None:
        wanted = buffer.removesuffix(".theta")
        if wanted not in found:
            raise ValueError(f"{path} holds no TaylorGLO loss called {buffer!r}; there are {', '.join(found)}.")
        return found[wanted]
    if len(found) > 1:
        raise ValueError(f"{path} holds several losses, choose one with --buffer: {', '.join(found)}.")
    return next(iter(found.values()))


def _picture(output: Path) -> Path:
    return output if output.suffix and not output.is_dir() else output / PICTURE


if __name__ == "__main__":
    sys.exit(main())
