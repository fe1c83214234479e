"""Small image files and class folders for the tests."""

from __future__ import annotations

import pathlib

import numpy as np
import PIL.Image

COLORS = {"blue": (30, 40, 220), "green": (30, 200, 60), "red": (220, 40, 30)}


def picture(color, seed, size=(40, 30)):
    """Returns an image of one color with a gradient and noise, uint8 ``[H, W, 3]``; ``size`` is (W, H)."""
    rng = np.random.default_rng(seed)
    width, height = size
    ramp = np.linspace(0.6, 1.0, width)[None, :, None]
    noise = rng.normal(0, 12, (height, width, 3))
    return np.clip(np.array(color)[None, None] * ramp + noise, 0, 255).astype(np.uint8)


def write_classes(root: pathlib.Path, counts: dict[str, int], *, suffixes=(".jpg", ".png"), seed=0):
    """Writes ``counts[name]`` images of each color to ``root/name``; returns their paths."""
    paths = []
    for number, (name, count) in enumerate(counts.items()):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            path = folder / f"{name}_{index:03d}{suffixes[index % len(suffixes)]}"
            image = picture(COLORS.get(name, (128, 128, 128)), seed * 10_000 + number * 1000 + index)
            PIL.Image.fromarray(image).save(path)
            paths.append(path)
    return paths
