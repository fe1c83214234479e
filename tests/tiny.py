"""Networks of a few thousand parameters with each kind of block, for tests that need a real model."""

from __future__ import annotations

import dataclasses

from effnetv2_keras.architecture.specs import BlockSpec, ModelSpec

TINY = ModelSpec(
    "tiny",
    blocks=(
        BlockSpec("fused_mbconv", 1, 3, 1, 1, 8, 8),
        BlockSpec("fused_mbconv", 2, 3, 2, 4, 8, 8),
        BlockSpec("mbconv", 2, 3, 2, 4, 8, 16, 0.25),
    ),
    head_filters=32,
    train_size=32,
    eval_size=40,
    dropout_rate=0.2,
)
"""Five blocks, three of them with a residual; strides 2, 4 and 8."""

SMALL = dataclasses.replace(
    TINY, blocks=(BlockSpec("fused_mbconv", 1, 3, 1, 4, 8, 8), BlockSpec("mbconv", 1, 3, 2, 4, 8, 16, 0.25))
)
"""Two blocks, the first with a residual: for tests of training, whose time is mostly spent on tracing the network."""
