"""Finds published weights by name in the cache folder, and downloads them if necessary. Needs no TensorFlow."""

from __future__ import annotations

import os
import pathlib

from effnetv2_keras.environment import CACHE_VARIABLE, cache_folder
from effnetv2_keras.weights import download
from effnetv2_keras.weights.published import NAMES, PUBLISHED, Published
from effnetv2_keras.weights.report import WeightsError

__all__ = ["CACHE_VARIABLE", "NAMES", "PUBLISHED", "Published", "fetch"]

_ADVICE = {
    "efficientnet-b3": "All published ones are for 'efficientnet-b3-keras', whose first stage is wider; build that.",
    "efficientnet-b8": "Download those with AdvProp, which expect pixels from -1 to 1, and pass the path.",
}
"""Advice for variants without published weights of any name."""


def fetch(name: str, variant: str | None, *, with_top: bool, cache_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """Returns the path of published weights in the cache folder; downloads them if they are not there.

    Args:
        name: a key of ``NAMES``.
        variant: the model's name in ``variants.MODELS``; None for any other model.
        with_top: whether the classifier is needed.
        cache_dir: the cache folder; None for the environment variable ``EFFNETV2_KERAS_CACHE``, or
            ``~/.cache/effnetv2_keras`` if it is not set.

    Raises:
        WeightsError: if there are no published weights of that name for the variant, or the file is damaged or cannot
            be downloaded.
    """
    if (variant, name) not in PUBLISHED:
        known = [known for of, known in PUBLISHED if of == variant]
        raise WeightsError(
            f"There are no published weights {name!r} for {variant or 'a network that is not a named variant'}. "
            + (f"Use one of {', '.join(known)}." if known else _ADVICE.get(variant or "", "Pass the path of a file."))
        )
    published = PUBLISHED[variant or "", name][not with_top]
    folder = pathlib.Path(cache_dir).expanduser() if cache_dir else cache_folder()
    path = folder / published.file_name
    if not path.exists():
        download.download(published.url, path, md5=published.md5)
    elif published.md5 and download.md5_of(path) != published.md5:
        raise WeightsError(
            f"{path} is damaged: its MD5 is {download.md5_of(path)}, but that of {published.url} is {published.md5}. "
            "Delete the file and try again."
        )
    return path
