"""Ways to use losses of earlier searches on another task, for ``python -m benchmarks.worth --plugin``.

``found.json`` holds what ten searches from 0 found on ten splits of digits with 40 % wrong labels.
"""

import json
from pathlib import Path

from benchmarks.worth.methods import Bench, Outcome, Presets, method
from tglo_lightning.losses.priors import Prior, prior
from tglo_lightning.search import Criterion, ShapeSpace, presets
from tglo_lightning.theory import to_minimal, to_shape

FOUND = json.loads(Path(__file__).with_name("found.json").read_text(encoding="utf-8"))
SOURCE_CLASSES = 10


def found(b: Bench) -> Criterion:
    """The loss of another split than that of the target."""
    loss = FOUND[(b.seed + 1) % len(FOUND)]
    return Criterion.of("taylorglo", loss["theta"], loss["step"])


def as_prior(criterion: Criterion, classes: int) -> Criterion:
    """The start of a search whose ``prior`` is the result of an earlier one, see `SearchResult.to_prior`."""
    t = to_shape(to_minimal(list(criterion.losses[0].theta)), SOURCE_CLASSES)[1]
    space = ShapeSpace(Prior("search", tuple(t.tolist()), prior().spread, criterion.step)).for_task(classes)
    return space.decode(space.centre)


def sixteen(b: Bench, start: Criterion) -> Outcome:
    """The default with another loss in place of `robust`: ten presets, the best two with three more seeds."""
    return b.tune("gce", Presets(presets(b.classes, start=start)), 1, 10, (2, 3))


@method("found, as it is")
def untouched(b: Bench) -> Outcome:
    """The loss and its step, without a search."""
    return Outcome(found(b), 1)


@method("found, 16")
def raw(b: Bench) -> Outcome:
    """The polynomial as found among the presets."""
    return sixteen(b, found(b))


@method("prior=found, 16")
def normalised(b: Bench) -> Outcome:
    """The result as ``prior=``: its shape, with the mean pull of cross-entropy for the number of classes."""
    return sixteen(b, as_prior(found(b), b.classes))


@method("known, 16")
def known(b: Bench) -> Outcome:
    """No loss of ours among the presets: GCE in its place."""
    return sixteen(b, Criterion.of("gce", [0.7]))
