"""Makes the files of features that some scenarios need, once, from images in the layout of the hub."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

HUMAN = ("worse", "random1", "aggregate")


def prepare(data: Path, cache: Path) -> None:
    """Write ``mnist14.npz``, ``cifar16.npz`` and ``cifar_head.npz`` to ``cache``, unless they are there.

    Args:
        data: folder that holds ``mnist``, ``cifar10_subset`` and, for labels given by people, ``cifar10n_subset``.
        cache: where the files go.
    """
    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / "mnist14.npz").exists() and (data / "mnist").is_dir():
        images, labels = _read(data / "mnist", "train", 12_000)
        pooled = images.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(-1, 196) / 255
        np.savez_compressed(cache / "mnist14.npz", x=pooled.astype(np.float16), y=labels)
    wanted = [name for name in ("cifar16", "cifar_head") if not (cache / f"{name}.npz").exists()]
    if not wanted or not (data / "cifar10_subset").is_dir():
        return
    parts = [_read(data / "cifar10_subset", part) for part in ("train", "test")]
    y = np.concatenate([labels for _, labels in parts])
    if "cifar16" in wanted:
        images = np.concatenate([images for images, _ in parts])
        pooled = images.reshape(-1, 16, 2, 16, 2, 3).mean((2, 4)).transpose(0, 3, 1, 2).reshape(-1, 768) / 255
        np.savez_compressed(cache / "cifar16.npz", x=pooled.astype(np.float16), y=y)
    if "cifar_head" in wanted:
        columns = {}
        if (data / "cifar10n_subset").is_dir():
            import pandas

            table = pandas.read_parquet(next((data / "cifar10n_subset").rglob("train*.parquet")))
            if not np.array_equal(table["label"], parts[0][1]):
                raise ValueError(f"{data}/cifar10n_subset and {data}/cifar10_subset hold other images.")
            columns = {name: table[name].to_numpy() for name in HUMAN}
        features = _head(*(images for images, _ in parts)).astype(np.float16)
        np.savez_compressed(cache / "cifar_head.npz", x=features, y=y, **columns)


def _read(folder: Path, part: str, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    import pandas
    from PIL import Image

    table = pandas.read_parquet(next(folder.rglob(f"{part}-*.parquet")))[:most]
    images = table["image" if "image" in table else "img"]
    decoded = np.stack([np.asarray(Image.open(BytesIO(image["bytes"]))) for image in images])
    return decoded.astype(np.float32), table["label"].to_numpy()


def _head(train: np.ndarray, test: np.ndarray, seed: int = 0) -> np.ndarray:
    """Features of images (N, 32, 32, 3), training rows first: patches, k-means, triangle activation, pooling, PCA."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA

    draws = np.random.default_rng(seed)

    def patches(images: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(images, (6, 6), axis=(1, 2))
        rows = windows.reshape(-1, 108)
        return (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 10)

    places = draws.integers(0, 27, (60_000, 2))
    rows = draws.integers(0, len(train), 60_000)
    sample = np.concatenate(
        [patches(train[i : i + 1, a : a + 6, b : b + 6]) for i, (a, b) in zip(rows, places, strict=True)]
    )
    mean = sample.mean(0)
    values, vectors = np.linalg.eigh(np.cov(sample.T))
    whitening = (vectors / np.sqrt(values + 0.1)) @ vectors.T
    centres = MiniBatchKMeans(150, random_state=seed, n_init=1, batch_size=4096).fit((sample - mean) @ whitening)
    c = centres.cluster_centers_.astype(np.float32)

    def pooled(images: np.ndarray) -> np.ndarray:
        x = ((patches(images) - mean) @ whitening).astype(np.float32)
        distance = np.sqrt(np.maximum((x**2).sum(1)[:, None] + (c**2).sum(1) - 2 * x @ c.T, 0))
        active = np.maximum(distance.mean(1, keepdims=True) - distance, 0).reshape(-1, 27, 27, len(c))
        halves = [active[:, a][:, :, b].sum((1, 2)) for a in HALVES for b in HALVES]
        return np.concatenate(halves, axis=1)

    images = np.concatenate([train, test])
    features = np.concatenate([pooled(images[i : i + 200]) for i in range(0, len(images), 200)])
    n = len(train)
    features = (features - features[:n].mean(0)) / (features[:n].std(0) + 1e-6)
    reduced = PCA(128, random_state=seed).fit(features[:n]).transform(features)
    return reduced / reduced[:n].std()


HALVES = (slice(0, 14), slice(14, 27))
