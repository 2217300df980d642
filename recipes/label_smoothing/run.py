"""TaylorGLO losses contain label smoothing: a changed `theta` against smoothed labels.

    python recipes/label_smoothing/run.py [--output result.json]

Compares the losses and their gradients for random `theta`, then trainings from the same seeds.
"""

import argparse
import json
import logging
import statistics
import time
import warnings
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn

from tglo_lightning.data import DigitsDataModule
from tglo_lightning.losses import TaylorGLOLoss, published_theta
from tglo_lightning.losses.functional import num_parameters
from tglo_lightning.models import MLP, Classifier
from tglo_lightning.theory import label_smoothed

CLASSES, ALPHA, SEEDS = 10, 0.1, range(3)
TRAINED = ("early_published", "cross_entropy_3")


class SmoothedLabels(nn.Module):
    """A loss on labels that are smoothed beforehand, as probabilities, by the definition of label smoothing."""

    def __init__(self, loss: nn.Module, alpha: float) -> None:
        super().__init__()
        self.loss, self.alpha = loss, alpha

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of logits (N, n) and class indices (N,)."""
        y = torch.nn.functional.one_hot(target, logits.shape[1]).to(logits.dtype)
        return self.loss(logits, (1 - self.alpha) * y + self.alpha / logits.shape[1])


def losses_apart(dtype: torch.dtype) -> dict[str, float]:
    """Greatest difference of losses and of gradients over 200 random `theta` of orders 2 to 4, and their size."""
    generator = torch.Generator().manual_seed(0)
    loss_gap = gradient_gap = loss_size = gradient_size = 0.0
    for index in range(200):
        order = 2 + index % 3
        theta = 1.2 * torch.randn(num_parameters(order), generator=generator, dtype=torch.float64)
        alpha = 0.5 * float(torch.rand((), generator=generator))
        logits = 3 * torch.randn(64, CLASSES, generator=generator, dtype=dtype)
        target = torch.randint(CLASSES, (64,), generator=generator)
        results = []
        for loss in (
            SmoothedLabels(TaylorGLOLoss(theta, order=order), alpha),
            TaylorGLOLoss(label_smoothed(theta, alpha, CLASSES), order=order),
        ):
            z = logits.clone().requires_grad_()
            value = loss(z, target)
            value.backward()
            results.append((value.detach(), z.grad))
        (explicit, explicit_gradient), (closed, closed_gradient) = results
        loss_gap = max(loss_gap, float((explicit - closed).abs()))
        gradient_gap = max(gradient_gap, float((explicit_gradient - closed_gradient).abs().max()))
        loss_size = max(loss_size, float(explicit.abs()))
        gradient_size = max(gradient_size, float(explicit_gradient.abs().max()))
    return {
        "greatest_loss": loss_size,
        "greatest_difference_of_losses": loss_gap,
        "greatest_gradient": gradient_size,
        "greatest_difference_of_gradients": gradient_gap,
    }


def train(loss: nn.Module, seed: int, precision: str) -> tuple[torch.Tensor, float]:
    """Weights and test accuracy after 20 epochs on the digits."""
    pl.seed_everything(seed, verbose=False)
    data = DigitsDataModule(label_noise=0.2)
    net = MLP(input_shape=data.input_shape, num_classes=CLASSES)
    module = Classifier(net, loss, CLASSES, partial(torch.optim.SGD, lr=0.05, momentum=0.9))
    trainer = pl.Trainer(
        max_epochs=20,
        precision=precision,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    [tested] = trainer.test(module, datamodule=data, verbose=False)
    return torch.cat([p.detach().flatten() for p in net.parameters()]), float(tested["test/acc"])


def trainings_apart(name: str, precision: str) -> dict[str, object]:
    """The same trainings with smoothed labels, with the changed `theta`, and without smoothing."""
    theta = published_theta(name)
    variants = {
        "smoothed_labels": lambda: SmoothedLabels(TaylorGLOLoss(theta), ALPHA),
        "changed_theta": lambda: TaylorGLOLoss(label_smoothed(theta, ALPHA, CLASSES)),
        "no_smoothing": lambda: TaylorGLOLoss(theta),
    }
    ends = {key: [train(build(), seed, precision) for seed in SEEDS] for key, build in variants.items()}

    def gap(key: str) -> float:
        pairs = zip(ends["smoothed_labels"], ends[key], strict=True)
        return max(float((a - b).abs().max()) for (a, _), (b, _) in pairs)

    return {
        "loss": name,
        "precision": precision,
        "test_accuracy": {key: [accuracy for _, accuracy in each] for key, each in ends.items()},
        "greatest_weight": max(float(w.abs().max()) for w, _ in ends["smoothed_labels"]),
        "greatest_difference_of_weights": {key: gap(key) for key in ("changed_theta", "no_smoothing")},
    }


def main() -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("result.json"))
    output = parser.parse_args().output
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    start = time.monotonic()
    result: dict[str, object] = {
        "losses": {str(dtype).removeprefix("torch."): losses_apart(dtype) for dtype in (torch.float64, torch.float32)}
    }
    trainings = [trainings_apart(name, precision) for name in TRAINED for precision in ("64-true", "32-true")]
    result["trainings"] = trainings
    result["seconds"] = round(time.monotonic() - start, 1)
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["losses"], indent=1))
    for entry in trainings:
        means = {key: round(statistics.fmean(each), 4) for key, each in entry["test_accuracy"].items()}  # type: ignore[attr-defined]
        print(entry["loss"], entry["precision"], means, entry["greatest_difference_of_weights"])
    print(output)


if __name__ == "__main__":
    main()
