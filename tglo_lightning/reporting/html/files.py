"""What a run has left in its directory, as far as it came."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tglo_lightning.reporting.attraction_record import AttractionRecord
from tglo_lightning.search.result import Candidate, Finalist, SearchResult

if TYPE_CHECKING:
    from tglo_lightning.attacks.report import RobustnessReport

__all__ = ["RunFiles", "read_run"]

SEARCH = "search"
# Journal of the second search of `tglo-train evaluation.opponent=true`
OPPONENT = "opponent"
Curves = dict[str, list[dict[str, list[float | None]]]]
T = TypeVar("T")


@dataclass
class RunFiles:
    """The files of a run; what is missing is None or empty.

    Attributes:
        name: what to call the run.
        folder: where it lies; None for a result that lies nowhere.
        stem: name of the search's files, ``"search"`` unless the journal has another.
        written: when the last of the files was.
        result: ``result.json`` of ``tglo-train``.
        search: the search, read from its journal where it did not come to its end.
        interrupted: whether the search did not come to its end.
        trainings: of an interrupted search: trainings done, and those that it takes.
        header: of the journal.
        config: ``.hydra/config.yaml`` as text.
        overrides: the arguments of the command line.
        curves: ``{loss: [{metric: [one value an epoch]} a seed]}``.
        attraction: measurements by the name of what was trained.
        robustness: attack reports by name.
        problems: files that are there and cannot be read, and why.
    """

    name: str
    folder: Path | None = None
    stem: str = SEARCH
    written: datetime | None = None
    result: dict[str, Any] | None = None
    search: SearchResult | None = None
    interrupted: bool = False
    trainings: tuple[int, int] = (0, 0)
    header: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    overrides: list[str] | None = None
    curves: Curves = field(default_factory=dict)
    attraction: dict[str, AttractionRecord] = field(default_factory=dict)
    robustness: dict[str, RobustnessReport] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def num_classes(self) -> int | None:
        """Number of classes, from whatever file knows it."""
        known = [self.result or {}, {} if self.search is None else self.search.settings]
        found = [values["num_classes"] for values in known if values.get("num_classes")]
        found += [self.header["classes"]] if "classes" in self.header else []
        found += [record.num_classes for record in self.attraction.values()]
        found += [report.num_classes for report in self.robustness.values()]
        return int(found[0]) if found else None


def read_run(
    run: str | Path,
    attacks: Mapping[str, str | Path] | None = None,
    attraction: Mapping[str, str | Path] | None = None,
) -> RunFiles:
    """Read what there is of a run.

    Args:
        run: the directory; or, where several searches left their files in one, the journal or ``.json`` of a search.
        attacks: further attack reports by name: files that ``tglo-attack`` wrote, or its directories.
        attraction: further files of ``AttractionMonitor`` by name.

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
    reader = _Reader(files)
    files.result = reader.read(folder / "result.json", _result)
    files.config = reader.read(folder / ".hydra" / "config.yaml", lambda p: p.read_text(encoding="utf-8")) or ""
    files.overrides = reader.read(folder / ".hydra" / "overrides.yaml", _overrides)
    _read_search(files, reader)
    files.curves = reader.read(folder / "curves.json", _curves) or {}
    losses = list(files.result["losses"]) if files.result else []
    for kind in losses:
        for npz in sorted((folder / "seeds" / f"{kind}-0").glob("*.npz"))[:1]:
            record = reader.read(npz, AttractionRecord.load)
            if record is not None and record.epochs:
                files.attraction[kind] = record
    for name, given in (attraction or {}).items():
        files.attraction[name] = AttractionRecord.load(given)
    if not files.attraction:
        for npz in sorted(folder.glob("**/attraction*.npz"))[:1]:
            record = reader.read(npz, AttractionRecord.load)
            if record is not None and record.epochs:
                files.attraction["this training"] = record
    reports = sorted(folder.glob("**/robustness*.json"))
    for report in reports:
        _attack(files, reader, report.parent.name if len(reports) > 1 else "this run", report)
    for name, given in (attacks or {}).items():
        report = Path(given) / "robustness.json" if Path(given).is_dir() else Path(given)
        if not report.is_file():
            raise ValueError(f"no attack report {report}")
        _attack(files, reader, name, report)
    if files.result is None and files.search is None and not files.curves and not files.attraction:
        why = f": {files.problems[0]}" if files.problems else " (no result.json, search.json or search.jsonl)"
        raise ValueError(f"{path} holds no run that could be reported{why}")
    return files


