"""``--mode=scale``: scales a network to a family, as a table and as files for ``--model_name`` (no TensorFlow)."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Sequence

import rich.table

from effnetv2_keras.architecture import profile
from effnetv2_keras.architecture.scaling import LateLayers, Scaling, family, scale
from effnetv2_keras.architecture.specs import ModelSpec, expand
from effnetv2_keras.architecture.variants import DEFAULT_MODEL, MODELS, get_spec
from effnetv2_keras.errors import UsageError
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.settings import NOTHING
from effnetv2_keras.reporting.console import show

_PUBLISHED = {
    "efficientnetv2-s-to-m": "efficientnetv2-m",
    "efficientnetv2-s-to-l": "efficientnetv2-l",
    "efficientnetv2-b0-by-b4": "efficientnetv2-s",
    "efficientnetv2-b0-by-b5": "efficientnetv2-m",
    "efficientnetv2-b0-by-b7": "efficientnetv2-l",
}
_HEADINGS: tuple[str, ...] = (
    "network",
    "stem",
    "channels",
    "layers",
    "train px",
    "eval px",
    "dropout",
    "parameters, M",
    "MACs, G",
)


def from_base_table() -> tuple[ModelSpec, ...]:
    """Returns V2-S, V2-M and V2-L as scaled from V2-B0 with the coefficients of V1-B4, B5 and B7.

    See ``architecture.scaling``. M and L have more late layers: one more layer in stage 5, and a stage 7 with two
    layers and, as in V1, 320 channels.
    """
    base, late = MODELS["efficientnetv2-b0"], LateLayers(stage_width=320 / 192)
    specs = []
    for version in ("b4", "b5", "b7"):
        v1 = MODELS[f"efficientnet-{version}"]
        scaling = Scaling(v1.width, v1.depth, resolution=v1.eval_size / base.eval_size)
        name = f"{base.name}-by-{version}"
        specs.append(scale(base, scaling, name=name, late=None if version == "b4" else late))
    return tuple(specs)


def table(specs: Iterable[ModelSpec]) -> str:
    """Returns a Markdown table with one network per line, in comparison with published networks.

    A network that corresponds to a published one is followed by the published network and the difference. The
    parameters are trainable parameters with 1000 classes, and the MACs are multiply-adds for one image of the
    evaluation size. The difference is network minus published network for each stage, and in percent of the published
    network for parameters and MACs.

    Args:
        specs: the networks.
    """
    rows = [_HEADINGS, *_rows(specs)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)


def _rows(specs: Iterable[ModelSpec]) -> list[tuple[str, ...]]:
    rows = []
    for spec in specs:
        rows.append(_row(spec.name, spec))
        if spec.name in _PUBLISHED:
            published = MODELS[_PUBLISHED[spec.name]]
            rows.append(_row(f"{published.name}, published", published))
            rows.append(_difference(rows[-2], rows[-1]))
    return rows


def screen_table(specs: Iterable[ModelSpec]) -> rich.table.Table:
    """Returns the rows of ``table`` for the screen, where long rows continue on the next line."""
    shown = rich.table.Table()
    for heading in _HEADINGS:
        shown.add_column(heading.replace("parameters", "params"), justify="left" if heading == "network" else "right")
    for row in _rows(specs):
        shown.add_row(*row)
    return shown


def _row(name: str, spec: ModelSpec) -> tuple[str, ...]:
    expanded = expand(spec)
    ends = expanded.stage_ends
    layers = [end - before for before, end in zip((-1, *ends), ends)]
    return (
        name,
        f"{expanded.stem_filters}",
        " ".join(f"{expanded.blocks[end].output_filters}" for end in ends),
        " ".join(map(str, layers)),
        f"{spec.train_size}",
        f"{spec.eval_size}",
        f"{spec.dropout_rate:.2g}",
        f"{profile.count_parameters(spec).trainable / 1e6:.2f}",
        f"{profile.count_macs(spec, image_size=spec.eval_size) / 1e9:.2f}",
    )


def _difference(ours: tuple[str, ...], published: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the row of differences between the cells of two rows."""
    numbers = [[[float(number) for number in cell.split()] for cell in row[1:]] for row in (ours, published)]
    *steps, parameters, macs = zip(*numbers)
    differences = [" ".join(f"{a - b:+.3g}" if a != b else "0" for a, b in zip(*pair)) for pair in steps]
    shares = [f"{100 * (a / b - 1):+.1f} %" for (a,), (b,) in (parameters, macs)]
    return ("difference", *differences, *shares)


def write_specs(specs: Sequence[ModelSpec], folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[str]:
    """Writes each network as ``NAME.json``, for ``--model_name`` and ``get_spec``.

    Args:
        specs: the networks.
        folder: folder for the files, created if missing.
        overwrite: whether to replace existing files with other content. If False and there is one, nothing is written.

    Returns:
        The paths.

    Raises:
        UsageError: if a file has other content and ``overwrite`` is False, the folder cannot be written, or the name of
            a network is not a file name.
    """
    files = {pathlib.Path(folder) / f"{spec.name}.json": spec.to_json() for spec in specs}
    for spec, path in zip(specs, files):
        if path.parent != pathlib.Path(folder):
            raise UsageError(
                f"The network's name {spec.name!r} is not a file name; remove the slashes from the name in its .json."
            )
    try:
        different = [path for path, text in files.items() if path.exists() and path.read_bytes() != text.encode()]
        if different and not overwrite:
            raise UsageError(
                f"{different[0]} exists with other content. Choose another --output_dir, or add --overwrite."
            )
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_bytes(text.encode())
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}. Choose another --output_dir.") from error
    return [str(path) for path in files]


def write_family(
    model_name: str, phis: Sequence[str], folder: str | os.PathLike[str], *, overwrite: bool = False
) -> tuple[tuple[ModelSpec, ...], list[str]]:
    """Scales a network and writes the larger networks.

    Args:
        model_name: name or ``.json`` path of a network, for ``get_spec``.
        phis: compound coefficients as text; if empty, see ``scaling.family``.
        folder: folder for the files.
        overwrite: see ``write_specs``.

    Returns:
        The network and the larger ones, and the paths of the files.

    Raises:
        UsageError: if the network is unknown, a ``phi`` is not a number or out of range, or a file cannot be written.
    """
    try:
        numbers = sorted({float(phi) for phi in phis})
    except ValueError as error:
        raise UsageError(f"--phi={','.join(phis)} must be numbers, such as --phi=1,2,3") from error
    spec = get_spec(model_name)
    members = family(spec, numbers)
    paths = write_specs(members, folder, overwrite=overwrite)
    return (spec, *members), paths


def run(invocation: Invocation) -> None:
    """Scales ``--model_name``, writes the larger networks to ``--output_dir`` and prints the table."""
    options = invocation.options
    invocation.changes(NOTHING)
    name, folder = options.model_name or DEFAULT_MODEL, options.output_dir or "."
    specs, paths = write_family(name, options.phi, folder, overwrite=options.overwrite)
    show(invocation.console, screen_table(specs))
    for path in paths:
        invocation.say(f"Wrote {path}")
