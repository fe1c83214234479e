"""Downloads every published file of weights, loads it, and compares the network with Keras' one. Needs a network.

A photograph (of Grace Hopper in uniform, which comes with Matplotlib) is the input. Where Keras has the network and the
file, the logits of both must be equal to 0.01 % of the largest, or the features for a file without a classifier. For
the other files with 1000 classes, "military uniform" must be among the five most likely classes. Files are deleted
after their check unless --keep names a folder. Everything together is about 25 GB; --only selects some:

    PYTHONPATH=. python benchmarks/check_published.py --only efficientnetv2-b0

Exit status: 0 if all files that were tried are as published, otherwise 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib.cbook
import numpy as np
import PIL.Image

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow

# isort: split
import tensorflow as tf

from effnetv2_keras import build_model, load_weights
from effnetv2_keras.architecture import variants
from effnetv2_keras.weights import registry
from effnetv2_keras.weights.published import PUBLISHED, TIMM, Published

SIZE = 224
"""Side of the photograph, pixels."""

UNIFORM = 652
"""The class "military uniform" of ImageNet."""

TOLERANCE = 1e-4
"""Largest difference, as a share of the largest logit."""

COLUMNS = "{:<40} {:>7} {:>8} {:>6} {:>10}"


@dataclasses.dataclass(frozen=True)
class File:
    """A published file.

    Attributes:
        variant: name of the network.
        name: name of the weights, as ``load_weights`` takes it.
        top: whether it is read with its classifier.
    """

    variant: str
    name: str
    top: bool = True

    @property
    def title(self) -> str:
        """What ``--only`` is compared with."""
        if self.name in registry.NAMES:
            return f"{self.variant} {self.name}{'' if self.top else ' notop'}"
        return self.name


def published_files() -> Iterator[File]:
    """Yields all files; an archive that serves with and without the classifier is yielded once."""
    for (variant, name), files in PUBLISHED.items():
        for top in (True, False)[: len(set(files))]:
            yield File(variant, name, top)
    for name, variant in TIMM.items():
        yield File(variant, f"{registry.TIMM_PREFIX}{name}")


def photograph() -> tf.Tensor:
    """Returns the photograph, float32 ``[1, SIZE, SIZE, 3]`` with pixels 0..255."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file, PIL.Image.open(file) as image:
        side = min(image.size)
        square = image.convert("RGB").crop((0, 0, side, side)).resize((SIZE, SIZE), PIL.Image.Resampling.BICUBIC)
    return tf.constant(np.asarray(square, np.float32)[None])


def keras_outputs(file: File, path: pathlib.Path, images: tf.Tensor) -> Any:
    """Returns the logits or features of Keras' network of the same name; None if Keras does not have it."""
    title = file.variant.removesuffix("-keras").replace("efficientnet", "EfficientNet").replace("v2-", "V2")
    title = title.replace("-", "").replace("Netb", "NetB").replace("V2b", "V2B")
    title = title[:-1] + title[-1].upper()
    if file.name != "imagenet" or not hasattr(tf.keras.applications, title):
        return None
    settings = {"classifier_activation": None} if file.top else {"include_top": False}
    model = getattr(tf.keras.applications, title)(weights=str(path), input_shape=(SIZE, SIZE, 3), **settings)
    if "V2" not in title:  # Keras divides by the root of the deviation again, only for its own weights by name
        layer = next(layer for layer in model.layers if isinstance(layer, tf.keras.layers.Normalization))
        mean, variance, count = layer.get_weights()
        layer.set_weights([mean, variance * np.array([0.229, 0.224, 0.225]), count])
        layer.finalize_state()
    return model(images).numpy()


def compare(file: File, path: pathlib.Path, images: tf.Tensor) -> str:
    """Loads a file and returns what the table says about the output.

    Raises:
        ValueError: if the file does not fit the network, or the output is not what it should be.
    """
    classes = registry.class_count(file.name) or 1000
    spec = variants.MODELS[file.variant]
    for normalization in dict.fromkeys((spec.normalization, "symmetric")):  # of some of timm's files, -1 to 1
        spec = dataclasses.replace(spec, normalization=normalization)
        model = build_model(spec, num_classes=classes, include_top=file.top)
        report = load_weights(model, path)
        if not report.warnings:
            break
    if report.missing or report.mismatched or report.warnings:
        raise ValueError(report.describe())
    ours, theirs = model(images).numpy(), keras_outputs(file, path, images)
    if theirs is not None:
        difference = float(np.abs(ours - theirs).max())
        if difference > TOLERANCE * np.abs(theirs).max():
            raise ValueError(f"The largest difference from Keras is {difference:.2g} of {np.abs(theirs).max():.2g}.")
        return f"{difference:.1e}"
    top = np.argsort(-ours[0])[:5]
    if not np.isfinite(ours).all() or (classes == 1000 and UNIFORM not in top):
        raise ValueError(f"The most likely classes of the photograph are {top.tolist()}, without {UNIFORM}.")
    return f"top-1 {top[0]}"


def check(file: File, folder: pathlib.Path, images: tf.Tensor) -> bool:
    """Checks a file and prints its row; returns whether it is as published."""
    start, megabytes, seconds, loaded, error = time.perf_counter(), "", "", "no", ""
    try:
        path = registry.fetch(file.name, file.variant, with_top=file.top, cache_dir=folder)
        megabytes, seconds = f"{path.stat().st_size / 1e6:.1f}", f"{time.perf_counter() - start:.1f}"
        output, loaded = compare(file, path, images), "yes"
    except Exception as problem:  # every row says why
        output, error = "failed", str(problem.__cause__ or problem)
    print(COLUMNS.format(file.title, megabytes, seconds, loaded, output), flush=True)
    if error:
        print(textwrap.indent(textwrap.fill(error, 76), "    "), flush=True)
    return not error


def use_server(address: str, *, checksums: bool) -> None:
    """Replaces the servers of all files: a file is asked for as ``ADDRESS/NAME``, one of the hub as there."""
    for key, files in PUBLISHED.items():
        moved = [Published(f"{address}/{file.file_name}", file.md5 if checksums else None) for file in files]
        PUBLISHED[key] = (moved[0], moved[1])
    os.environ["HF_ENDPOINT"] = address


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks the files; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="checks the files whose name contains this")
    parser.add_argument("--base_url", help="address of another server that has files of the same names")
    parser.add_argument("--ignore_checksums", action="store_true", help="with --base_url: accept other weights")
    parser.add_argument("--keep", type=pathlib.Path, help="folder where the files are kept, and not downloaded again")
    options = parser.parse_args(arguments)
    if options.base_url:
        use_server(options.base_url.rstrip("/"), checksums=not options.ignore_checksums)
    chosen = [file for file in published_files() if options.only in file.title]
    if not chosen:
        parser.error(
            f"no published file has {options.only!r} in its name; some are efficientnetv2-b0, imagenet21k, timm:"
        )
    print(COLUMNS.format("name", "MB", "seconds", "loaded", "difference"))
    images, failed = photograph(), 0
    for file in chosen:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["KERAS_HOME"] = folder  # so that no file of an earlier download is taken
            failed += not check(file, options.keep or pathlib.Path(folder), images)
        tf.keras.backend.clear_session()
    print(f"{len(chosen) - failed} of {len(chosen)} files are as published.")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
