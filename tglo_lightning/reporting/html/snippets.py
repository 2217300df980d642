"""What the report gives to type or to paste: commands for a run of ``tglo-train``, code for a module of one's own."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tglo_lightning.losses.functional import order_of
from tglo_lightning.reporting.html.files import RunFiles
from tglo_lightning.reporting.html.fit import Fit
from tglo_lightning.reporting.results import parts
from tglo_lightning.search.result import Finalist

Options = Mapping[str, Any]
EXAMPLE = "tglo-train experiment=digits_noisy"
# What a Trainer does where it is not told; the journal knows these of the search, and so of the fit
TRAINER = {
    "precision": "32-true",
    "accumulate_grad_batches": 1,
    "gradient_clip_val": None,
    "gradient_clip_algorithm": None,
    "limit_train_batches": 1.0,
    "limit_val_batches": 1.0,
    "overfit_batches": 0.0,
    "reload_dataloaders_every_n_epochs": 0,
}
DATA = {"datamodule": "datamodule", "train_dataloaders": "train_loader", "val_dataloaders": "val_loader"}
# Parameters of order 3, which need not be told
CUBIC = 8


def command(files: RunFiles) -> str:
    """The command that made the run; empty where it was no command."""
    return "" if files.overrides is None else shlex.join(["tglo-train", *files.overrides])


def again(files: RunFiles) -> str:
    """The command that goes on with the run in its directory."""
    return f"{command(files)} hydra.run.dir=RUN_DIR" if files.overrides is not None else ""


def original_options(files: RunFiles) -> list[Options] | None:
    """The options of each original loss; None where no file tells of them, as those of old versions do not."""
    found = {} if files.search is None else files.search.settings
    options = found.get("original_options") or files.header.get("original_options")
    if options is None and files.result is not None and "options" in files.result["losses"]["original"]:
        options = [files.result["losses"]["original"]["options"]]
    return options


def drop_in(best: Finalist, options: Sequence[Options] | None) -> str:
    """The code that builds the metalearned losses, with the options that they took over."""
    found = parts(best)
    kind = "SmoothedCrossEntropyLoss" if len(found[0]) == 2 else "TaylorGLOLoss"
    given = options or [{}] * len(found)
    lines = ["import torch"] if any("weight" in each for each in given) else []
    lines += [f"from tglo_lightning.losses import {kind}", ""]
    for name, part, each in zip(_names(len(found)), found, given, strict=True):
        # Label smoothing is in theta already, where the search found it to help
        taken = {key: value for key, value in each.items() if key != "label_smoothing"}
        arguments = [str(part), *_arguments(part, taken)]
        lines += [f"{name} = {kind}(", *(f"    {argument}," for argument in arguments), ")"]
    return "\n".join(lines)


def comparison(files: RunFiles, losses: int = 1) -> str:
    """Code that trains both losses from fresh seeds and tests each training once; it goes on from :func:`drop_in`."""
    search = files.search
    assert search is not None
    better = "greater" if search.mode == "max" else "less"
    told = f'print(scores, welch(scores["metalearned"], scores["original"], "{better}"))'
    if files.plain:
        [options] = original_options(files) or [{}]
        original = f"torch.nn.CrossEntropyLoss({', '.join(_arguments([], options))})"
        if search.original.name != "CrossEntropyLoss":
            original = "...  # your original loss"
        return f"""import torch
from tglo_lightning.reporting import welch

original = {original}
scores = {{"original": [], "metalearned": []}}
for seed in range(1000, 1005):
    for kind, loss in (("original", original), ("metalearned", criterion)):
        torch.manual_seed(seed)
        scores[kind].append(float(test_fn(loss)))  # your fn, but scored on test data
{told}"""
    module = str(files.header.get("module", "MyModule")).rpartition(".")[2]
    # A result alone does not know the paths
    paths = files.header.get("loss") or _names(losses)
    places = "".join(f"            {_place(path)} = {name}\n" for path, name in zip(paths, _names(losses), strict=True))
    metric = re.sub("^val(id(ation)?)?(?![a-z])", "test", search.monitor)
    return f"""from {lightning(files)} import Trainer, seed_everything
