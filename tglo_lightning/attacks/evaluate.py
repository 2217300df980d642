"""Attack a network and report what is left of its accuracy."""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from tglo_lightning.arguments import choice, entries, flag, integer, number, optional
from tglo_lightning.attacks import masking
from tglo_lightning.attacks.base import NORMS, Attack, derived_seed, project
from tglo_lightning.attacks.gradient import PGD, GradientAttack
from tglo_lightning.attacks.model import AttackedModel, Passes, attackable
from tglo_lightning.module.loaders import generators
from tglo_lightning.reporting.robustness import AttackResult, RobustnessReport
from tglo_lightning.search.seeding import random_states, seed_all

LIBRARIES = ("torch", "foolbox", "pyautoattack")
# Images that the check with a huge epsilon uses, and its steps
CHECKED, CHECK_STEPS = 100, 50


class GradientMaskingWarning(UserWarning):
    """A network looks more robust than it is shown to be."""


def evaluate_robustness(
    module: nn.Module,
    data: tuple[Tensor, Tensor] | Iterable[Any],
    attacks: Attack | Sequence[Attack],
    epsilons: float | Sequence[float],
    *,
    norm: str = "linf",
    bounds: tuple[float, float] = (0.0, 1.0),
    normalize: tuple[Any, Any] | None = None,
    normalized_data: bool = False,
    loss: str = "criterion",
    samples: int | None = None,
    batch_size: int = 256,
    seed: int = 0,
    checks: bool = True,
    progress: Callable[[str], None] | None = None,
) -> RobustnessReport:
    """Clean and robust accuracy of an image classifier under several attacks, and signs of gradient masking.

    The module is attacked in evaluation mode. Its mode, parameters, gradients, buffers and all random generators are
    afterwards as before.

    Args:
        module: a LightningModule, or any module whose ``forward(x)`` returns logits ``(N, n)`` for images.
        data: ``(images, labels)``, floating ``(N, C, H, W)`` and class indices ``(N,)``; or batches that start with
            these two, such as a DataLoader.
        attacks: one attack or several, their names different.
        epsilons: radii of the ball around an image, in units of pixels.
        norm: norm of the ball, ``"linf"`` or ``"l2"``.
        bounds: least and greatest value of a pixel.
        normalize: ``(mean, std)`` to apply to pixels before they enter the module, a number or one a channel each;
            ``None`` if the module takes pixels, or normalises them itself.
        normalized_data: the data are normalised already: that is undone first.
        loss: path of the module's attribute that holds the loss, for attacks with ``loss="own"``.
        samples: images to use, from the first on; all by default.
        batch_size: images attacked at once. With random starts the result depends on it.
        seed: of all that is random.
        checks: look for gradient masking with a random-forward and a huge-epsilon check, and issue each finding as a
            :class:`GradientMaskingWarning`; without it findings come from the attacks alone, and are not issued.
        progress: called with the name of each attack before it runs on a batch.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range; data that are no images and class indices,
            or that lie outside of ``bounds``; a ``forward`` that returns no logits; no loss at the path ``loss``.
        ImportError: an attack's library is not installed.

    >>> from tglo_lightning.attacks import FGSM, PGD, evaluate_robustness
    >>> report = evaluate_robustness(module, loader, [FGSM("own"), PGD("margin")], [0, 0.1])  # doctest: +SKIP
    >>> report.accuracy("fgsm-own", 0.1), report.worst(0.1)  # doctest: +SKIP
    """
    given = [attacks] if isinstance(attacks, Attack) else attacks
    given = entries("attacks", given, "one attack or several of tglo_lightning.attacks", Attack, least=1)
    names = [attack.name for attack in given]
    if len(set(names)) < len(names):
        raise ValueError(f"`attacks` must differ in more than their budget, got {', '.join(names)}.")
    radii = check_epsilons(epsilons)
    choice("norm", norm, NORMS)
    samples = optional(integer, "samples", samples, 1)
    batch_size = integer("batch_size", batch_size, 1)
    seed = integer("seed", seed, 0)
    if flag("normalized_data", normalized_data) and normalize is None:
        raise ValueError("`normalized_data=True` needs `normalize=(mean, std)`.")
    if not isinstance(module, nn.Module):
        raise TypeError(f"`module` must be a torch.nn.Module, got {type(module).__name__}.")
    findings = list(masking.about_mode(module))
    with attackable(module), random_states(generators(data)):
        model = AttackedModel(module, bounds=bounds, normalize=normalize, loss=loss)
        losses = sorted({attack.loss for attack in given if isinstance(attack, GradientAttack)})
        own = model.slot.name(module) if "own" in losses else None
        batches = _batches(model, data, samples, batch_size, normalized_data)
        first = next(batches, None)
        if first is None:
            raise ValueError("There are no images to attack: `data` is empty.")
        with torch.no_grad():
            classes = model(first[0][:1]).shape[1]
        if checks:
            findings += masking.about_forward(model, first[0])
        run = _Run(model, given, radii, norm, seed, classes, progress or (lambda name: None))
        for x, labels in chain([first], batches):
            run.attack(x, labels)
        results = [tally.result(attack) for attack, tally in zip(given, run.tallies, strict=True)]
        if checks:
            left = run.unbounded(losses)
            findings += masking.about_huge_epsilon(left)
    findings += masking.about_attacks(results, radii)
    report = RobustnessReport(
        norm=norm,
        epsilons=radii,
        bounds=model.bounds,
        seed=seed,
        num_classes=classes,
        own_loss=own,
        clean=torch.cat(run.clean),
        attacks=results,
        huge_epsilon=left if checks else {},
        forward=model.passes.forward + sum(result.forward for result in results),
        backward=model.passes.backward + sum(result.backward for result in results),
        findings=findings,
        versions={name: version(name) for name in LIBRARIES if find_spec(name) is not None},
    )
    if checks:
        for finding in findings:
            warnings.warn(finding.message, GradientMaskingWarning, stacklevel=2)
    return report


