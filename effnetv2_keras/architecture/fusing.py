"""Fused-MBConv in place of MBConv, stage by stage: the networks of Table 3 of the paper (no TensorFlow)."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from effnetv2_keras.architecture.specs import ModelSpec
from effnetv2_keras.errors import UsageError


def fuse(spec: ModelSpec, stages: Collection[int], *, kernel_size: int | None = None) -> ModelSpec:
    """Replaces MBConv by Fused-MBConv without squeeze-and-excite, as V2 has it; channels and layers stay.

    Args:
        spec: the network.
        stages: those to change, numbered from 1 as in Tables 3 and 4; a stage that is fused already stays as it is.
        kernel_size: side of the fused stages' kernel, pixels, odd; None: each stage's own.

    Returns:
        The network, named after its stages: ``NAME-fused-1-2-3``. Without stages, ``spec``.

    Raises:
        UsageError: for a stage that the network has not, or an even kernel.
    """
    numbers = range(1, len(spec.blocks) + 1)
    if unknown := sorted(set(stages) - set(numbers)):
        raise UsageError(f"{spec.name} has no stage {unknown[0]}; its stages are 1 to {len(spec.blocks)}.")
    if kernel_size is not None and (kernel_size < 1 or kernel_size % 2 == 0):
        raise UsageError(f"kernel_size is {kernel_size}; it must be odd, such as 3, or None for each stage's own.")
    if not stages:
        return spec
    blocks = tuple(
        dataclasses.replace(block, kind="fused_mbconv", se_ratio=0.0, kernel_size=kernel_size or block.kernel_size)
        if number in stages and block.kind == "mbconv"
        else block
        for number, block in zip(numbers, spec.blocks)
    )
    name = "-".join((spec.name, "fused", *map(str, sorted(set(stages)))))
    return dataclasses.replace(spec, name=name, blocks=blocks)
