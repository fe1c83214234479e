"""The tables of the named networks, EfficientNetV2 and V1 (the baseline), and their lookup by name (no TensorFlow).

The block table of V2-S is Table 4 of the paper (arXiv 2104.00298). Those of all variants that the paper does not print
are from the reference code (google/automl, ``efficientnetv2/effnetv2_configs.py``).
"""

from __future__ import annotations

import difflib
import pathlib
import re
from collections.abc import Sequence

from effnetv2_keras.architecture.specs import AnySpec, BlockKind, BlockSpec, KerasSpec, ModelSpec
from effnetv2_keras.basics.text_files import read_text
from effnetv2_keras.errors import UsageError


def _stages(rows: Sequence[tuple[BlockKind, int, int, int, int, int, int, float]]) -> tuple[BlockSpec, ...]:
    """Builds stages from rows with the columns kind, repeats, kernel, stride, expand, in, out, se."""
    return tuple(BlockSpec(*row) for row in rows)


_V2_BASE = _stages([
    ("fused_mbconv", 1, 3, 1, 1, 32, 16, 0.0),
    ("fused_mbconv", 2, 3, 2, 4, 16, 32, 0.0),
    ("fused_mbconv", 2, 3, 2, 4, 32, 48, 0.0),
    ("mbconv", 3, 3, 2, 4, 48, 96, 0.25),
    ("mbconv", 5, 3, 1, 6, 96, 112, 0.25),
    ("mbconv", 8, 3, 2, 6, 112, 192, 0.25),
])  # fmt: skip

_V2_S = _stages([  # Table 4 of the last version of the paper (256 channels in stage 6, 1280 in the head)
    ("fused_mbconv", 2, 3, 1, 1, 24, 24, 0.0),
    ("fused_mbconv", 4, 3, 2, 4, 24, 48, 0.0),
    ("fused_mbconv", 4, 3, 2, 4, 48, 64, 0.0),
    ("mbconv", 6, 3, 2, 4, 64, 128, 0.25),
    ("mbconv", 9, 3, 1, 6, 128, 160, 0.25),
    ("mbconv", 15, 3, 2, 6, 160, 256, 0.25),
])  # fmt: skip

_V2_M = _stages([
    ("fused_mbconv", 3, 3, 1, 1, 24, 24, 0.0),
    ("fused_mbconv", 5, 3, 2, 4, 24, 48, 0.0),
    ("fused_mbconv", 5, 3, 2, 4, 48, 80, 0.0),
    ("mbconv", 7, 3, 2, 4, 80, 160, 0.25),
    ("mbconv", 14, 3, 1, 6, 160, 176, 0.25),
    ("mbconv", 18, 3, 2, 6, 176, 304, 0.25),
    ("mbconv", 5, 3, 1, 6, 304, 512, 0.25),
])  # fmt: skip

_V2_L = _stages([
    ("fused_mbconv", 4, 3, 1, 1, 32, 32, 0.0),
    ("fused_mbconv", 7, 3, 2, 4, 32, 64, 0.0),
    ("fused_mbconv", 7, 3, 2, 4, 64, 96, 0.0),
    ("mbconv", 10, 3, 2, 4, 96, 192, 0.25),
    ("mbconv", 19, 3, 1, 6, 192, 224, 0.25),
    ("mbconv", 25, 3, 2, 6, 224, 384, 0.25),
    ("mbconv", 7, 3, 1, 6, 384, 640, 0.25),
])  # fmt: skip

_V2_XL = _stages([
    ("fused_mbconv", 4, 3, 1, 1, 32, 32, 0.0),
    ("fused_mbconv", 8, 3, 2, 4, 32, 64, 0.0),
    ("fused_mbconv", 8, 3, 2, 4, 64, 96, 0.0),
    ("mbconv", 16, 3, 2, 4, 96, 192, 0.25),
    ("mbconv", 24, 3, 1, 6, 192, 256, 0.25),
    ("mbconv", 32, 3, 2, 6, 256, 512, 0.25),
    ("mbconv", 8, 3, 1, 6, 512, 640, 0.25),
])  # fmt: skip


_V1_BASE = _stages([
    ("mbconv", 1, 3, 1, 1, 32, 16, 0.25),
    ("mbconv", 2, 3, 2, 6, 16, 24, 0.25),
    ("mbconv", 2, 5, 2, 6, 24, 40, 0.25),
    ("mbconv", 3, 3, 2, 6, 40, 80, 0.25),
    ("mbconv", 3, 5, 1, 6, 80, 112, 0.25),
    ("mbconv", 4, 5, 2, 6, 112, 192, 0.25),
    ("mbconv", 1, 3, 1, 6, 192, 320, 0.25),
])  # fmt: skip


def _table(*specs: ModelSpec) -> dict[str, ModelSpec]:
    return {spec.name: spec for spec in specs}


