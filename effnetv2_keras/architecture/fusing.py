"""Replacement of MBConv by Fused-MBConv in chosen stages, as in Table 3 of the paper (no TensorFlow)."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from effnetv2_keras.architecture.specs import ModelSpec
from effnetv2_keras.errors import UsageError


def fuse(spec: ModelSpec, stages: Collection[int], *, kernel_size: int | None = None) -> ModelSpec:
    """Returns a network whose chosen stages use Fused-MBConv instead of MBConv.

    As in V2, the fused blocks have no squeeze-and-excite. The numbers of channels and layers do not change.

    Args:
        spec: the network.
        stages: numbers of the stages to fuse, from 1 as in Tables 3 and 4. Stages that are already fused stay as they
            are.
        kernel_size: side of the kernel of the fused stages, pixels, odd; None keeps the kernel of each stage.

    Returns:
        The fused network. Its name lists the stages: ``NAME-fused-1-2-3``. If ``stages`` is empty, ``spec`` itself.

    Raises:
        UsageError: if the network has no such stage, or ``kernel_size`` is even.
    """
    numbers = range(1, len(spec.blocks) + 1)
    if unknown := sorted(set(stages) - set(numbers)):
        raise UsageError(
            f"{spec.name} has no stage {unknown[0]}; its stages are 1 to {len(spec.blocks)}. Choose among these."
        )
    if kernel_size is not None and (kernel_size < 1 or kernel_size % 2 == 0):
        raise UsageError(f"kernel_size is {kernel_size}; it must be odd, such as 3, or None to keep it.")
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
