"""Signs of gradient masking: what makes a network look robust that is not (arXiv 1802.00420, 1902.06705)."""

from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor, nn

from tglo_lightning.attacks.model import AttackedModel
from tglo_lightning.reporting.robustness import AttackResult, Finding
from tglo_lightning.search.seeding import seed_all

# Differences of up to this share of the images, or of this many, may be chance
SHARE, COUNT = 0.02, 2
# Two honest losses may differ by this share
DIFFERENT_LOSSES = 0.05
# An accuracy above this is not "about zero"
NEAR_ZERO = 0.05
ZERO_GRADIENTS = 0.01
RANDOM = 1e-4
# In order of strength, and what they are called
LOSSES = {"own": "network's own loss", "cross_entropy": "cross-entropy", "margin": "margin"}


def about_mode(module: nn.Module) -> Iterator[Finding]:
    """Before the attacks: is the module in training mode?"""
    training = [name or type(module).__name__ for name, child in module.named_modules() if child.training]
    if training:
        yield Finding(
            "training_mode",
            f"The module was in training mode ({_some(training)}). It was attacked in evaluation mode, and is in "
            "training mode again.",
        )


def about_forward(model: AttackedModel, x: Tensor) -> Iterator[Finding]:
    """Does the same input give the same output, in evaluation mode?"""
    stubborn = [name for name, child in model.module.named_modules() if child.training]
    if stubborn:
        yield Finding("training_mode", f"{_some(stubborn)} stays in training mode whatever .eval() says.")
    outputs = []
    with torch.no_grad():
        for seed in (0, 1):
            seed_all(seed)
            outputs.append(model(x))
    scale = outputs[0].abs().amax().clamp(min=1e-12)
    if not torch.allclose(outputs[0] / scale, outputs[1] / scale, atol=RANDOM, rtol=0, equal_nan=True):
        yield Finding(
            "random_forward",
            "The network gives different outputs for the same image: randomness hides the gradient from an attack that "
            "does not average over it, and no attack here does.",
        )


def about_huge_epsilon(left: dict[str, float]) -> Iterator[Finding]:
    """Does unbounded PGD leave anything of the accuracy? ``left`` is what it leaves, per loss."""
    for loss, accuracy in left.items():
        if accuracy > NEAR_ZERO:
            yield Finding(
                "huge_epsilon",
                f"PGD along the gradient of the {LOSSES[loss]} leaves {accuracy:.0%} of the images that are classified "
                "rightly as they were, even if it may change every pixel as it likes: that gradient does not lead out "
                "of the class. What withstands it is not shown to be robust.",
            )


def about_attacks(attacks: list[AttackResult], epsilons: list[float]) -> Iterator[Finding]:
    """What the attacks say of one another."""
    yield from _losses(attacks, epsilons)
    yield from _gradient_free(attacks, epsilons)
    for attack in attacks:
        zero = attack.zero_gradients
        if zero is not None and zero > ZERO_GRADIENTS:
            yield Finding(
                "zero_gradients",
                f"{attack.name}: {zero:.1%} of the gradients are exactly zero. An attack that follows them goes "
                "nowhere; use loss='margin' and a gradient-free attack.",
            )
        if attack.iterated and attack.knowledge == "gradient":
            yield from _rising(attack, epsilons)


def _losses(attacks: list[AttackResult], epsilons: list[float]) -> Iterator[Finding]:
    """The same attack along the gradients of different losses."""
    order = list(LOSSES)
    with_loss = [attack for attack in attacks if attack.knowledge == "gradient" and "loss" in attack.settings]
    for weak, strong in combinations(sorted(with_loss, key=lambda a: order.index(a.settings["loss"])), 2):
        losses = weak.settings["loss"], strong.settings["loss"]
        same_kind = weak.name.split("-")[0] == strong.name.split("-")[0]
        if losses[0] == losses[1] or not same_kind or _effort(weak) < _effort(strong):
            continue
        # One step along different losses differs by chance; what saturates shows in many
        if losses[1] == "margin" and not weak.iterated:
            continue
        share = DIFFERENT_LOSSES if losses[1] == "margin" else SHARE
        if (row := _outdone(weak.robust, strong.robust, share)) is None:
            continue
        yield Finding(
            "own_loss_weaker" if losses[0] == "own" else "cross_entropy_weaker",
            f"At epsilon {epsilons[row]:g} the accuracy is {weak.accuracy[row]:.1%} under {weak.name}, but "
            f"{strong.accuracy[row]:.1%} under {strong.name}: the gradient of the {LOSSES[losses[0]]} hides what "
            f"that of the {LOSSES[losses[1]]} finds.",
        )


def _gradient_free(attacks: list[AttackResult], epsilons: list[float]) -> Iterator[Finding]:
    """Images that only an attack without gradients breaks."""
    white = [attack for attack in attacks if attack.knowledge == "gradient"]
    iterated = [attack for attack in white if attack.iterated]
    others = iterated or white
    for attack in attacks:
        if attack.knowledge not in ("scores", "decisions") or not white:
            continue
        standing = torch.stack([other.robust for other in others]).all(0)
        row = _outdone(standing, standing & attack.robust, SHARE / 2)
        if row is None:
            continue
        count = int((standing & ~attack.robust)[row].sum())
        caveat = "" if iterated else " None of these takes more than one step: run PGD to tell masking from weakness."
        yield Finding(
            "gradient_free_stronger",
            f"At epsilon {epsilons[row]:g} {attack.name}, which uses no gradient, breaks {count} of "
            f"{standing.shape[1]} images that withstand {', '.join(other.name for other in others)}: the "
            f"gradients mislead.{caveat}",
        )


def _rising(attack: AttackResult, epsilons: list[float]) -> Iterator[Finding]:
    for row in range(1, len(epsilons)):
        if epsilons[row - 1] == 0:
            continue
        if _outdone(attack.robust[row : row + 1], attack.robust[row - 1 : row], SHARE) is not None:
            yield Finding(
                "rises_with_epsilon",
                f"{attack.name}: accuracy rises from {attack.accuracy[row - 1]:.1%} at epsilon {epsilons[row - 1]:g} "
                f"to {attack.accuracy[row]:.1%} at {epsilons[row]:g}. A larger ball holds the smaller one: the attack "
                "does not find what is there.",
            )
            return


def _outdone(weak: Tensor, strong: Tensor, share: float) -> int | None:
    """The row at which ``strong`` leaves fewest images in comparison, if that is more than chance; else ``None``."""
    gap = weak.sum(1) - strong.sum(1)
    row = int(gap.argmax())
    return row if int(gap[row]) > max(COUNT, share * weak.shape[1]) else None


def _effort(attack: AttackResult) -> int:
    """Gradients an image, at most."""
    return int(attack.settings.get("steps", 1)) * int(attack.settings.get("restarts", 1))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
