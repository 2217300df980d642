"""An append-only record of every finished training, from which a killed search goes on."""

from __future__ import annotations

import errno
import json
import math
import os
import time
import warnings
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tglo_lightning.search.loop import Evaluator, SearchSettings, decide
from tglo_lightning.search.result import Candidate, Evaluation, Finalist, SearchResult

try:
    import fcntl
except ImportError:  # Windows has no flock; two processes on one journal are not noticed there
    fcntl = None  # type: ignore[assignment]

__all__ = ["Journal", "JournalError", "JournaledEvaluator", "Unwritable", "difference", "recorded_result", "rounds"]

FORMAT = 2
# What a header tells its readers, and the search does not depend on: one of before may lack it
NOTES = ("original_options", "inputs")
# A file that another process has locked; file systems without locks answer otherwise
LOCKED = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class JournalError(ValueError):
    """A journal that cannot be continued, and why."""


class Unwritable(JournalError):
    """A place where no journal can be written."""


class Journal:
    """JSON lines: a header, then one line for each finished training, on disk before the next one starts.

    Every line carries a checksum. A last line that was torn by a crash is dropped, with a warning; anything else that
    is not as it was written is refused, and the file stays as it is.

    Args:
        path: the file; it is made, with its folders, if it does not exist.
        header: what the search is, as plain values. A journal with another header is refused.

    Attributes:
        records: the lines after the header, as they were when the journal was opened.

    Raises:
        Unwritable: the file cannot be written.
        JournalError: damaged, of another search, or in use by another process.
    """

    def __init__(self, path: str | os.PathLike[str], header: Mapping[str, Any]) -> None:
        self.path = Path(path)
        header = json.loads(json.dumps({"journal": FORMAT, **header}))
        self._file = self._open()
        _open_journals.add(self)
        try:
            lines = self._read()
            if not lines:
                self._write(header)
            elif differing := difference(header, {name: header[name] for name in NOTES if name in header} | lines[0]):
                raise JournalError(
                    f"{self.path} is the journal of another search: {differing}. Continue that search with its own "
                    "arguments and versions, give this one another journal, or move that one away."
                )
        except BaseException:
            self.close()
            raise
        self.records = lines[1:]

    @staticmethod
    def header(path: str | os.PathLike[str]) -> dict[str, Any]:
        """The header of the journal at ``path``; empty if there is none that can be read."""
        try:
            with open(path, "rb") as file:
                return _parse(file.readline())
        except (OSError, ValueError):
            return {}

    @staticmethod
    def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Header and records of the journal at ``path``, also while a search writes it. The file stays as it is.

        Raises:
            OSError: the file cannot be read.
            JournalError: it is damaged, or empty.
        """
        content = Path(path).read_bytes()
        lines = _parse_all(content[: content.rfind(b"\n") + 1], path)
        if not lines:
            raise JournalError(f"{path} holds no journal.")
        return lines[0], lines[1:]

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line, and wait until it is on disk."""
        self._write(record)

    def close(self) -> None:
        """Close the file and let another process use it."""
        self._file.close()

    def _open(self) -> IO[bytes]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = open(self.path, "a+b", buffering=0)  # noqa: SIM115  (held as long as the search runs)
        except OSError as error:
            raise Unwritable(f"The journal {self.path} cannot be written: {error}.") from error
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in LOCKED:
                    file.close()
                    raise JournalError(f"{self.path} is in use by another process.") from error
                warnings.warn(
                    f"{self.path} cannot be locked ({error}); see to it that only one process uses it.", stacklevel=4
                )
        return file

    def _read(self) -> list[dict[str, Any]]:
        self._file.seek(0)
        content = self._file.read()
        whole, newline, torn = content.rpartition(b"\n")
        lines = _parse_all(whole + newline, self.path)
        for number, record in enumerate(lines[1:], start=2):
            if not _is_record(record):
                raise JournalError(f"{self.path}, line {number}, is no training of a search.")
        if torn:
            warnings.warn(f"{self.path}: dropped the last line, which a crash had cut short.", stacklevel=4)
            self._file.truncate(len(whole) + len(newline))
        return lines

    def _write(self, record: Mapping[str, Any]) -> None:
        line = json.dumps({**record, "crc": _checksum(record)}, allow_nan=False).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes were written")
            os.fsync(self._file.fileno())
            if end == 0:
                _sync_folder(self.path.parent)
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)
            raise Unwritable(
                f"The journal {self.path} cannot be written: {error}. What it holds is whole; the search goes on from "
                "there when it is started again."
            ) from error


