"""Networks with the first block of each of their stages alone, for what is not about all blocks."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from unittest import mock

import tensorflow as tf

from effnetv2_keras.architecture import variants
from effnetv2_keras.weights import layout


@contextlib.contextmanager
def one_block_a_stage() -> Iterator[None]:
    """Makes B0 of V2 and all of V1, ours and Keras', such networks: a B0 has a third of its blocks, at all scales.

    Keras has one table for all of V1, whose larger networks have more than one block a stage then, too.
    """
    v2_b0 = "efficientnetv2-b0"
    ours = {
        name: dataclasses.replace(spec, blocks=tuple(dataclasses.replace(block, repeats=1) for block in spec.blocks))
        for name, spec in variants.MODELS.items()
        if name == v2_b0 or name.startswith("efficientnet-b")
    }
    v2, v1 = (
        sys.modules[getattr(tf.keras.applications, name).__module__] for name in ("EfficientNetV2B0", "EfficientNetB0")
    )
    of_v2 = {v2_b0: [{**block, "num_repeat": 1} for block in v2.DEFAULT_BLOCKS_ARGS[v2_b0]]}
    of_v1 = [{**block, "repeats": 1} for block in v1.DEFAULT_BLOCKS_ARGS]
    with contextlib.ExitStack() as stack:
        layout._variants.cache_clear()  # a table of all variants' shapes, which is made once in a process
        stack.callback(layout._variants.cache_clear)
        stack.enter_context(mock.patch.dict(variants.MODELS, ours))
        stack.enter_context(mock.patch.dict(v2.DEFAULT_BLOCKS_ARGS, of_v2))
        stack.enter_context(mock.patch.object(v1, "DEFAULT_BLOCKS_ARGS", of_v1))
        yield
