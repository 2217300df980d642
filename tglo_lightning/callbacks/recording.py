"""The files of a search: written while it runs, found again when the same fit is started again."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tglo_lightning._version import __version__
from tglo_lightning.module.fingerprint import compared
from tglo_lightning.module.messages import tell
from tglo_lightning.search import Journal, JournalError, SearchError, SearchResult
from tglo_lightning.search.files import (
    default_journal,
    free_journal,
    interrupted_neighbour,
    is_finished,
    result_path,
)
from tglo_lightning.search.journal import Unwritable
from tglo_lightning.wording import counted

# Packages whose versions may change the outcome of a search
VERSIONS = ("torch", "pytorch-lightning", "cma", "numpy")
# Settings of evaluators that may change the last bits of a result
OPTIONS = ("chunk_size", "compile")


class Recording:
    """Keeps the journal of a search, and its result.

    Args:
        path: the journal that the user named, if ``named``, or the directory of the run, below which each search has a
            directory of its own, named after what is searched; ``None`` to write nothing. Then the journal's path.
        identity: all that the outcome of the search depends on, as plain values, but for the ``evaluator`` given.
        asked: the settings of the search, of which generations and finals may change when it goes on.
        resume: whether to go on from a journal that is there; else it stays, and another place is taken.

    Raises:
        JournalError: a journal that the user named exists, and ``resume`` is off.
    """

    def __init__(
        self,
        path: Path | None,
        identity: Mapping[str, Any],
        evaluator: Any,
        *,
        asked: Mapping[str, Any],
        named: bool,
        resume: bool,
    ) -> None:
        self.asked, self.identity = _plain(asked), _plain(identity)
        self.named, self.resume, self.path = named, resume, path
        if path is None:
            return
        if not named:
            named_by = evaluator if isinstance(evaluator, str) else [evaluator_name(evaluator), _options(evaluator)]
            values = json.dumps([self.identity, named_by], sort_keys=True).encode()
            self.path = default_journal(path, sha256(values).hexdigest()[:12])
            self.path = self.path if resume else free_journal(self.path)
        elif not resume and os.path.exists(path):
            raise JournalError(
                f"{path} exists, and `resume` is off. Give `journal` another path, or go on from it by resume=True."
            )

    @property
    def evaluator(self) -> str | None:
        """Name of the evaluator that the search began with; ``None`` if it begins now."""
        return None if self.path is None else Journal.header(self.path).get("evaluator")

    @contextmanager
    def journal(self, evaluator: Any, notes: Mapping[str, Any]) -> Iterator[Journal | None]:
        """Open the journal while the search runs; ``None`` if nothing is written. ``notes`` go into its header."""
        journal = self._open(evaluator, notes)
        if journal is None:
            self.path = None
            yield None
            return
        try:
            tell(self._greeting(journal.recorded))
            yield journal
        except (KeyboardInterrupt, SystemExit):
            again = "" if self.resume else f" with journal={str(journal.path)!r} and resume=True"
            tell(f"TaylorGLO: interrupted. Start the same fit again{again} to go on from {journal.path}.")
            raise
        except SearchError as error:
            raise SearchError(
                f"{error}\nWhat failed is written down in {journal.path}: to try it again as it is, pass resume=False."
            ) from error
        finally:
            journal.close()

    def save(self, result: SearchResult) -> Path | None:
        """Write the result beside the journal; return its path if it was written."""
        if self.path is None:
            return None
        try:
            result.save(result_path(self.path))
        except OSError as error:
            warnings.warn(f"The result of the search cannot be written: {error}. The fit goes on.", stacklevel=2)
            return None
        return result_path(self.path)

    def _open(self, evaluator: Any, notes: Mapping[str, Any]) -> Journal | None:
        if self.path is None:
            return None
        options = _options(evaluator)
        given = {"evaluator": evaluator_name(evaluator)} | ({"evaluator_options": options} if options else {})
        header = _plain({**self.identity, **given, **notes})
        neighbour = None if self.named or os.path.exists(self.path) else interrupted_neighbour(self.path, header)
        if neighbour is not None:
            path, difference = neighbour
            hint = ""
            if "weights is" in difference:
                hint = " A search goes on if the module starts from the same weights: seed them, by seed_everything(0)."
            tell(f"TaylorGLO: {path} is an unfinished search, but another one: {difference}.{hint}")
        try:
            return Journal(self.path, header)
        except Unwritable as error:
            if self.named:
                raise
            warnings.warn(
                f"{error} The search runs without a journal: should it be killed, it starts anew. Set the Trainer's "
                "`default_root_dir` to a directory that can be written, or name a file by `journal`.",
                stacklevel=2,
            )
            return None

    def _greeting(self, recorded: int) -> str:
        if not recorded:
            return f"TaylorGLO writes the search to {self.path}; killed, it goes on from there."
        how = f"TaylorGLO goes on from {self.path}, which holds {counted(recorded, 'record')}."
        if self.path is not None and is_finished(self.path, self.asked):
            how = f"TaylorGLO: this search is finished, its trainings are in {self.path}. To search anew, pass "
            how += "resume=False or another seed."
        return f"{how} The same as there: {compared(self.identity)}."


def evaluator_name(evaluator: Any) -> str:
    """Return the name of an evaluator, or of its class."""
    return str(getattr(evaluator, "name", type(evaluator).__name__))


def versions(trainer: Any) -> dict[str, str]:
    """Return the versions of the packages that may change the outcome of a search."""
    packages = VERSIONS if type(trainer).__module__.startswith("pytorch_lightning") else (*VERSIONS, "lightning")
    return {"tglo-lightning": __version__, **{name: version(name) for name in packages}}


def _options(evaluator: Any) -> dict[str, Any]:
    core = getattr(evaluator, "inner", evaluator)
    options = {name: getattr(core, name) for name in OPTIONS if getattr(core, name, None) is not None}
    ranks = getattr(evaluator, "parts", 1)
    return options | ({"ranks": ranks} if ranks > 1 else {})


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` as they come back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