class _Reader:
    """Reads files that may be missing or damaged: a report of the rest is worth having."""

    def __init__(self, files: RunFiles) -> None:
        self.files = files

    def read(self, path: Path, parse: Callable[[Path], T]) -> T | None:
        if not path.is_file():
            return None
        try:
            value = parse(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            told = " ".join(str(error).split())[:200]
            self.files.problems.append(f"{path.name} cannot be read ({type(error).__name__}: {told})")
            return None
        when = datetime.fromtimestamp(path.stat().st_mtime)
        self.files.written = when if self.files.written is None else max(self.files.written, when)
        return value


def _stem(folder: Path) -> str:
    """The name of the search's files in a directory."""
    if any((folder / f"{SEARCH}{suffix}").is_file() for suffix in (".json", ".jsonl")):
        return SEARCH
    others = sorted(path for path in folder.glob("*.jsonl") if path.stem != OPPONENT and _is_journal(path))
    if len(others) > 1:
        names = ", ".join(path.name for path in others)
        raise ValueError(f"{folder} holds several searches; give the journal of one of them: {names}")
    return others[0].stem if others else SEARCH


def _is_journal(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return "journal" in json.loads(file.readline())
    except (OSError, ValueError, TypeError):
        return False


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _result(path: Path) -> dict[str, Any]:
    result = _json(path)
    for loss in result["losses"].values():
        for metric in loss["test"].values():
            metric["values"] = [math.nan if value is None else float(value) for value in metric["values"]]
    if "original" not in result["losses"]:
        raise ValueError("it tells of no original loss")
    return dict(result)


def _curves(path: Path) -> Curves:
    return {str(kind): [dict(seed) for seed in seeds] for kind, seeds in _json(path).items()}


def _overrides(path: Path) -> list[str]:
    from omegaconf import OmegaConf

    return [str(entry) for entry in OmegaConf.to_container(OmegaConf.load(path)) or []]


def _attack(files: RunFiles, reader: _Reader, name: str, path: Path) -> None:
    from tglo_lightning.attacks.report import RobustnessReport

    report = reader.read(path, RobustnessReport.load)
    if report is not None:
        files.robustness[name if name not in files.robustness else f"{name} ({path.parent.name})"] = report


def _read_search(files: RunFiles, reader: _Reader) -> None:
    assert files.folder is not None
    path = files.folder / f"{files.stem}.json"
    files.search = reader.read(path, lambda p: SearchResult.from_dict(_json(p)))
    journal = reader.read(path.with_suffix(".jsonl"), lambda p: _journal(p, files.problems))
    if journal is None:
        return
    files.header, records = journal
    if files.search is None:
        files.search, files.trainings = _of_journal(files.header, records)
        files.interrupted = files.trainings[0] < files.trainings[1]


def _journal(path: Path, problems: list[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Header and lines of a journal that another process may be writing; see `tglo_lightning.search.journal`."""
    lines: list[dict[str, Any]] = []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            lines.append(json.loads(line))
        except ValueError:  # noqa: PERF203  (one damaged line is not the end of the report)
            problems.append(f"{path.name}, line {number}, is damaged and was left out")
    if not lines or "settings" not in lines[0]:
        raise ValueError("it has no header")
    return lines[0], lines[1:]


def _of_journal(
    header: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> tuple[SearchResult, tuple[int, int]]:
    """What a journal tells of a search, and the trainings done and those it takes."""
    settings = header["settings"]
    generations, losses = int(settings["generations"]), int(settings.get("losses", 1))
    history: list[Candidate] = []
    entrants: dict[int, Finalist] = {}
    for record in records:
        fitness = math.nan if record["fitness"] is None else float(record["fitness"])
        number, index, theta = int(record["round"]), int(record["index"]), record["theta"]
        if theta is not None and record.get("stage", "final" if number >= generations else "") != "final":
            number = record.get("number", number)
            index = sum(c.generation == number for c in history)
            rest = (record["status"], record["seconds"], record["error"])
            history.append(Candidate(number, index, theta, fitness, *rest))
            continue
        if index not in entrants:
            found = next((c for c in history if c.theta == theta), None)
            entrants[index] = Finalist(
                theta,
                f"finalist {index + 1}" if theta is not None else str(header["original"]),
                [],
                None if found is None else found.fitness,
                None if found is None else found.generation,
                losses,
            )
        entrants[index].fitness.append(fitness)
    sign = -1.0 if header["mode"] == "max" else 1.0
    original = next((e for e in entrants.values() if e.theta is None), Finalist(None, str(header["original"])))
    finalists = [e for e in entrants.values() if e.theta is not None]
    finalists.sort(key=lambda f: sign * f.mean if math.isfinite(f.mean) else math.inf)
    best = finalists[0] if finalists and math.isfinite(finalists[0].mean) else None
    trained = sum(c.status == "ok" for c in history)
    takes = max(len(history), generations * settings["population"])
    takes += settings["repeats"] * (min(settings["finalists"], trained or settings["finalists"]) + 1)
    beaten = best is not None and not sign * best.mean >= sign * original.mean
    result = SearchResult(
        kept="metalearned" if beaten else "original",
        monitor=str(header["monitor"]),
        mode=str(header["mode"]),
        best=best,
        original=original,
        finalists=finalists,
        history=history,
        infeasible=0,
        seconds=math.fsum(record["seconds"] for record in records),
        settings=dict(settings) | ({"evaluator": header["evaluator"]} if "evaluator" in header else {}),
    )
    return result, (len(records), takes)
