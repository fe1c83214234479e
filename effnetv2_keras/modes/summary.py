"""``--mode=summary``: prints the stages of a network with parameters, multiply-adds and FLOPs."""

from __future__ import annotations

import collections

import rich.console
import rich.table

from effnetv2_keras.architecture import profile, specs
from effnetv2_keras.config import Config
from effnetv2_keras.models import figures
from effnetv2_keras.models.from_config import build_for
from effnetv2_keras.models.naming import leaf_layers
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.plan import billions, dropout_note, new_table
from effnetv2_keras.modes.settings import SUMMARY
from effnetv2_keras.reporting.console import show


def print_summary(config: Config, console: rich.console.Console) -> None:
    """Prints the stages of a network, as in Table 4 of the paper, with parameters and multiply-adds.

    For a Keras network, it prints the number of layers of each kind.

    Args:
        config: configuration of the network and the evaluation size; the classifier has 1000 classes.
        console: output.

    Raises:
        UsageError: if a Keras network cannot be built.
    """
    spec = config.spec
    if isinstance(spec, specs.KerasSpec):
        _print_keras_summary(config, spec, console)
        return
    table = new_table(
        f"{spec.name} at {config.eval_size} px", "stage", "operator", "stride", "channels", "layers", "output px",
        "parameters", "M multiply- adds",
    )  # fmt: skip
    for stage, row in enumerate(profile.stage_table(spec, image_size=config.eval_size)):
        table.add_row(
            f"{stage}",
            row.operator,
            f"{row.stride}" if row.stride else "-",
            f"{row.channels}",
            f"{row.layers}",
            f"{row.output_size}",
            f"{row.parameters.total:,}",
            f"{row.macs / 1e6:,.1f}",
        )
    show(console, table)
    parameters = profile.count_parameters(spec)
    macs = profile.count_macs(spec, image_size=config.eval_size)
    flops = profile.count_profiler_flops(spec, image_size=config.eval_size)
    show(
        console,
        f"{parameters.total:,} parameters ({parameters.trainable:,} trainable), {macs / 1e9:.4g} G multiply-adds with "
        f"1000 classes (convolutions and dense layers); {flops / 1e9:.4g} G by the reference code's count (half of "
        "what TensorFlow's profiler finds)",
    )


def _print_keras_summary(config: Config, spec: specs.KerasSpec, console: rich.console.Console) -> None:
    model = build_for(config, 1000)
    layers, numbers = collections.Counter[str](), collections.Counter[str]()
    for layer in leaf_layers(model):
        layers[type(layer).__name__] += 1
        numbers[type(layer).__name__] += layer.count_params()
    table = new_table(spec.name, "kind of layer", "layers", "parameters")
    for kind, count in numbers.most_common():
        table.add_row(kind, f"{layers[kind]}", f"{count:,}")
    show(console, table)
    parameters, macs = figures.count_parameters(model), figures.count_macs(model, image_size=config.eval_size)
    show(
        console,
        f"{parameters.total:,} parameters ({parameters.trainable:,} trainable), {billions(macs)} multiply-adds with "
        f"1000 classes at {config.eval_size} px (convolutions and dense layers){dropout_note(model)}",
    )


def run(invocation: Invocation) -> None:
    """Prints the summary of the configuration's network."""
    print_summary(invocation.config(SUMMARY), invocation.console)
