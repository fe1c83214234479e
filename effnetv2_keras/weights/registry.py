"""Finds published weights by name in the cache folders, and downloads them if necessary. Needs no TensorFlow."""

from __future__ import annotations

import difflib
import os
import pathlib
import re

from absl import logging

from effnetv2_keras.environment import CACHE_VARIABLE, cache_folder
from effnetv2_keras.weights import download, hub
from effnetv2_keras.weights.published import NAMES, PUBLISHED, TIMM, Published
from effnetv2_keras.weights.report import WeightsError

__all__ = ["CACHE_VARIABLE", "NAMES", "PUBLISHED", "Published", "class_count", "fetch", "is_name"]

TIMM_PREFIX, HUB_PREFIX = "timm:", "hf:"
FORMS = f"{', '.join(NAMES)}, {TIMM_PREFIX}NAME and {HUB_PREFIX}OWNER/REPOSITORY[/FILE]"
"""The names, for messages."""

FROM_SCRATCH = "To start from random weights instead, use --hparam_str=train.ft_init_ckpt= (in Python: weights=None)."
"""End of a message about weights that cannot be had."""

_ADVICE = {
    "efficientnet-b3": "All published ones are for 'efficientnet-b3-keras', whose first stage is wider; build that.",
    "efficientnet-b8": "Use timm:tf_efficientnet_b8.ra_in1k. Those trained with AdvProp expect pixels from -1 to 1.",
}
"""Advice for variants without published weights of any name."""

_HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:/(.+))?")


def is_name(weights: str | os.PathLike[str]) -> bool:
    """Returns whether ``weights`` is a name and not a path."""
    return isinstance(weights, str) and (weights in NAMES or weights.startswith((TIMM_PREFIX, HUB_PREFIX)))


def class_count(name: str) -> int | None:
    """Returns the number of classes of the weights with that name; None if the name does not tell."""
    if name.startswith(TIMM_PREFIX):
        return NAMES["imagenet21k" if name.endswith(".in21k") else "imagenet"]
    return NAMES.get(name)


def fetch(name: str, variant: str | None, *, with_top: bool, cache_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """Returns the path of published weights in a cache folder; downloads them if they are in none.

    Args:
        name: a key of ``NAMES``, ``"timm:NAME"`` or ``"hf:OWNER/REPOSITORY[/FILE]"``.
        variant: the model's name in ``variants.MODELS``; None for any other model.
        with_top: whether the classifier is needed.
        cache_dir: the cache folder. None for the environment variable ``EFFNETV2_KERAS_CACHE`` or
            ``~/.cache/effnetv2_keras`` if it is not set; for the hub, its own cache folder.

    Raises:
        WeightsError: if there are no published weights of that name for the variant, or the file is damaged or cannot
            be downloaded.
    """
    folder = pathlib.Path(cache_dir).expanduser() if cache_dir else None
    if name.startswith((TIMM_PREFIX, HUB_PREFIX)):
        return _from_hub(*_hub_file(name, variant), folder)
    if (variant, name) not in PUBLISHED:
        known = [known for of, known in PUBLISHED if of == variant]
        raise WeightsError(
            f"There are no published weights {name!r} for {variant or 'a network that is not a named variant'}. "
            + (f"Use one of {', '.join(known)}." if known else _ADVICE.get(variant or "", "Pass the path of a file."))
        )
    return _from_server(PUBLISHED[variant or "", name][not with_top], folder or cache_folder())


def _from_server(published: Published, folder: pathlib.Path) -> pathlib.Path:
    """Returns the path of a file in our cache folder or in that of Keras."""
    path, keras = folder / published.file_name, keras_folder() / published.file_name
    for place in (path, keras):
        if not place.is_file():
            continue
        found = download.md5_of(place) if published.md5 else None
        if found == published.md5:
            return place
        logging.warning("%s is not used: its MD5 is %s, but should be %s.", place, found, published.md5)
    try:
        download.download(published.url, path, md5=published.md5)
    except download.DownloadError as error:
        raise WeightsError(
            f"{_sentence(error)} {published.file_name} was looked for in {folder} and {keras.parent}. Check the "
            f"connection; or download {published.url} elsewhere and put the file into {folder}. {FROM_SCRATCH}"
        ) from error
    return path


def keras_folder() -> pathlib.Path:
    """Returns the folder where Keras keeps downloaded weights."""
    return pathlib.Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "models"


def _hub_file(name: str, variant: str | None) -> tuple[str, str]:
    """Returns the repository and the file that a name of the hub stands for."""
    prefix, rest = name.split(":", 1)
    if f"{prefix}:" == HUB_PREFIX:
        match = _HUB_NAME.fullmatch(rest)
        if match is None:
            raise WeightsError(
                f"The weights are {name!r}, but must be {HUB_PREFIX}OWNER/REPOSITORY or "
                f"{HUB_PREFIX}OWNER/REPOSITORY/FILE, such as hf:timm/tf_efficientnetv2_b0.in1k."
            )
        return match[1], match[2] or hub.DEFAULT_FILE
    if TIMM.get(rest) == variant is not None:
        return f"timm/{rest}", hub.DEFAULT_FILE
    own = [known for known, of in TIMM.items() if of == variant]
    names = own or difflib.get_close_matches(rest, TIMM, n=3, cutoff=0.0)
    belongs = f"are those of {TIMM[rest]!r}, but the network is" if rest in TIMM else "are not known for"
    raise WeightsError(
        f"The weights {name!r} {belongs} {repr(variant) if variant else 'one without a name'}. "
        + (f"Names for {variant} are " if own else "Names of other networks are, for example, ")
        + ", ".join(TIMM_PREFIX + other for other in names)
        + f". Another repository of the Hugging Face hub is {HUB_PREFIX}OWNER/REPOSITORY."
    )


def _from_hub(repository: str, file: str, folder: pathlib.Path | None) -> pathlib.Path:
    try:
        return hub.fetch(repository, file, folder)
    except download.DownloadError as error:
        raise WeightsError(
            f"{_sentence(error)} {file} of {repository} was looked for in {folder or hub.cache_folder()}. Check the "
            f"name and the connection; or download {hub.address(repository, file)} elsewhere and pass the path of the "
            f"file. {FROM_SCRATCH}"
        ) from error


def _sentence(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."
