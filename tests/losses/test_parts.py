"""Losses of many logits, computed some samples at a time."""

import pytest
import torch

from tglo_lightning.losses import FocalLoss, TaylorGLOLoss, classification, published_theta

N, CLASSES = 24, 7


def gradients(loss, logits, target):
    z = logits.clone().requires_grad_()
    value = loss(z, target)
    (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(N, CLASSES), (2, CLASSES, N), (2, CLASSES, 3, N)])
@pytest.mark.parametrize("target", ["indices", "ignored", "probabilities"])
@pytest.mark.parametrize(
    "kind", [FocalLoss, lambda **options: TaylorGLOLoss(published_theta("mnist_published"), **options)]
)
def test_parts_make_the_whole(monkeypatch, shape, target, reduction, kind):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, dtype=torch.float64, generator=generator)
    labels = torch.randn(shape, dtype=torch.float64, generator=generator).softmax(1)
    if target != "probabilities":
        labels = labels.argmax(1)
        labels[..., :5] = -1 if target == "ignored" else labels[..., :5]
    weight = torch.rand(CLASSES, dtype=torch.float64, generator=generator)
    loss = kind(weight=weight, label_smoothing=0.1, ignore_index=-1, reduction=reduction)
    whole = gradients(loss, logits, labels)
    monkeypatch.setattr(classification, "LARGE", 10)
    monkeypatch.setattr(classification, "PART", 5 * CLASSES)
    torch.testing.assert_close(gradients(loss, logits, labels), whole)


def test_little_is_kept_for_the_backward_pass(monkeypatch):
    def kept():
        sizes = []
        logits, target = torch.randn(400, 50, requires_grad=True), torch.arange(400) % 50
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            TaylorGLOLoss(published_theta("cross_entropy_3"), weight=torch.ones(50), label_smoothing=0.1)(
                logits, target
            )
        return sum(sizes) / logits.numel()

    before = kept()
    monkeypatch.setattr(classification, "LARGE", 10)
    monkeypatch.setattr(classification, "PART", 50 * 50)
    assert kept() < 1.5 < before
