"""`tglo-explain`: what the theory says of a loss, as text and as a picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tglo_lightning.cli.given import given_loss, read_json
from tglo_lightning.cli.shell import end
from tglo_lightning.losses import FAMILIES, PointwiseLoss, as_loss, robust
from tglo_lightning.losses.published import EVOLVED, PUBLISHED_NAMES
from tglo_lightning.module.slot import stored_losses
from tglo_lightning.reporting import pictures
from tglo_lightning.search import Criterion, SearchResult
from tglo_lightning.search.files import FOLDER
from tglo_lightning.theory import LossLike, explain, explain_pointwise
from tglo_lightning.untrusted import check_shape, load_checkpoint

PICTURE = "explanation.png"
ASSUMED = 10  # classes
CROSS_ENTROPIES = {"CrossEntropyLoss", "cross_entropy", "NLLLoss", "nll_loss"}
EXAMPLES = """Examples
  tglo-explain baikal                                   a name
  tglo-explain outputs/DAY/TIME                         what a search found, or that it kept the original loss
  tglo-explain tglo/1a2b3c/search.json                  the same of the callback
  tglo-explain last.ckpt --buffer criterion             the loss of a trained network
  tglo-explain --theta "0 0 1.5 -1 0.5 2 -1 0" --num-classes 100
  tglo-explain mnist_published --output mnist.png       with a picture of D(eps) (extra `plots`)
"""
KNOWN = f"{', '.join([*sorted(FAMILIES), 'robust', *EVOLVED])}, cross_entropy_2 to cross_entropy_10"


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain the loss that the command line names; see :func:`tglo_lightning.cli.shell.end`."""
    return end("tglo-explain", _explain, arguments)