from tglo_lightning.reporting import welch

scores = {{"original": [], "metalearned": []}}
for seed in range(1000, 1005):
    for kind in scores:
        seed_everything(seed)
        module = {module}()  # with your arguments
        if kind == "metalearned":
{places}\
{_trained(files)}
        scores[kind].append(tested[{json.dumps(metric)}])  # what your test_step logs
{told}"""


def _trained(files: RunFiles) -> str:
    """Lines that train and test once, with what the files know of the user's own fit."""
    fit, recorded = files.fit or Fit(""), dict(files.header.get("trainer") or {})
    # -1 is no limit; a Trainer that is told of none takes 1000 epochs
    known = {name: value for name, value in (fit.limits or {}).items() if value not in (None, -1)} or {"max_epochs": -1}
    told = "as this fit had it; your callbacks and loggers are not named here"
    if fit.limits is None:
        known, told = {"max_epochs": 10}, "max_epochs is not recorded: set that of your own fit"
    known |= {name: recorded[name] for name, usual in TRAINER.items() if recorded.get(name, usual) != usual}
    lines = [f"trainer = Trainer({', '.join(f'{name}={value!r}' for name, value in known.items())})  # {told}"]
    data = ["datamodule"] if fit.data is None else fit.data
    handed = "".join(f", {name}={DATA[name]}" for name in data)
    unsure = "  # not recorded: or your DataLoaders" if fit.data is None else ""
    lines.append(f"trainer.fit(module{handed}){unsure}")
    tests = ", datamodule=datamodule" if "datamodule" in data else ", dataloaders=test_loader" if data else ""
    lines.append(f"[tested] = trainer.test(module{tests})")
    return "\n".join(f"        {line}" for line in lines)


def lightning(files: RunFiles) -> str:
    """The name of Lightning that the run imports."""
    used = str(dict(files.header.get("trainer") or {}).get("class", ""))
    return "lightning.pytorch" if used.startswith("lightning.") else "pytorch_lightning"


def monitored(files: RunFiles) -> str:
    """Code that watches what the loss does to single samples."""
    path = _path(files)
    watched = "" if path == "criterion" else f"loss={path!r}"
    return f"""from tglo_lightning import AttractionMonitor

trainer = Trainer(callbacks=[search, AttractionMonitor({watched})])  # search: your TaylorGLO"""


def attack(files: RunFiles) -> str:
    """Code that attacks a trained network, and keeps what it finds where the report looks for it."""
    if files.plain:
        kinds, attacks, network, images = "PGD", "", "network.eval()", "test_loader"
    else:
        kinds, attacks, network, images = "FGSM, PGD", 'FGSM("own"), ', "module.eval()", "datamodule.test_dataloader()"
        images = "test_loader" if files.fit and files.fit.data not in (None, ["datamodule"]) else images
    path = _path(files)
    loss = "" if path == "criterion" else f", loss={path!r}"
    return f"""from tglo_lightning.attacks import {kinds}, evaluate_robustness

attacks = [{attacks}PGD("cross_entropy"), PGD("margin")]
# Again with the network that was trained with the original loss, saved as robustness-original.json
report = evaluate_robustness({network}, {images}, attacks, [0, 2 / 255, 8 / 255]{loss})
report.save("RUN_DIR/robustness.json")"""


def _path(files: RunFiles) -> str:
    """The path of the loss, or of the first of several."""
    return str((files.header.get("loss") or ["criterion"])[0])


def _names(losses: int) -> list[str]:
    return ["criterion"] if losses == 1 else [f"criterion_{i}" for i in range(losses)]


def _arguments(theta: Sequence[float], options: Options) -> list[str]:
    order = [] if len(theta) in (0, 2, CUBIC) else [f"order={order_of(theta)}"]
    return order + [f"{k}={f'torch.tensor({v!r})' if k == 'weight' else repr(v)}" for k, v in options.items()]


def _place(path: str) -> str:
    """``module.head[0].criterion`` for the path ``"head.0.criterion"``."""
    return "module" + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path.split("."))