# Columns: name, blocks, width, depth, head, train size, eval size, dropout, normalization (reference code).
MODELS: dict[str, ModelSpec] = _table(
    # Of this package: B0 with half and three quarters of its width and depth, for small sets of images and for CPUs.
    ModelSpec("efficientnetv2-nano", _V2_BASE, 0.5, 0.5, 1280, 96, 96, 0.2, "imagenet"),
    ModelSpec("efficientnetv2-micro", _V2_BASE, 0.75, 0.75, 1280, 128, 128, 0.2, "imagenet"),
    ModelSpec("efficientnetv2-b0", _V2_BASE, 1.0, 1.0, 1280, 192, 224, 0.2, "imagenet"),
    ModelSpec("efficientnetv2-b1", _V2_BASE, 1.0, 1.1, 1280, 192, 240, 0.2, "imagenet"),
    ModelSpec("efficientnetv2-b2", _V2_BASE, 1.1, 1.2, 1280, 208, 260, 0.3, "imagenet"),
    ModelSpec("efficientnetv2-b3", _V2_BASE, 1.2, 1.4, 1280, 240, 300, 0.3, "imagenet"),
    ModelSpec("efficientnetv2-s", _V2_S, 1.0, 1.0, 1280, 300, 384, 0.2),
    ModelSpec("efficientnetv2-m", _V2_M, 1.0, 1.0, 1280, 384, 480, 0.3),
    ModelSpec("efficientnetv2-l", _V2_L, 1.0, 1.0, 1280, 384, 480, 0.4),
    ModelSpec("efficientnetv2-xl", _V2_XL, 1.0, 1.0, 1280, 384, 512, 0.4),
    # EfficientNet V1 (arXiv 1905.11946), the baseline. The reference code trains it at 0.8 of the evaluation size,
    # rounded to a multiple of 16. Keras, timm and all published weights round widths differently. This only changes
    # the first stage of B3, which has 24 channels there and 16 in the reference code.
    ModelSpec("efficientnet-b0", _V1_BASE, 1.0, 1.0, 1280, 176, 224, 0.2, "imagenet"),
    ModelSpec("efficientnet-b1", _V1_BASE, 1.0, 1.1, 1280, 192, 240, 0.2, "imagenet"),
    ModelSpec("efficientnet-b2", _V1_BASE, 1.1, 1.2, 1280, 208, 260, 0.3, "imagenet"),
    ModelSpec("efficientnet-b3", _V1_BASE, 1.2, 1.4, 1280, 240, 300, 0.3, "imagenet"),
    ModelSpec("efficientnet-b3-keras", _V1_BASE, 1.2, 1.4, 1280, 240, 300, 0.3, "imagenet", least_width=0.9),
    ModelSpec("efficientnet-b4", _V1_BASE, 1.4, 1.8, 1280, 304, 380, 0.4, "imagenet"),
    ModelSpec("efficientnet-b5", _V1_BASE, 1.6, 2.2, 1280, 352, 456, 0.4, "imagenet"),
    ModelSpec("efficientnet-b6", _V1_BASE, 1.8, 2.6, 1280, 416, 528, 0.5, "imagenet"),
    ModelSpec("efficientnet-b7", _V1_BASE, 2.0, 3.1, 1280, 480, 600, 0.5, "imagenet"),
    ModelSpec("efficientnet-b8", _V1_BASE, 2.2, 3.6, 1280, 528, 672, 0.5, "imagenet"),
    ModelSpec("efficientnet-l2", _V1_BASE, 4.3, 5.3, 1280, 640, 800, 0.5, "imagenet"),
)
"""Every named variant."""


DEFAULT_MODEL = "efficientnetv2-b0"
"""The network that is meant where none is named."""


def get_spec(name: str) -> ModelSpec:
    """Returns the network with a name, or reads one from a file.

    Args:
        name: a key of ``MODELS``, or the path of a ``.json`` file that ``ModelSpec.to_json`` wrote.

    Raises:
        UsageError: if the name is unknown (the message suggests the nearest one), or the file cannot be read or is not
            the JSON of a ``ModelSpec``.
    """
    if name.endswith(".json"):
        return _read(pathlib.Path(name).expanduser())
    if name not in MODELS:
        near = difflib.get_close_matches(name.lower(), MODELS, n=1, cutoff=0.0)[0]
        raise UsageError(
            f"Unknown model {name!r}; did you mean {near!r}? Known models: {', '.join(MODELS)}, or the path of a "
            ".json file. --model_name also accepts keras:NAME for any model of Keras."
        )
    return MODELS[name]


KERAS = "keras:"
"""Prefix of the names of networks that Keras or your own function builds."""


def any_spec(name: str) -> AnySpec:
    """Returns the network with a name, including networks built by Keras or by your own function.

    Args:
        name: a name or path as for ``get_spec``; ``keras:NAME``, where NAME is in ``tf.keras.applications``; or
            ``keras:package.module:function``. Only building the network checks that NAME or the function exists.
            EfficientNets of Keras get the image sizes and the dropout rate of the variant of the same name here.

    Raises:
        UsageError: as ``get_spec``, or if a name with the prefix ``keras:`` has another form.
    """
    if not name.startswith(KERAS):
        return get_spec(name)
    if not re.fullmatch(r"\w+|\w+(\.\w+)*:\w+", name[len(KERAS) :]):
        raise UsageError(
            f"The model name {name!r} is malformed; write keras:NAME, where NAME is in tf.keras.applications, such as "
            "keras:ResNet50, or keras:package.module:function."
        )
    twin = MODELS.get(re.sub(r"keras:EfficientNet(V2)?(B\d|[SML])", r"EfficientNet\1-\2", name).lower())
    return KerasSpec(name, twin.train_size, twin.eval_size, twin.dropout_rate) if twin else KerasSpec(name)


def _read(path: pathlib.Path) -> ModelSpec:
    try:
        text = read_text(path)
    except OSError as error:
        raise UsageError(f"The network {path} cannot be read: {error.strerror}. Give the path of its .json.") from error
    try:
        return ModelSpec.from_json(text)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
