"""Real photographs for the benchmarks: a folder of JPEG files, cropped from the two photographs in scikit-learn."""

from __future__ import annotations

import pathlib

import numpy as np
import PIL.Image
from sklearn.datasets import load_sample_images

import hparams
from effnetv2_keras.config import Config


def write_photos(root: pathlib.Path, *, per_class: int = 100, size: tuple[int, int] = (500, 375)) -> pathlib.Path:
    """Writes photographs as ``root/train/CLASS/*.jpg`` and ``root/val/CLASS/*.jpg``, and returns ``root``.

    Args:
        root: folder for the photographs.
        per_class: training photographs of each of the two classes; there are a tenth as many for validation.
        size: width and height, pixels.
    """
    rng = np.random.default_rng(0)
    width, height = size
    for split, count in (("train", per_class), ("val", max(1, per_class // 10))):
        for name, photo in zip(("china", "flower"), load_sample_images().images):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                top, left = (rng.integers(0, limit) for limit in (photo.shape[0] - height, photo.shape[1] - width))
                window = photo[top : top + height, left : left + width]
                PIL.Image.fromarray(window).save(folder / f"{number:04d}.jpg", quality=92)
    return root


def photo_config(root: pathlib.Path, model_name: str, *, batch: int, stages: int, start: int, end: int) -> Config:
    """Writes photographs to ``root``, and returns a configuration that trains on them.

    Args:
        root: folder for the photographs.
        model_name: network, as for ``--model_name``.
        batch: global batch, images.
        stages: number of stages.
        start: side of the training images in the first stage, pixels.
        end: side of the training images in the last stage, pixels.
    """
    return hparams.load("folder", model_name).override(
        {
            "data.data_dir": str(write_photos(root)),
            "train.batch_size": batch,
            "progressive.stages": stages,
            "progressive.image_size.start": start,
            "progressive.image_size.end": end,
        }
    )