class JournaledEvaluator:
    """An evaluator that writes down what it finds, and does not train again what the journal holds.

    Args:
        evaluator: trains and scores.
        journal: the journal of this search.
        settings: the arguments of the search, to name what a seed belongs to.
        together: a population is trained as one, so a population of which some are missing is trained again as a whole,
            with the same result.

    Attributes:
        replayed: trainings that the journal held when it was opened.
        elapsed_before: seconds that the search had taken until then.
    """

    def __init__(
        self, evaluator: Evaluator, journal: Journal, settings: SearchSettings, *, together: bool = False
    ) -> None:
        self.evaluator = evaluator
        self.journal = journal
        self.together = together
        self.elapsed_before: float = max((record["elapsed"] for record in journal.records), default=0.0)
        self._rounds = rounds(settings)
        self._round = 0
        self._started = time.monotonic()
        self._known = {(record["round"], record["index"]): record for record in journal.records}
        self.replayed = len(self._known)

    def evaluate(self, thetas: Sequence[list[float] | None], seed: int) -> Iterator[Evaluation]:
        """Evaluations in the order of ``thetas``: from the journal, or trained and written down."""
        number, self._round = self._round, self._round + 1
        known = {index: self._recall(number, index, theta, seed) for index, theta in enumerate(thetas)}
        missing = [index for index, evaluation in known.items() if evaluation is None]
        trained = range(len(thetas)) if missing and self.together else missing
        fresh = iter(self.evaluator.evaluate([thetas[index] for index in trained], seed) if trained else [])
        for index, theta in enumerate(thetas):
            evaluation = known[index]
            again = next(fresh) if index in trained else None
            if evaluation is None:
                assert again is not None
                evaluation = again
                self.journal.append(self._record(number, index, theta, seed, evaluation))
            yield evaluation
        for _ in fresh:  # to its end: workers live on for the next round
            pass

    def _recall(self, number: int, index: int, theta: list[float] | None, seed: int) -> Evaluation | None:
        record = self._known.get((number, index))
        if record is None:
            return None
        if record["theta"] != theta or record["seed"] != seed:
            raise JournalError(
                f"{self.journal.path} holds another candidate {index} of round {number} than this search asks for; the "
                "versions of its dependencies may differ from those it was written with."
            )
        return _evaluation(record)

    def _record(
        self, number: int, index: int, theta: list[float] | None, seed: int, evaluation: Evaluation
    ) -> dict[str, Any]:
        stage, of_stage = self._rounds.get(seed, ("", 0))
        return {
            "stage": stage,
            "number": of_stage,
            "round": number,
            "index": index,
            "theta": theta,
            "seed": seed,
            "fitness": float(evaluation.fitness) if math.isfinite(evaluation.fitness) else None,
            "status": evaluation.status,
            "seconds": float(evaluation.seconds),
            "error": evaluation.error,
            "elapsed": self.elapsed_before + time.monotonic() - self._started,
        }


def rounds(settings: SearchSettings) -> dict[int, tuple[str, int]]:
    """What each seed of a training belongs to: ``("generation", number)`` or ``("final", repeat)``."""
    named = {settings.training_seed(0, g): ("generation", g) for g in range(settings.generations)}
    return named | {settings.training_seed(1, r): ("final", r) for r in range(settings.repeats)}


