"""Fetches published weights by name: from the cache folder, or from the web into it (no TensorFlow)."""

from __future__ import annotations

import os
import pathlib

from effnetv2_keras.weights import download
from effnetv2_keras.weights.published import NAMES, PUBLISHED, Published
from effnetv2_keras.weights.report import WeightsError

__all__ = ["CACHE_VARIABLE", "NAMES", "PUBLISHED", "Published", "fetch"]

CACHE_VARIABLE = "EFFNETV2_KERAS_CACHE"
"""Environment variable that names the folder of downloaded files."""

_ADVICE = {
    "efficientnet-b3": "all published ones are of 'efficientnet-b3-keras', whose first stage is wider; build that.",
    "efficientnet-b8": "download those with AdvProp, which expect pixels of -1 to 1, and pass the path.",
}
"""What to do for variants of which nothing is published under a name."""


def fetch(name: str, variant: str | None, *, with_top: bool, cache_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """Finds published weights in the cache folder, or downloads them there.

    Args:
        name: one of ``NAMES``.
        variant: the model's name in ``variants.MODELS``; None if it is none of them.
        with_top: whether the classifier is wanted.
        cache_dir: the folder; None takes the environment variable ``EFFNETV2_KERAS_CACHE``, or else
            ``~/.cache/effnetv2_keras``.

    Raises:
        WeightsError: if nothing is published under that name for the variant, or the file cannot be had.
    """
    if (variant, name) not in PUBLISHED:
        known = [known for of, known in PUBLISHED if of == variant]
        raise WeightsError(
            f"No weights {name!r} are published for {variant or 'a network that is none of the named variants'}; "
            + (f"there are {', '.join(known)}." if known else _ADVICE.get(variant or "", "pass the path of a file."))
        )
    published = PUBLISHED[variant or "", name][not with_top]
    folder = pathlib.Path(cache_dir or os.environ.get(CACHE_VARIABLE) or "~/.cache/effnetv2_keras").expanduser()
    path = folder / published.file_name
    if not path.exists():
        download.download(published.url, path, md5=published.md5)
    elif published.md5 and download.md5_of(path) != published.md5:
        raise WeightsError(
            f"{path} is damaged: its MD5 is {download.md5_of(path)}, that of {published.url} is {published.md5}. "
            "Delete it and try again."
        )
    return path
