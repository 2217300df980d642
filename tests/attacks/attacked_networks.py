"""Tiny trained networks: four classes of blob images with pixels in [0, 1]."""

import torch
from torch import nn

from tglo_lightning.losses import BrierLoss, TaylorGLOLoss

CLASSES = 4
# A loss that the authors of arXiv 2010.00788 evolved: it pushes away from zero training error
EVOLVED = [0.8439, 1.4872, 1.5742, -1.4446, 2.3616, -0.6632, -2.8569, -1.1313]


def images(count, seed=0):
    """One bright quarter a class, in noise: float (N, 1, 6, 6) in [0, 1], and labels."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % CLASSES
    x = 0.6 * torch.rand(count, 1, 6, 6, generator=generator)
    for i, label in enumerate(y.tolist()):
        row, column = 3 * (label // 2), 3 * (label % 2)
        x[i, :, row : row + 3, column : column + 3] += 0.2
    return x, y


class Net(nn.Module):
    """A network with its loss under `criterion`, as a LightningModule has it."""

    def __init__(self, layers, criterion):
        super().__init__()
        self.layers = layers
        self.criterion = criterion

    def forward(self, x):
        return self.layers(x)


def train(net, steps=150):
    x, y = images(200, seed=1)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        net.criterion(net(x), y).backward()
        optimizer.step()
    net.zero_grad()
    return net.eval()


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, CLASSES))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, CLASSES)
    )


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES))


NETWORKS = {
    "mlp, cross-entropy": (mlp, nn.CrossEntropyLoss),
    "cnn with BatchNorm, squared error": (cnn, BrierLoss),
    "linear, evolved loss": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES)),
        lambda: TaylorGLOLoss(EVOLVED),
    ),
}
