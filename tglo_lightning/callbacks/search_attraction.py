"""The attraction of training samples under the losses that a search or a race has trained with."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch

from tglo_lightning.callbacks.attraction import separable, true_classes
from tglo_lightning.evaluation import InnerFit
from tglo_lightning.evaluation.diagnosis import Tally, diagnose, run_through
from tglo_lightning.evaluation.isolation import isolated
from tglo_lightning.module.capture import loss_inputs
from tglo_lightning.module.loaders import nothing
from tglo_lightning.reporting.attraction import AttractionRecord, measure
from tglo_lightning.search import Criterion

SAMPLES = 200
BATCHES = 4


def attraction_path(search: Path, name: str) -> Path:
    """The file of a record, beside the journal or the result of its search."""
    return search.with_name(f"{search.stem}-attraction-{name}.npz")


class SearchAttraction:
    """Measures networks of a search on the same training samples, each under the first loss that it is trained with.

    The samples are the first of the shuffled training batches, at most ``SAMPLES``. A module that cannot be run like
    this, or a loss outside the family, is not measured. Records are kept beside the ``journal``, if there is one.
    """

    def __init__(self, fit: InnerFit, journal: Path | None) -> None:
        self.fit, self.journal = fit, journal
        self._records: dict[Hashable, AttractionRecord] = {}
        self._shown: tuple[Any, Any, Tally, list[Any]] | None = None
        self._failed = False

    def look(self, population: Any, member: int) -> dict[str, float] | None:
        """Measure a network that was trained with the module's own loss, and diagnose it."""
        self.measure("original", Criterion.original(), population, member)
        if self.fit.budget.unit == "steps" and (record := self._records.get("original")) is not None:
            record.epochs = [max(1, round(steps / self.fit.epoch_steps())) for steps in record.steps]
        return diagnose(self.fit, population, member)

    def measure(self, key: Hashable, criterion: Criterion, population: Any, member: int) -> None:
        """Add a measurement of a member of a population, as it stands, to the record of ``key``.

        Its epochs are counted in the unit of the budget.
        """
        if self._failed:
            return
        try:
            # A Trainer runs once, and muting takes time
            with isolated(self.fit.generators, quiet=self._shown is None), torch.no_grad():
                self._measure(key, criterion, population.weights(member), population.trained)
        except Exception:  # code of the user's, called in another order than its own; losses of other kinds
            self._failed = True

    def records(self, keys: Mapping[str, Hashable]) -> dict[str, AttractionRecord]:
        """Return the records of these keys by name, and write them; one of an earlier process is read."""
        found = {}
        for name, key in keys.items():
            path = None if self.journal is None else attraction_path(self.journal, name)
            if key in self._records:
                found[name] = self._records[key]
                if path is not None and path.parent.is_dir():
                    found[name].save(path)
            elif path is not None and path.is_file():
                found[name] = AttractionRecord.load(path)
        return found

    def state_dict(self) -> dict[Hashable, Any]:
        """Return all records, as tensors and plain values."""
        return {key: record.state_dict() for key, record in self._records.items()}

    def load_state_dict(self, state: Mapping[Hashable, Any]) -> None:
        """Take over the records that :meth:`state_dict` has returned."""
        self._records = {key: AttractionRecord.from_state_dict(record) for key, record in state.items()}

    def _measure(self, key: Hashable, criterion: Criterion, weights: dict[str, Any], trained: int) -> None:
        module, trainer, tally, batches = self._shown = self._shown or self._prepare()
        module.load_state_dict(weights, strict=False)
        loss = separable(criterion.losses[0].build(tally.loss) if criterion.losses else tally.loss)
        with trainer.precision_plugin.forward_context():
            seen: list[Any] = []
            for batch in batches:
                if sum(len(logits) for logits, _ in seen) < SAMPLES:
                    seen.append(loss_inputs(module, tally, batch))
        if len({logits.shape[1:] for logits, _ in seen}) == 1:
            seen = [tuple(map(torch.cat, zip(*seen, strict=True)))]
        values = torch.cat([measure(loss, *each) for each in seen], 1)[:, :SAMPLES]
        if key not in self._records:
            target = torch.cat([true_classes(*each).cpu() for each in seen])[:SAMPLES]
            self._records[key] = AttractionRecord(torch.full_like(target, -1), target, seen[0][0].shape[1])
        steps = trained * (self.fit.epoch_steps() if self.fit.budget.unit == "epochs" else 1)
        self._records[key].append(trained, steps, loss, values)

    def _prepare(self) -> tuple[Any, Any, Tally, list[Any]]:
        """A module of the fit, its Trainer, what stands for its loss, and the batches."""
        module = self.fit.candidate(Criterion.original(), seed=0)
        slot = next(iter(self.fit.slots))
        tally = Tally(slot.get(module))
        slot.set(module, tally)
        batches: list[Any] = []
        trainer = run_through(self.fit, module, lambda batch, *_: batches.append(batch), "train", BATCHES)
        vars(module).update(log=nothing, log_dict=nothing)
        return module.to(self.fit.device).eval(), trainer, tally, batches
