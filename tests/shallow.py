"""B0 of either version with the first block of each of its stages alone, for what is not about all blocks."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from unittest import mock

import tensorflow as tf

from effnetv2_keras.architecture import variants


@contextlib.contextmanager
def one_block_a_stage() -> Iterator[None]:
    """Makes both B0, ours and those of Keras, such networks: a third of the blocks, and all scales."""
    names = "efficientnetv2-b0", "efficientnet-b0"
    ours = {
        name: dataclasses.replace(
            variants.MODELS[name],
            blocks=tuple(dataclasses.replace(block, repeats=1) for block in variants.MODELS[name].blocks),
        )
        for name in names
    }
    v2, v1 = (
        sys.modules[getattr(tf.keras.applications, name).__module__] for name in ("EfficientNetV2B0", "EfficientNetB0")
    )
    of_v2 = {names[0]: [{**block, "num_repeat": 1} for block in v2.DEFAULT_BLOCKS_ARGS[names[0]]]}
    of_v1 = [{**block, "repeats": 1} for block in v1.DEFAULT_BLOCKS_ARGS]
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(variants.MODELS, ours))
        stack.enter_context(mock.patch.dict(v2.DEFAULT_BLOCKS_ARGS, of_v2))
        stack.enter_context(mock.patch.object(v1, "DEFAULT_BLOCKS_ARGS", of_v1))
        yield
