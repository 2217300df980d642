"""What attacks have done to a network: kept image by image, saved, read again."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tglo_lightning.untrusted import NUMBER, load_json, write_whole

# Of what is read from a file; a key that is missing is told apart from these
SHAPE = {
    "norm": str,
    "epsilons": [NUMBER],
    "bounds": [NUMBER],
    "num_classes": int,
    "clean": str,
    "attacks": [{"name": str, "iterated": bool, "robust": [str], "zero_gradients": (*NUMBER, None)}],
    "findings": [{"kind": str, "message": str}],
}


@dataclass(frozen=True)
class Finding:
    """A reason not to trust the figures of a report.

    Attributes:
        kind: ``"own_loss_weaker"``, ``"cross_entropy_weaker"``, ``"gradient_free_stronger"``, ``"huge_epsilon"``,
            ``"zero_gradients"``, ``"rises_with_epsilon"``, ``"training_mode"`` or ``"random_forward"``.
        message: what was seen, and what it means.
    """

    kind: str
    message: str


@dataclass
class AttackResult:
    """What one attack did.

    Attributes:
        knowledge: ``"gradient"``, ``"scores"``, ``"decisions"`` or ``"ensemble"``.
        iterated: whether it takes many steps.
        robust: bool of shape ``(E, N)``: images that are classified rightly before and after the attack.
        forward, backward: images that went forward, and whose gradient was computed, over all epsilons.
        zero_gradients: share of these gradients that are exactly zero (or not finite) in all pixels; ``None`` without.
        seconds: time it took.
    """

    name: str
    knowledge: str
    iterated: bool
    settings: dict[str, Any]
    robust: Tensor
    forward: int
    backward: int
    zero_gradients: float | None
    seconds: float

    @property
    def accuracy(self) -> list[float]:
        """Robust accuracy at each epsilon."""
        return _shares(self.robust)


@dataclass
class RobustnessReport:
    """Clean and robust accuracy of a network.

    An image counts as robust at an epsilon if it is classified rightly as it is (the image itself lies in the ball) and
    under the attack. So accuracy at epsilon 0 is the clean accuracy.

    Attributes:
        norm: ``"linf"`` or ``"l2"``.
        epsilons: radii in units of pixels, ascending.
        bounds: least and greatest value of a pixel.
        own_loss: name of the network's own loss, ``None`` if no attack used it.
        clean: bool of shape ``(N,)``: images classified rightly as they are.
        huge_epsilon: what plain PGD leaves of the accuracy when it may make any image of any image; per loss.
        forward, backward: images that went forward, and whose gradient was computed, checks included.
        findings: reasons not to trust the figures.
    """

    norm: str
    epsilons: list[float]
    bounds: tuple[float, float]
    seed: int
    num_classes: int
    own_loss: str | None
    clean: Tensor
    attacks: list[AttackResult]
    huge_epsilon: dict[str, float] = field(default_factory=dict)
    forward: int = 0
    backward: int = 0
    findings: list[Finding] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Number of images."""
        return len(self.clean)

    @property
    def clean_accuracy(self) -> float:
        """Accuracy on the images as they are."""
        return _shares(self.clean[None])[0]

    @property
    def warnings(self) -> list[str]:
        """The findings in words."""
        return [finding.message for finding in self.findings]

    def __getitem__(self, name: str) -> AttackResult:
        """The result of the attack called ``name``."""
        found = {attack.name: attack for attack in self.attacks}
        if name not in found:
            raise KeyError(f"No attack {name!r} in this report; there are: {', '.join(found)}.")
        return found[name]

    def accuracy(self, name: str, epsilon: float) -> float:
        """Robust accuracy under one attack at one epsilon."""
        return self[name].accuracy[self._index(epsilon)]

    def robust(self, names: Sequence[str] | None = None) -> Tensor:
        """Images that withstand every attack, or every one of ``names``: bool of shape ``(E, N)``."""
        chosen = self.attacks if names is None else [self[name] for name in names]
        return torch.stack([self.clean.expand(len(self.epsilons), -1), *(a.robust for a in chosen)]).all(0)

    @property
    def worst_case(self) -> list[float]:
        """Accuracy at each epsilon if each image meets the attack that is worst for it."""
        return _shares(self.robust())

    def worst(self, epsilon: float) -> float:
        """:attr:`worst_case` at one epsilon."""
        return self.worst_case[self._index(epsilon)]

    def _index(self, epsilon: float) -> int:
        found = [i for i, known in enumerate(self.epsilons) if math.isclose(known, epsilon, abs_tol=1e-9)]
        if not found:
            raise KeyError(f"No epsilon {epsilon!r} in this report; there are: {self.epsilons}.")
        return found[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON. Images are written as ``"1"`` (right) and ``"0"``, in one text an epsilon."""
        derived = {"samples": self.samples, "clean_accuracy": self.clean_accuracy, "worst_case": self.worst_case}
        attacks = [
            {**vars(attack), "accuracy": attack.accuracy, "robust": [_bits(row) for row in attack.robust]}
            for attack in self.attacks
        ]
        findings = [asdict(finding) for finding in self.findings]
        return vars(self) | derived | {"findings": findings, "attacks": attacks, "clean": _bits(self.clean)}

    def save(self, path: str | Path) -> Path:
        """Write the report as JSON; the folder is made if need be."""
        return write_whole(Path(path), json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> RobustnessReport:
        """Read a file that :meth:`save` wrote.

        Raises:
            ValueError: the file holds something else.
        """
        try:
            data = load_json(path, SHAPE)
            own = {item.name: data[item.name] for item in fields(cls)}
            of_attack = [item.name for item in fields(AttackResult)]
            own["attacks"] = [
                AttackResult(**{name: attack[name] for name in of_attack} | {"robust": _flags(attack["robust"])})
                for attack in data["attacks"]
            ]
            own["findings"] = [Finding(**finding) for finding in data["findings"]]
            report = cls(**own | {"bounds": tuple(data["bounds"]), "clean": _flags([data["clean"]])[0]})
            report.robust()
            if not report.samples or not report.epsilons:
                raise ValueError("it has no images, or no epsilons")
            return report
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path} is no robustness report: {error}.") from None


def _shares(flags: Tensor) -> list[float]:
    counts: list[int] = flags.sum(1).tolist()
    return [count / flags.shape[1] for count in counts]


def _bits(flags: Tensor) -> str:
    return "".join("1" if flag else "0" for flag in flags.tolist())


def _flags(rows: Sequence[str]) -> Tensor:
    return torch.tensor([[bit == "1" for bit in row] for row in rows], dtype=torch.bool)
