"""An append-only file of what has been measured, from which a killed search goes on."""

from __future__ import annotations

import errno
import json
import os
import warnings
import weakref
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows has no flock; two processes on one journal are not noticed there
    fcntl = None  # type: ignore[assignment]


FORMAT = 3
# Differences between headers that a message names
MOST_TOLD = 5
# A file that another process has locked; file systems without locks answer otherwise
LOCKED = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class JournalError(ValueError):
    """A journal that cannot be continued, and why."""


class Unwritable(JournalError):
    """A place where no journal can be written."""


class Journal:
    """JSON lines: a header, then one record a line, each on disk before :meth:`append` returns.

    A record is found by its key, a sequence of strings and numbers. Every line carries a checksum. A last line that was
    torn by a crash is dropped, with a warning; a file that is damaged otherwise is rejected, and stays as it is.

    Args:
        path: the file; it is made, with its folders, if it does not exist.
        header: what the records belong to, as plain values. A journal with another header is rejected.

    ``recorded`` is the number of records that the file held when it was opened.

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
            elif differing := difference(header, lines[0]):
                raise JournalError(
                    f"{self.path} is the journal of another search: {differing}. Continue that search with its own "
                    "arguments and versions, give this one another journal, or move that one away."
                )
        except BaseException:
            self.close()
            raise
        self._records = {tuple(record["key"]): record for record in lines[1:]}
        self.recorded = len(self._records)

    @staticmethod
    def header(path: str | os.PathLike[str]) -> dict[str, Any]:
        """The header of the journal at ``path``; empty if there is none that can be read."""
        if not os.path.isfile(path):
            return {}
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

    def recall(self, key: Sequence[str | int]) -> dict[str, Any] | None:
        """Return the record with this key; ``None`` if there is none."""
        return self._records.get(tuple(key))

    def append(self, key: Sequence[str | int], values: Mapping[str, Any]) -> None:
        """Write a record, and wait until it is on disk. One with the same key takes the place of an earlier one."""
        record = {"key": list(key), **values}
        self._write(record)
        self._records[tuple(key)] = record

    def close(self) -> None:
        """Close the file and let another process use it."""
        self._file.close()

    def _open(self) -> IO[bytes]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # A device has no end, and a pipe waits for its other end
            if os.path.exists(self.path) and not os.path.isfile(self.path):
                raise OSError("it is not a file")
            file = open(self.path, "a+b", buffering=0)  # noqa: SIM115  (held as long as the search runs)
        except (OSError, ValueError) as error:
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
            if not isinstance(record.get("key"), list):
                raise JournalError(f"{self.path}, line {number}, is no record: it has no key.")
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


def _parse_all(content: bytes, path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a journal, the last one ended too."""
    parsed: list[dict[str, Any]] = []
    try:
        parsed.extend(map(_parse, content.split(b"\n")[:-1]))
    except ValueError:
        where = f"{path}, line {len(parsed) + 1},"
        raise JournalError(
            f"{where} is not as it was written. Restore the file, or move it away to start anew."
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


def difference(asked: Any, found: Any) -> str:
    """What differs between two headers, in words, the first of it if that is much; empty if nothing does."""
    parts = _differences(asked, found, "")
    more = f", and {len(parts) - MOST_TOLD} more" if len(parts) > MOST_TOLD else ""
    return ", ".join(parts[:MOST_TOLD]) + more


def _differences(asked: Any, found: Any, name: str) -> list[str]:
    if asked == found:
        return []
    if isinstance(asked, Mapping) and isinstance(found, Mapping):
        keys = [*asked, *(key for key in found if key not in asked)]
        parts = [_differences(asked.get(key), found.get(key), f"{name}.{key}" if name else key) for key in keys]
        return [part for each in parts for part in each]
    return [f"{name} is {found!r} there and {asked!r} here"]