def check_epsilons(epsilons: Any) -> list[float]:
    """Radii as floats of at least 0, ascending, each once; an error if there are none."""
    if isinstance(epsilons, Real):
        return [number("epsilons", epsilons, least=0)]
    try:
        values = list(epsilons)
    except TypeError as error:
        raise TypeError(f"`epsilons` must be numbers, got {epsilons!r}.") from error
    if not values:
        raise ValueError("`epsilons` must hold at least one radius.")
    return sorted({number(f"epsilons[{i}]", value, least=0) for i, value in enumerate(values)})


@dataclass
class _Tally:
    """What one attack has done so far."""

    passes: Passes = field(default_factory=Passes)
    robust: list[Tensor] = field(default_factory=list)
    seconds: float = 0.0

    def result(self, attack: Attack) -> AttackResult:
        return AttackResult(
            name=attack.name,
            knowledge=attack.knowledge,
            iterated=attack.iterated,
            settings=attack.settings,
            robust=torch.cat(self.robust, 1),
            forward=self.passes.forward,
            backward=self.passes.backward,
            zero_gradients=self.passes.zero_gradients / self.passes.backward if self.passes.backward else None,
            seconds=round(self.seconds, 3),
        )


@dataclass
class _Run:
    """All attacks at all epsilons, batch after batch; ``kept``: images for the check with a huge epsilon."""

    model: AttackedModel
    attacks: list[Attack]
    epsilons: list[float]
    norm: str
    seed: int
    classes: int
    progress: Callable[[str], None]
    clean: list[Tensor] = field(default_factory=list)
    kept: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tallies = [_Tally() for _ in self.attacks]

    def attack(self, x: Tensor, labels: Tensor) -> None:
        """One batch."""
        self.model.check(x, labels, self.classes)
        right = self.model.predict(x) == labels
        batch = len(self.clean)
        self.clean.append(right.cpu())
        room = CHECKED - sum(len(images) for images, _ in self.kept)
        if room > 0 and right.any():
            self.kept.append((x[right][:room], labels[right][:room]))
        for attack, tally in zip(self.attacks, self.tallies, strict=True):
            self.progress(attack.name)
            started, self.model.passes, before = time.perf_counter(), tally.passes, self.model.passes
            tally.robust.append(self._robust(attack, x, labels, right, batch).cpu())
            self.model.passes = before
            tally.seconds += time.perf_counter() - started

    def _robust(self, attack: Attack, x: Tensor, labels: Tensor, right: Tensor, batch: int) -> Tensor:
        """Bool of shape ``(E, N)``."""
        rows = right.expand(len(self.epsilons), -1).clone()
        standing = right.nonzero().squeeze(1)
        # The ball of radius 0 is the image itself
        radii = [epsilon for epsilon in self.epsilons if epsilon > 0]
        if not len(standing) or not radii:
            return rows
        images, classes = x[standing], labels[standing]
        found = attack.perturb(self.model, images, classes, radii, self.norm, derived_seed(self.seed, str(batch)))
        for epsilon, attacked in zip(radii, found, strict=True):
            candidate = project(attacked.detach(), images, epsilon, self.norm, self.model.bounds)
            rows[self.epsilons.index(epsilon), standing] = self.model.predict(candidate) == classes
        return rows

    def unbounded(self, losses: list[str]) -> dict[str, float]:
        """What PGD leaves of the accuracy, per loss, if it may make any image of any image."""
        if not self.kept:
            return {}
        # Without a random start: from a random image of the cube any class is left, whatever the gradient says
        x, labels = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
        low, high = self.model.bounds
        epsilon = (high - low) * (1.0 if self.norm == "linf" else math.sqrt(x[0].numel()))
        left = {}
        for loss in losses:
            attack = PGD(loss=loss, steps=CHECK_STEPS, step_size=0.05, random_start=False)
            seed_all(self.seed)
            attacked = attack.run(self.model, x, labels, epsilon, self.norm).detach()
            candidate = project(attacked, x, epsilon, self.norm, (low, high))
            left[loss] = float((self.model.predict(candidate) == labels).double().mean())
        return left


def _batches(
    model: AttackedModel, data: Any, samples: int | None, batch_size: int, normalized: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pixels and labels on the module's device, at most ``batch_size`` at once, ``samples`` in all."""
    left = math.inf if samples is None else samples
    pair = isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)
    for batch in [data] if pair else data:
        if left <= 0:
            return
        try:
            x, labels = batch[0], batch[1]
        except (TypeError, KeyError, IndexError):
            raise TypeError(
                f"`data` must be (images, labels), or batches that start with these, got {type(batch).__name__}."
            ) from None
        if isinstance(x, Tensor) and isinstance(labels, Tensor):
            # Copies: what comes out of a validation in inference mode cannot be differentiated
            x, labels = x.detach().to(model.device).clone(), labels.to(model.device).clone()
            x = model.pixels(x) if normalized and x.is_floating_point() else x
        model.check(x, labels)
        count = int(min(left, len(x)))
        if count:  # of an empty tensor there is one part
            yield from zip(x[:count].split(batch_size), labels[:count].long().split(batch_size), strict=True)
        left -= count
