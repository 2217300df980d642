"""An append-only record of every finished training, from which a killed search goes on."""

from __future__ import annotations

import json
import math
import os
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tglo_lightning.search.loop import Evaluator
from tglo_lightning.search.result import Evaluation

try:
    import fcntl
except ImportError:  # Windows has no flock; two processes on one journal are not noticed there
    fcntl = None  # type: ignore[assignment]

__all__ = ["Journal", "JournalError", "JournaledEvaluator"]

FORMAT = 1


class JournalError(ValueError):
    """A journal that cannot be continued, and why."""


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
        JournalError: damaged, of another search, in use by another process, or not writable.
    """

    def __init__(self, path: str | os.PathLike[str], header: Mapping[str, Any]) -> None:
        self.path = Path(path)
        header = json.loads(json.dumps({"journal": FORMAT, **header}))
        self._file = self._open()
        try:
            lines = self._read()
            if not lines:
                self._write(header)
            elif difference := _difference(header, lines[0]):
                raise JournalError(
                    f"{self.path} is the journal of another search: {difference}. Continue that search with its own "
                    "arguments, or give this one another journal."
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
                header = json.loads(file.readline())
        except (OSError, ValueError):
            return {}
        return header if isinstance(header, dict) else {}

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
            raise JournalError(f"The journal {self.path} cannot be written: {error}.") from error
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.close()
                raise JournalError(f"{self.path} is in use by another process.") from error
        return file

    def _read(self) -> list[dict[str, Any]]:
        self._file.seek(0)
        content = self._file.read()
        whole, newline, torn = content.rpartition(b"\n")
        if torn:
            warnings.warn(f"{self.path}: dropped the last line, which a crash had cut short.", stacklevel=4)
            self._file.truncate(len(whole) + len(newline))
        lines = whole.split(b"\n") if newline else []
        return [self._parse(line, number) for number, line in enumerate(lines, start=1)]

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
            checksum = record.pop("crc")
            if checksum == _checksum(record):
                return dict(record)
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise JournalError(
            f"{self.path}, line {number}, is not as it was written. Restore the file, or move it away to start anew."
        )

    def _write(self, record: Mapping[str, Any]) -> None:
        line = json.dumps({**record, "crc": _checksum(record)}, allow_nan=False).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes were written")
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)
            raise JournalError(
                f"The journal {self.path} cannot be written: {error}. What it holds is whole; the search goes on from "
                "there when it is started again."
            ) from error


class JournaledEvaluator:
    """An evaluator that writes down what it finds, and does not train again what the journal holds.

    Args:
        evaluator: trains and scores.
        journal: the journal of this search.
        together: a population is trained as one, so a population of which some are missing is trained again as a whole,
            with the same result.
    """

    def __init__(self, evaluator: Evaluator, journal: Journal, *, together: bool = False) -> None:
        self.evaluator = evaluator
        self.journal = journal
        self.together = together
        self._round = 0
        self._known = {(record["round"], record["index"]): record for record in journal.records}

    @property
    def replayed(self) -> int:
        """Trainings that the journal held when it was opened."""
        return len(self._known)

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
                self.journal.append(_record(number, index, theta, seed, evaluation))
            yield evaluation

    def _recall(self, number: int, index: int, theta: list[float] | None, seed: int) -> Evaluation | None:
        record = self._known.get((number, index))
        if record is None:
            return None
        if record["theta"] != theta or record["seed"] != seed:
            raise JournalError(
                f"{self.journal.path} holds another candidate {index} of round {number} than this search asks for; the "
                "versions of its dependencies may differ from those it was written with."
            )
        fitness = math.nan if record["fitness"] is None else record["fitness"]
        return Evaluation(fitness, record["status"], record["seconds"], record["error"])


def _record(number: int, index: int, theta: list[float] | None, seed: int, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "round": number,
        "index": index,
        "theta": theta,
        "seed": seed,
        "fitness": evaluation.fitness if math.isfinite(evaluation.fitness) else None,
        "status": evaluation.status,
        "seconds": evaluation.seconds,
        "error": evaluation.error,
    }


def _checksum(record: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(record, sort_keys=True).encode()):08x}"


def _difference(asked: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What differs between two headers, in words; empty if nothing does."""
    keys = [*asked, *(key for key in found if key not in asked)]
    return ", ".join(
        f"{key} is {found.get(key)!r} there and {asked.get(key)!r} here"
        for key in keys
        if asked.get(key) != found.get(key)
    )