def recorded_result(header: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> SearchResult:
    """What a journal tells of a search, finished or not; see :meth:`SearchResult.load`."""
    try:
        losses = header["settings"]["losses"]
        history: list[Candidate] = []
        finals: dict[int, Finalist] = {}
        # In the order of the search, each once; a line that was lost is written again further down
        once = {(record["round"], record["index"]): record for record in records}
        for _, record in sorted(once.items()):
            e, theta = _evaluation(record), record["theta"]
            if record["stage"] == "generation":
                index = sum(c.generation == record["number"] for c in history)
                history.append(Candidate(record["number"], index, theta, e.fitness, e.outcome, e.seconds, e.error))
                continue
            name = header["original"] if theta is None else f"finalist {record['index'] + 1}"
            found = next((c for c in history if c.theta == theta), None)
            entry = finals.setdefault(
                record["index"],
                Finalist(theta, name)
                if found is None
                else Finalist(theta, name, [], found.fitness, found.generation, losses),
            )
            entry.add(e)
        original = next((f for f in finals.values() if f.theta is None), Finalist(None, header["original"]))
        # In each round of the finals the original loss comes last
        finished = len(original.fitness) == header["settings"]["repeats"]
        finalists, best, kept = decide([f for f in finals.values() if f.theta is not None], original, header["mode"])
        return SearchResult(
            kept=kept if finished else "original",
            monitor=header["monitor"],
            mode=header["mode"],
            best=best if finished else None,
            original=original,
            finalists=finalists,
            history=history,
            infeasible=0,
            seconds=max((record["elapsed"] for record in records), default=0.0),
            settings={
                **header["settings"],
                "evaluator": header["evaluator"],
                **{name: header[name] for name in ("original_options",) if name in header},
            },
            finished=finished,
        )
    except (KeyError, TypeError) as error:
        raise JournalError(f"A journal of another kind: {type(error).__name__}: {error}") from error


def _is_record(record: Mapping[str, Any]) -> bool:
    number = (int, float)
    kinds: dict[str, Any] = {"round": int, "index": int, "seed": int, "seconds": number, "elapsed": number}
    kinds |= {"status": str, "error": (str, type(None)), "fitness": (*number, type(None)), "theta": (list, type(None))}
    return all(name in record and isinstance(record[name], kind) for name, kind in kinds.items())


def _evaluation(record: Mapping[str, Any]) -> Evaluation:
    fitness = math.nan if record["fitness"] is None else record["fitness"]
    return Evaluation(fitness, record["status"], record["seconds"], record["error"])


def _parse_all(content: bytes, path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a journal, the last one ended too."""
    parsed: list[dict[str, Any]] = []
    try:
        parsed.extend(map(_parse, content.split(b"\n")[:-1]))
    except ValueError:
        raise JournalError(
            f"{path}, line {len(parsed) + 1}, is not as it was written. Restore the file, or move it away to start "
            "anew."
        ) from None
    return parsed


def _parse(line: bytes) -> dict[str, Any]:
    """One line without its checksum; a ``ValueError`` if that does not fit."""
    try:
        record = json.loads(line)
        if record.pop("crc") == _checksum(record):
            return dict(record)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    raise ValueError("wrong checksum")


def _sync_folder(folder: Path) -> None:
    """Make sure that a new file's name is on disk too."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_open_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


def _leave_to_parent() -> None:
    # A worker process that outlives its parent would hold the lock
    for journal in list(_open_journals):
        journal.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def _checksum(record: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(record, sort_keys=True).encode()):08x}"


def difference(asked: Any, found: Any, name: str = "") -> str:
    """What differs between two headers, in words; empty if nothing does."""
    if asked == found:
        return ""
    if isinstance(asked, Mapping) and isinstance(found, Mapping):
        keys = [*asked, *(key for key in found if key not in asked)]
        parts = [difference(asked.get(key), found.get(key), f"{name}.{key}" if name else key) for key in keys]
        return ", ".join(filter(None, parts))
    return f"{name} is {found!r} there and {asked!r} here"
