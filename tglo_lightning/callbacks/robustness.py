"""The callback that attacks the network while it is validated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tglo_lightning.arguments import choice, entries, integer, number, optional
from tglo_lightning.attacks import FGSM, PGD, Attack, evaluate_robustness
from tglo_lightning.attacks.base import NORMS
from tglo_lightning.attacks.gradient import GradientAttack
from tglo_lightning.attacks.model import LOSSES, check_bounds
from tglo_lightning.module.bases import Callback
from tglo_lightning.module.slot import LossSlot

NAMED: dict[str, type[Attack]] = {"fgsm": FGSM, "pgd": PGD}


class RobustnessMonitor(Callback):
    """Logs accuracy under attack on the validation data, for the user to see and for searches to optimise.

    Every image of a validation batch is attacked once along the gradient of each of ``losses``, with the network as
    validation finds it. Logged for the whole validation, each as a share of its images:

    - ``val/robust_acc``: images that are classified rightly as they are and under each of the attacks;
    - ``val/robust_acc_own``, ``val/robust_acc_cross_entropy``, ...: the same for one loss alone;
    - ``val/weighted_acc``: ``weight * val/robust_acc + (1 - weight) * accuracy without attack``.

    Training goes on as without it: weights, gradients, buffers and random generators come back as they were. Its
    accuracy is meant for choosing, not for reporting: attack the chosen network with
    :func:`~tglo_lightning.attacks.evaluate_robustness`, by other attacks than this one, on test data.

    For a search: ``TaylorGLO(monitor="val/robust_acc", budget=Budget(10, callbacks=[RobustnessMonitor("fgsm")]))``.

    Args:
        attack: ``"fgsm"``, ``"pgd"``, or an attack of :mod:`tglo_lightning.attacks`. A gradient attack is run once for
            each of ``losses``, whatever loss it has itself; any other is run as it is.
        every_n_epochs: epochs of a fit between measurements, at least 1. ``Trainer.validate`` always measures.
        epsilon: radius of the ball around an image, in units of pixels, at least 0.
        norm: ``"linf"`` or ``"l2"``.
        losses: some of ``"own"``, ``"cross_entropy"`` and ``"margin"``. ``("own",)`` is the protocol of arXiv
            2010.00788, which a loss can satisfy by hiding its gradient.
        weight: share of the robust accuracy in ``val/weighted_acc``, in [0, 1].
        samples: images to attack in each validation (on each device), from the first on; all by default.
        bounds: least and greatest value of a pixel.
        normalize: ``(mean, std)`` that the network expects to be applied to pixels; ``None`` if it takes pixels.
        normalized_data: the data come normalised already, as torchvision's ``Normalize`` leaves them.
        loss: path of the module's attribute that holds its own loss.
        seed: of the attacks' random starts.

    Raises:
        TypeError, ValueError: an argument of a wrong kind or out of range; in validation, batches that do not start
            with images ``(N, C, H, W)`` within the bounds and class indices, or a ``forward`` without logits.
        ImportError: in validation, the attack's library is not installed.
    """

    def __init__(
        self,
        attack: str | Attack = "fgsm",
        every_n_epochs: int = 1,
        *,
        epsilon: float = 8 / 255,
        norm: str = "linf",
        losses: Sequence[str] = ("own", "cross_entropy"),
        weight: float = 0.5,
        samples: int | None = None,
        bounds: tuple[float, float] = (0.0, 1.0),
        normalize: tuple[Any, Any] | None = None,
        normalized_data: bool = False,
        loss: str = "criterion",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if isinstance(attack, str):
            attack = NAMED[choice("attack", attack, list(NAMED), " or an attack")]()
        if not isinstance(attack, Attack):
            raise TypeError(f"`attack` must be a name or an attack of tglo_lightning.attacks, got {attack!r}.")
        self.epsilon = number("epsilon", epsilon, least=0)
        choice("norm", norm, NORMS)
        for name in entries("losses", losses, f"some of {LOSSES}", str, least=1):
            choice("losses", name, LOSSES)
        self.attacks: dict[str, Attack] = {"": attack}
        if isinstance(attack, GradientAttack):
            self.attacks = {f"_{name}": replace(attack, loss=name) for name in losses}
        self.every_n_epochs = integer("every_n_epochs", every_n_epochs, 1)
        self.weight = number("weight", weight, least=0, most=1)
        self.samples = optional(integer, "samples", samples, 1)
        self.slot = LossSlot(loss)
        self._options: dict[str, Any] = {
            "norm": norm,
            "bounds": check_bounds(bounds),
            "normalize": normalize,
            "normalized_data": normalized_data,
            "loss": loss,
            "seed": seed,
            "checks": False,
        }
        self._attacked = 0

    @property
    def state_key(self) -> str:
        """One state for each loss, radius and norm."""
        return self._generate_state_key(loss=self.slot.path, epsilon=self.epsilon, norm=self._options["norm"])

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse a module without the loss that is to be followed."""
        if "_own" in self.attacks:
            self.slot.get(pl_module)

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Count the images anew."""
        self._attacked = 0

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Attack a batch, if it is time, and log what is left of the accuracy."""
        due = trainer.state.fn != "fit" or (trainer.current_epoch + 1) % self.every_n_epochs == 0
        left = None if self.samples is None else self.samples - self._attacked
        if dataloader_idx > 0 or trainer.sanity_checking or not due or (left is not None and left <= 0):
            return
        if not isinstance(batch, list | tuple) or len(batch) < 2:
            raise TypeError(
                f"RobustnessMonitor needs validation batches (images, labels), got {type(batch).__name__}. Return a "
                "tuple from your data set."
            )
        with trainer.precision_plugin.forward_context():
            report = evaluate_robustness(
                pl_module,
                [tuple(batch[:2])],
                list(self.attacks.values()),
                self.epsilon,
                samples=left,
                batch_size=max(1, len(batch[0])),
                **self._options,
            )
        self._attacked += report.samples
        robust = report.worst(self.epsilon)
        weighted = self.weight * robust + (1 - self.weight) * report.clean_accuracy
        metrics = {"val/robust_acc": robust, "val/weighted_acc": weighted}
        for suffix, attack in self.attacks.items():
            metrics[f"val/robust_acc{suffix}"] = report.accuracy(attack.name, self.epsilon)
        pl_module.log_dict(
            metrics,
            on_step=False,
            on_epoch=True,
            batch_size=report.samples,
            sync_dist=trainer.world_size > 1,
            add_dataloader_idx=False,
        )
