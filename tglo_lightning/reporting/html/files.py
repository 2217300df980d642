"""What a run has left in its directory, as far as it came."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from tglo_lightning.reporting.attraction import AttractionRecord
from tglo_lightning.reporting.numbers import LOSSES
from tglo_lightning.reporting.results import described, kind_of
from tglo_lightning.reporting.robustness import RobustnessReport
from tglo_lightning.reporting.runs import ENTRY
from tglo_lightning.search import Criterion, SearchResult
from tglo_lightning.search.journal import Journal
from tglo_lightning.untrusted import NUMBER, load_json, load_yaml, write_whole

SEARCH = "search"
COUNTS = dict.fromkeys(("candidates", "rejected", "failed", "trainings"), int)
# What is read of the files
RESULT = {
    "monitor": str,
    "num_classes": int,
    "kept": str,
    "losses": {"original": ENTRY, ...: ENTRY},
    "logged": {...: str},
    "search": {**COUNTS, "seconds": NUMBER},
    "seconds": NUMBER,
    "versions": {...: str},
}
CURVES = {...: [{...: [(*NUMBER, None)]}]}
ONE: dict[str, Any] = {"losses": {"original": {"name": "the original loss"}}}
TARGETS = {"binary": "binary", "regression": "continuous"}
Curves = dict[str, list[dict[str, list[float | None]]]]
T = TypeVar("T")


def fit_path(search: Path) -> Path:
    """The file beside the journal or the result of a search: ``fit.json``, or ``NAME-fit.json`` for ``NAME.jsonl``."""
    return search.with_name("fit.json" if search.stem == "search" else f"{search.stem}-fit.json")


@dataclass
class Fit:
    """The fit that followed a search.

    Attributes:
        loss: which loss it trained with, ``"metalearned"`` or ``"original"``.
        curves: ``{metric: [one value an epoch]}``.
        attraction: files of :class:`~tglo_lightning.reporting.attraction.AttractionRecord` by name.
    """

    loss: str
    curves: dict[str, list[float | None]] = field(default_factory=dict)
    attraction: dict[str, Path] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it as JSON; other files are named from there, so that their folder can be moved as a whole."""
        places = {name: os.path.relpath(file, path.parent) for name, file in self.attraction.items()}
        write_whole(path, json.dumps({**vars(self), "attraction": places}, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Fit:
        """Read a file that :meth:`save` wrote."""
        values = load_json(path, {"loss": str, "curves": {...: [(*NUMBER, None)]}, "attraction": {...: str}})
        attraction = {name: path.parent / place for name, place in values["attraction"].items()}
        return cls(values["loss"], values["curves"], attraction)


@dataclass
class RunFiles:
    """The files of a run; what is missing is None or empty.

    Attributes:
        name: what to call the run.
        folder: where it lies; None for a result that lies nowhere.
        stem: name of the search's files, ``"search"`` unless the journal has another.
        written: when the last of the files was.
        search: the search, read from its journal where it did not come to its end.
        header: of the journal.
        config: ``.hydra/config.yaml`` as text; ``overrides`` are the arguments of the command line.
        searched: arguments of the command line that say where else configs lie.
        curves: ``{loss: [{metric: [one value an epoch]} a seed]}``.
        fit: the fit that followed a search as a callback, once it has ended; the curves are of that one then.
        attraction, robustness: measurements by the name of what was trained.
        classes: number of classes, if it was given.
        problems: files that are there and cannot be read, and why.
    """

    name: str
    folder: Path | None = None
    stem: str = SEARCH
    written: datetime | None = None
    result: dict[str, Any] | None = None
    search: SearchResult | None = None
    header: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    overrides: list[str] | None = None
    searched: list[str] = field(default_factory=list)
    curves: Curves = field(default_factory=dict)
    fit: Fit | None = None
    attraction: dict[str, AttractionRecord] = field(default_factory=dict)
    robustness: dict[str, RobustnessReport] = field(default_factory=dict)
    classes: int | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def command(self) -> bool:
        """Whether a command of this package made the run; else it is a search from a program of the user's."""
        return self.overrides is not None or self.result is not None

    @property
    def kept(self) -> bool:
        """Whether a metalearned loss was kept."""
        kept = self.result["kept"] if self.result else self.search and self.search.kept
        return bool(kept == "metalearned")

    @property
    def module(self) -> str:
        """Name of the class of the user's module; empty where no file tells."""
        return str(self.header.get("module", "")).rpartition(".")[2]

    @property
    def original_name(self) -> str:
        """Name of the class of the original loss."""
        return str(self.search.original.name if self.search else (self.result or ONE)["losses"]["original"]["name"])

    @property
    def original_options(self) -> list[dict[str, Any]]:
        """Options of the original loss, such as its smoothing and weights, for each place in the module."""
        if self.search is not None:
            return [*self.search.settings.get("original_options", ())]
        return [(self.result or ONE)["losses"]["original"].get("options") or {}]

    @property
    def original(self) -> str:
        """The original loss as it is, with its options."""
        return described(self.original_name, self.original_options)

    @property
    def interrupted(self) -> bool:
        """Whether there is a search that did not come to its end."""
        return self.search is not None and not self.search.finished

    @property
    def trainings(self) -> tuple[int, int]:
        """Of an interrupted search: trainings done, and those that it takes at most."""
        assert self.search is not None
        done = self.search.trainings
        return done, max(done, self.search.settings.get("trainings", 0))

    @property
    def own(self) -> bool:
        """Whether it is a search from the user's program, which commands of this package cannot continue."""
        return self.search is not None and not self.command

    @property
    def pending(self) -> str:
        """Why there is nothing yet of the fit that follows a search as a callback."""
        return f"The fit that follows the search is not over{', nor is the search' if self.interrupted else ''}."

    @property
    def plain(self) -> bool:
        """Whether the search is one of ``minimize``, without Lightning."""
        return (self.search.settings if self.search else self.header).get("evaluator") == "function"

    @property
    def kind(self) -> str:
        """Kind of target: ``"classes"``, ``"binary"`` or ``"regression"``."""
        return "classes" if self.search is None else kind_of(self.search)

    def logged(self, metric: str) -> str:
        """Return the name under which the module logs a test metric."""
        return str(self.result["logged"].get(metric, metric) if self.result else metric)

    @property
    def starts(self) -> str:
        """One sentence on what a fresh seed of the finals changes; empty where no file tells."""
        if self.plain:
            return "A fresh seed is set before each call of fn, which draws or sets the initial weights itself."
        return {
            "module": "A fresh seed changes the order of the batches, dropout and augmentation only: all trainings "
            'start from the same weights, those of the module (init="module").',
            "reset": 'Each fresh seed draws new initial weights too (init="reset").',
            "function": "Each training starts from the weights of a new module, which the function given as init "
            "builds under the fresh seed.",
        }.get(self.header.get("init", ""), "")

    @property
    def num_classes(self) -> int | None:
        """Number of classes, as given or from any file that knows it; None for targets of another kind."""
        if self.kind != "classes":
            return None
        known = [self.result or {}, self.search.settings if self.search else {}, self.header]
        found = [self.classes, *(values.get("num_classes") for values in known), self.header.get("classes")]
        found += [record.num_classes for record in self.attraction.values()]
        found += [report.num_classes for report in self.robustness.values()]
        return next((int(count) for count in found if count), None)


def read_run(
    run: str | Path,
    attacks: Mapping[str, str | Path] | None = None,
    attraction: Mapping[str, str | Path] | None = None,
) -> RunFiles:
    """Read what there is of a run; the arguments are those of ``write_report``.

    Raises:
        ValueError: no such directory or file, nothing of a run in it, or files of several searches.
    """
    path = Path(run)
    folder, stem = (path, None) if path.is_dir() else (path.parent, path.stem)
    if not path.exists():
        raise ValueError(f"no such file or directory: {path}")
    if stem in (None, "result"):
        stem = _stem(folder)
    files = RunFiles(name=folder.resolve().name, folder=folder, stem=stem or SEARCH)
    files.result = _read(files, folder / "result.json", _result)
    files.config = _read(files, folder / ".hydra" / "config.yaml", lambda p: p.read_text(encoding="utf-8")) or ""
    typed = folder / ".hydra" / "overrides.yaml"
    files.overrides = _read(files, typed, lambda p: list(map(str, load_yaml(p) or [])))
    files.searched = _read(files, folder / ".hydra" / "hydra.yaml", _searched) or []
    saved = folder / f"{files.stem}.json"
    files.header = Journal.header(saved.with_suffix(".jsonl"))
    for path_of_search in (saved, saved.with_suffix(".jsonl")):
        files.search = files.search or _read(files, path_of_search, SearchResult.load)
    files.curves = _read(files, folder / "curves.json", lambda p: load_json(p, CURVES)) or {}
    for kind in files.result["losses"] if files.result else ():
        for npz in sorted((folder / "seeds" / f"{kind}-0").glob("*.npz"))[:1]:
            _measured(files, kind, npz)
    for name, given in (attraction or {}).items():
        files.attraction[name] = AttractionRecord.load(given)
    # Below a directory that is not the search's own lie other runs
    below = "**/" if (folder / ".hydra").is_dir() or files.result is not None else ""
    if not files.curves and (fit := _read(files, fit_path(saved), Fit.load)):
        files.fit = fit
        files.curves = {fit.loss: [fit.curves]} if fit.curves else {}
        for name, npz in fit.attraction.items() if not files.attraction else ():
            _measured(files, name, npz)
    if not files.attraction:
        for npz in sorted(folder.glob(f"{below}attraction*.npz"))[:1]:
            _measured(files, "this training", npz)
    reports = sorted(folder.glob(f"{below}robustness*.json"))
    for report in reports:
        beside = sum(other.parent == report.parent for other in reports) > 1
        name = report.stem if beside else report.parent.name
        _attacked(files, name if reports[1:] else "this run", report)
    for name, given in (attacks or {}).items():
        report = Path(given) / "robustness.json" if Path(given).is_dir() else Path(given)
        if not report.is_file():
            raise ValueError(f"no attack report {report}")
        _attacked(files, name, report)
    if files.result is None and files.search is None and not files.curves and not files.attraction:
        why = f": {files.problems[0]}" if files.problems else " (no result.json, search.json or search.jsonl)"
        raise ValueError(f"{path} holds no run that could be reported{why}")
    return files


def _read(files: RunFiles, path: Path, parse: Callable[[Path], T]) -> T | None:
    """Parse a file that may be missing or damaged: a report of the rest is worth having."""
    if not path.is_file():
        return None
    try:
        value = parse(path)
    except Exception as error:  # whatever a damaged file makes of its parser
        words = " ".join(str(error).split())[:200]
        files.problems.append(f"{path.name} cannot be read ({type(error).__name__}: {words})")
        return None
    when = datetime.fromtimestamp(path.stat().st_mtime)
    files.written = max(files.written or when, when)
    return value


def _searched(path: Path) -> list[str]:
    """The arguments of a command that gave it more folders of configs, from the file that Hydra keeps."""
    hydra = load_yaml(path)["hydra"]
    folders = [str(s["path"]) for s in hydra["runtime"]["config_sources"] if s["provider"] == "command-line"]
    paths = [each for each in map(str, hydra["overrides"]["hydra"]) if each.startswith("hydra.searchpath=")]
    return [*(argument for folder in folders for argument in ("--config-dir", folder)), *paths]


def _stem(folder: Path) -> str:
    """The name of the search's files in a directory."""
    if any((folder / f"{SEARCH}{suffix}").is_file() for suffix in (".json", ".jsonl")):
        return SEARCH
    found = sorted(path for path in folder.glob("*.jsonl") if "journal" in Journal.header(path))
    others = [path for path in found if path.stem not in LOSSES]
    if len(others) > 1:
        names = ", ".join(path.name for path in others)
        raise ValueError(f"{folder} holds several searches; give the journal of one of them: {names}")
    return others[0].stem if others else SEARCH


def _result(path: Path) -> dict[str, Any]:
    """A result whose losses have the same metrics, and as many values of each."""
    result: dict[str, Any] = load_json(path, RESULT)
    losses = result["losses"]
    sizes = [{name: len(metric["values"]) for name, metric in loss["test"].items()} for loss in losses.values()]
    if not losses.keys() <= LOSSES.keys() or not sizes[0] or any(size != sizes[0] for size in sizes):
        raise ValueError("its losses are not known, or do not have the same metrics and seeds")
    for loss in losses.values():
        if loss["criterion"] is not None:
            Criterion.from_dict(loss["criterion"])
    result["losses"] = {kind: losses[kind] for kind in LOSSES if kind in losses}
    return result


def _attacked(files: RunFiles, name: str, path: Path) -> None:
    report = _read(files, path, RobustnessReport.load)
    if report is not None:
        files.robustness[name if name not in files.robustness else f"{name} ({path.parent.name})"] = report


def _measured(files: RunFiles, name: str, path: Path) -> None:
    record = _read(files, path, AttractionRecord.load)
    if record is not None and record.epochs:
        files.attraction[name] = record