def _explain(arguments: list[str]) -> None:
    options = _parser().parse_args(_join_theta(arguments))
    if (options.theta is None) == (options.loss is None):
        raise ValueError("give one loss: a name, a checkpoint, a run's directory or result, or --theta '...'.")
    if options.loss is None:
        words = options.theta.translate(str.maketrans(",[]()", "     ")).split()
        try:
            subject = Subject(given_loss(list(map(float, words))))
        except ValueError as error:
            raise ValueError(f"--theta must hold numbers: {error}") from None
    else:
        subject = _read(options.loss, options.buffer)
    num_classes, note = _classes(subject, options.num_classes)
    loss = robust(num_classes) if subject.loss == "robust" else as_loss(subject.loss)
    if isinstance(loss, PointwiseLoss):
        if options.output is not None:
            raise ValueError(f"--output draws losses of classes, and {loss.name} is one of {loss.kind} targets.")
        print("\n\n".join(filter(None, (subject.note, explain_pointwise(loss)))))
        return
    explanation = explain(loss, num_classes)
    parts = [subject.note, note, explanation.text]
    # Drawn before anything is printed, so that an error is the only output
    if (output := options.output) is not None:
        path = output if output.suffix and not output.is_dir() else output / PICTURE
        parts.append(f"Picture: {pictures.save(pictures.explanation(explanation), path)}")
    print("\n\n".join(filter(None, parts)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tglo-explain",
        description="Why a loss works: can a network be trained with it, does it hold or push away what is memorised,\n"
        "at which confidence is its equilibrium.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    loss = f"a name ({KNOWN}), a checkpoint (.ckpt) that holds a loss, the directory of a run, or its "
    classes = f"number of classes (default: what the file knows, else {ASSUMED})"
    output = f"draw D(eps) into this file, or into {PICTURE} of this folder; the suffix chooses the format"
    parser.add_argument("loss", nargs="?", help=loss + "result.json or search.json")
    parser.add_argument("--theta", metavar="NUMBERS", help="parameters of a TaylorGLO loss: 8 numbers at order 3")
    parser.add_argument("--num-classes", type=int, metavar="N", help=classes)
    parser.add_argument("--output", type=Path, metavar="PATH", help=output)
    parser.add_argument("--buffer", metavar="NAME", help="which loss of a checkpoint or search that holds several")
    return parser


def _join_theta(arguments: list[str]) -> list[str]:
    """Join what follows `--theta`, in one word or many: to argparse a leading minus means another option."""
    if "--theta" not in arguments:
        return arguments
    start = arguments.index("--theta") + 1
    stop = next((i for i in range(start, len(arguments)) if arguments[i].startswith("--")), len(arguments))
    return [*arguments[: start - 1], "--theta=" + " ".join(arguments[start:stop]), *arguments[stop:]]


@dataclass
class Subject:
    """A loss to explain."""

    loss: LossLike
    num_classes: int | None = None
    source: str = ""  # what says how many classes
    note: str = ""  # to print first


def _classes(subject: Subject, asked: int | None) -> tuple[int, str]:
    """Return the number of classes to explain a loss for, and a line that says where it comes from."""
    known = subject.num_classes
    if asked is None:
        origin = "assumed; --num-classes N says otherwise" if known is None else f"from {subject.source}"
        return known or ASSUMED, f"Number of classes: {known or ASSUMED}, {origin}."
    if known is None or asked == known:
        return asked, ""
    return asked, f"Number of classes: {asked}, as --num-classes says; but {known} by {subject.source}."


def _read(name: str, buffer: str | None) -> Subject:
    if name == "robust" or name in FAMILIES or name in PUBLISHED_NAMES:
        return Subject(name)
    path = Path(name)
    if not path.suffix and not path.exists():
        raise ValueError(f"unknown loss {name!r}; give {KNOWN}, a checkpoint, a run's directory or result, or --theta.")
    if path.is_dir():
        path = _of_run(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {name!r}.")
    if path.suffix not in (".json", ".jsonl"):
        return _of_checkpoint(path, buffer)
    values = read_json(path) if path.suffix == ".json" else {}
    if "history" in values or path.suffix == ".jsonl":
        return _of_search(SearchResult.load(path), str(path), buffer)
    try:
        kept = values["losses"][values["kept"]]
        check_shape(kept, dict, "losses")
        found = Criterion.original() if kept.get("criterion") is None else Criterion.from_dict(kept["criterion"])
        name, options = str(kept.get("name")), kept.get("options") or {}
        return _of_loss(found, name, options, values.get("num_classes"), str(path), buffer)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no result of a run: {type(error).__name__}: {error}.") from None


def _of_run(folder: Path) -> Path:
    """Return the file in the directory of a run that holds its search."""
    names = ("search.json", "result.json", "search.jsonl")
    if found := next((folder / name for name in names if (folder / name).is_file()), None):
        return found
    below = sorted({path.parent for path in folder.glob(f"{FOLDER}/*/search.json*")})
    if len(below) == 1:
        return _of_run(below[0])
    advice = f"; give one of {', '.join(map(str, below))}" if below else ""
    raise ValueError(f"{folder} holds none of {', '.join(names)}{advice}.")


def _of_search(result: SearchResult, source: str, buffer: str | None) -> Subject:
    if not result.finished:
        raise ValueError(f"the search of {source} has not finished; tglo-report shows what there is so far.")
    settings, original = result.settings, result.original.name
    options = (settings.get("original_options") or [{}])[0]
    return _of_loss(result.criterion, original, options, settings.get("num_classes"), source, buffer)


def _of_loss(
    kept: Criterion, name: str, options: Mapping[str, Any], num_classes: int | None, source: str, buffer: str | None
) -> Subject:
    """Return the loss that was kept: a criterion, or the original of this name."""
    if kept.losses:
        spec = _one({str(place): spec for place, spec in enumerate(kept.losses)}, source, buffer)
        note = "" if kept.step == 1 else f"Learning rate x {kept.step:.3g}."
        return Subject(spec.build(), num_classes, source, note)
    loss: LossLike | None = next((known() for known in FAMILIES.values() if known.__name__ == name), None)
    if set(name.split(", ")) <= CROSS_ENTROPIES:
        loss = nn.CrossEntropyLoss(label_smoothing=options.get("label_smoothing", 0.0))
    if loss is None:
        raise ValueError(f"the original loss was kept, {name}, and no file says what that computes.")
    return Subject(loss, num_classes, source, f"The original loss was kept, {name}. This explains {name}.")


def _of_checkpoint(path: Path, buffer: str | None) -> Subject:
    checkpoint = load_checkpoint(path)
    state = _dict(checkpoint.get("state_dict", checkpoint))
    found = stored_losses(state)
    callbacks = _dict(checkpoint.get("callbacks"))
    saved = [_dict(_dict(kept).get("result")) for name, kept in callbacks.items() if str(name).startswith("TaylorGLO")]
    num_classes = _dict(checkpoint.get("hyper_parameters")).get("num_classes")
    source = "hyper_parameters.num_classes of this checkpoint"
    if result := next((SearchResult.from_dict(values) for values in saved if values), None):
        num_classes, source = result.settings.get("num_classes"), "the search in this checkpoint"
        if not found:
            return _of_search(result, source, buffer)
    elif type(num_classes) is not int:
        layers = [(k, v) for k, v in state.items() if str(k).endswith(".weight") and getattr(v, "ndim", 0) > 1]
        name, last = layers[-1] if layers else ("", None)
        # Only the width of a linear layer, which was made last, is the number of classes
        num_classes = len(last) if last is not None and last.ndim == 2 and len(last) > 1 else None
        source = f"the width of the last layer, {name.removesuffix('.weight')}"
    if not found:
        raise ValueError(f"{path} holds no loss of a family of this package.")
    return Subject(_one(found, str(path), buffer).build(), num_classes, source)


def _dict(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _one(found: Mapping[str, Any], source: str, buffer: str | None) -> Any:
    """Return the only loss of a file, or the one called `buffer`."""
    names = [buffer.removesuffix(".theta")] if buffer is not None else list(found)
    if len(names) > 1:
        raise ValueError(f"{source} holds several losses, choose one with --buffer: {', '.join(names)}.")
    if names[0] not in found:
        raise ValueError(f"{source} holds no loss called {buffer!r}; there are {', '.join(found)}.")
    return found[names[0]]


if __name__ == "__main__":
    sys.exit(main())
