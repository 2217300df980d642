"""What the report gives to type or to paste: commands for a run of ``tglo-train``, code for a module of one's own."""

from __future__ import annotations

import json
import re
import shlex

from tglo_lightning.reporting.html.files import RunFiles
from tglo_lightning.search import Criterion, LossSpec

EXAMPLE = "tglo-train experiment=digits_noisy"


def command(files: RunFiles) -> str:
    """Return the command that made the run; empty if it was no command."""
    return "" if files.overrides is None else shlex.join(["tglo-train", *files.overrides])


def again(files: RunFiles) -> str:
    """Return the command that continues the run in its directory."""
    return f"{command(files)} hydra.run.dir=RUN_DIR" if files.overrides is not None else ""


def drop_in(criterion: Criterion) -> str:
    """Return code that builds the losses of ``criterion`` in place of others."""
    names = _names(len(criterion.losses))
    built = (f"{name} = {_built(loss, 'original')}" for name, loss in zip(names, criterion.losses, strict=True))
    return "\n".join(
        (
            "import torch",
            "from tglo_lightning.losses import loss_like",
            "",
            "original = torch.nn.CrossEntropyLoss()  # yours: class weights, ignore_index, reduction are taken over",
            *built,
        )
    )


def comparison(files: RunFiles, criterion: Criterion) -> str:
    """Return code that trains both losses from the same fresh seeds and tests each training once."""
    search = files.search
    assert search is not None
    less = f"less={search.mode == 'min'}, paired=True"
    told = f'print(scores, verdict(scores["metalearned"], scores["original"], {less}))'
    if files.plain:
        found = _names(1)[0] if criterion.losses else "original"
        return f"""{drop_in(criterion)}

from tglo_lightning.reporting.stats import verdict
from tglo_lightning.search.rate import scaled_rates

scores = {{"original": [], "metalearned": []}}
for seed in range(1000, 1005):
    for kind, loss, step in (("original", original, 1.0), ("metalearned", {found}, {criterion.step!r})):
        torch.manual_seed(seed)
        with scaled_rates(step):  # of the optimizers that are built within
            scores[kind].append(float(test_fn(loss)))  # your fn, but scored on test data
{told}"""
    module = str(files.header.get("module", "MyModule")).rpartition(".")[2]
    # A result alone does not know the paths
    paths = files.header.get("loss") or _names(len(criterion.losses))
    places = [(_place(path), loss) for path, loss in zip(paths, criterion.losses, strict=False)]
    lines = [f"{place} = {_built(loss, place)}" for place, loss in places]
    lines += [f"set_step(module, {criterion.step!r})  # a factor on its learning rates"] if criterion.step != 1 else []
    replaced = "".join(f"            {line}\n" for line in lines)
    metric = re.sub("^val(id(ation)?)?(?![a-z])", "test", search.monitor)
    used = str(dict(files.header.get("trainer") or {}).get("class", ""))
    namespace = "lightning.pytorch" if used.startswith("lightning.") else "pytorch_lightning"
    step = "from tglo_lightning.evaluation.inner import set_step\n" if criterion.step != 1 else ""
    return f"""from {namespace} import Trainer, seed_everything
{step}from tglo_lightning.losses import loss_like
from tglo_lightning.reporting.stats import verdict

scores = {{"original": [], "metalearned": []}}
for seed in range(1000, 1005):
    for kind in scores:
        seed_everything(seed)
        module = {module}()  # with your arguments
        if kind == "metalearned":
{replaced}\
        trainer = Trainer()  # with the arguments of your own fit
        trainer.fit(module, datamodule=datamodule)  # or your DataLoaders
        [tested] = trainer.test(module, datamodule=datamodule)
        scores[kind].append(tested[{json.dumps(metric)}])  # what your test_step logs
{told}"""


def _built(loss: LossSpec, original: str) -> str:
    return f"loss_like({original}, {json.dumps(loss.family)}, {list(loss.theta)})"


def _names(losses: int) -> list[str]:
    return ["criterion"] if losses == 1 else [f"criterion_{i}" for i in range(losses)]


def _place(path: str) -> str:
    """``module.head[0].criterion`` for the path ``"head.0.criterion"``."""
    return "module" + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path.split("."))
