"""What the report gives to type or to paste: commands for a run of ``tglo-train``, code for a module of one's own."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from jinja2 import Environment, PackageLoader
from torch import nn

from tglo_lightning.reporting.html.files import RunFiles
from tglo_lightning.search import Criterion, LossSpec

LIKE = {"classes": "CrossEntropyLoss", "binary": "BCEWithLogitsLoss", "regression": "MSELoss"}
EXAMPLE = "tglo-train experiment=digits_noisy"


def command(files: RunFiles, change: str = "") -> str:
    """Return the command that made the run, empty if it was no command; `change`, a word of it, replaces its likes."""
    if files.overrides is None:
        return ""
    key, *_ = change.partition("=")
    kept = [word for word in files.overrides if not word.startswith(f"{key}=")]
    if kept != files.overrides:
        # Hydra takes one option of a group; keys of the other one need not be there any more
        kept = [word for word in kept if not word.lstrip("+~").startswith(f"{key}.")]
    return shlex.join(["tglo-train", *files.searched, *kept, *filter(None, [change])])


def again(files: RunFiles) -> str:
    """Return the command that continues the run in its directory."""
    return command(files, "hydra.run.dir=RUN_DIR")


def drop_in(files: RunFiles, criterion: Criterion) -> str:
    """Return code that builds the losses of ``criterion`` in place of others."""
    options = files.original_options[0] if files.original_options and files.original_name == "CrossEntropyLoss" else {}
    given = ", ".join(f"{k}=torch.tensor({v})" if k == "weight" else f"{k}={v!r}" for k, v in options.items())
    known = files.original_name.endswith("Loss") and hasattr(nn, files.original_name)
    original = files.original_name if known else LIKE[files.kind]
    losses = [*zip(_names(len(criterion.losses)), map(_built, criterion.losses), strict=True)]
    return _code("drop_in.py", original=original, given=given, losses=losses)


def comparison(files: RunFiles, criterion: Criterion) -> str:
    """Return code that trains both losses from the same fresh seeds and tests each training once."""
    search = files.search
    assert search is not None
    less = ", less=True" if search.mode == "min" else ""
    names = _names(len(criterion.losses))
    if files.plain:
        found, built = names[0] if criterion.losses else "original", drop_in(files, criterion)
        return _code("compare_function.py", built=built, found=found, step=criterion.step, less=less)
    # A result alone does not know the places
    slots = files.header.get("slots") or [{"name": name} for name in names]
    inline = any(slot["name"].startswith("F.") for slot in slots)
    used = str(dict(files.header.get("trainer") or {}).get("class", ""))
    return _code(
        "compare_module.py",
        namespace="lightning.pytorch" if used.startswith("lightning.") else "pytorch_lightning",
        module=files.module or "MyModule",
        inline=inline,
        attributes=not all(slot["name"].startswith("F.") for slot in slots),
        losses=[
            _replaced(slot, loss, options)
            for slot, loss, options in zip_longest(slots, criterion.losses, files.original_options)
            if slot and loss
        ],
        step=criterion.step,
        metric=json.dumps(re.sub("^val(id(ation)?)?(?![a-z])", "test", search.monitor)),
        less=less,
    )


def _code(template: str, **values: object) -> str:
    loader = PackageLoader("tglo_lightning.reporting.html")
    return Environment(loader=loader, trim_blocks=True).get_template(f"{template}.jinja").render(values)


def _built(loss: LossSpec, original: str = "original") -> str:
    return f"loss_like({original}, {json.dumps(loss.family)}, {list(loss.theta)})"


def _names(losses: int) -> list[str]:
    return ["criterion"] if losses == 1 else [f"criterion_{i}" for i in range(losses)]


def _replaced(slot: Mapping[str, Any], loss: LossSpec, options: Mapping[str, Any] | None) -> str:
    """The line that puts a loss into its place in ``module``."""
    name = slot["name"]
    if name.startswith("F."):
        # All other options come with each call
        given = {k: v for k, v in (options or {}).items() if k == "label_smoothing"}
        called = ", ".join(map(repr, [name, slot["calls"], *([given] if given else [])])).replace("'", '"')
        return f"InlineSlot({called}).install(module, LossSpec({json.dumps(loss.family)}, {loss.theta}))"
    place = "module" + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in name.split("."))
    return f"{place} = {_built(loss, place)}"
