"""``--mode=benchmark``: measures inference time and memory of a network in the export formats.

Each format runs in a separate process, so that its memory can be measured. The processes alternate, one call each, so
that other load on the machine affects all formats equally.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import pathlib
import re
import tempfile
from collections.abc import Sequence
from typing import Callable

import numpy as np
import rich.console
import rich.table
import tensorflow as tf
from absl import logging

from effnetv2_keras.config import Config
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.export import EXPORTERS, export_model
from effnetv2_keras.export.exporter import Runtime, random_images, seconds_of, shown
from effnetv2_keras.models.from_config import build_for
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.settings import BENCHMARK, reads_of_export
from effnetv2_keras.reporting.console import show
from effnetv2_keras.runs.trained import Trained, load_trained

_WARM_UP = 3


@dataclasses.dataclass(frozen=True)
class Row:
    """Measurements of one format at one batch size.

    Attributes:
        format: a key of ``EXPORTERS``, followed by the quantization if there is one.
        batch_size: images per call.
        median_ms: median time of a call, milliseconds.
        p90_ms: 90th percentile of the time of a call, milliseconds.
        images_per_second: images per second at the median time.
        peak_megabytes: peak resident memory of the process for batch sizes up to this one, 10^6 bytes.
    """

    format: str
    batch_size: int
    median_ms: float
    p90_ms: float
    images_per_second: float
    peak_megabytes: float


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Result of a benchmark.

    Attributes:
        model_name: name of the network.
        image_size: side of the images, pixels.
        device: name of the device.
        repeats: number of timed calls per row.
        bare_megabytes: peak resident memory of a process with TensorFlow and without a network, 10^6 bytes.
        megabytes: size on disk of each format, 10^6 bytes.
        rows: measurements, one per format and batch size.
    """

    model_name: str
    image_size: int
    device: str
    repeats: int
    bare_megabytes: float
    megabytes: dict[str, float]
    rows: tuple[Row, ...]


def fresh(config: Config, *, num_classes: int = 1000) -> Trained:
    """Returns an untrained network, which is as fast as a trained one.

    Args:
        config: configuration of the network.
        num_classes: width of the classifier.
    """
    names = tuple(str(label) for label in range(num_classes))
    return Trained(build_for(config, num_classes), config, names, step=0)


def benchmark(
    trained: Trained,
    *,
    formats: Sequence[str] = ("savedmodel",),
    quantize: str = "none",
    batch_sizes: Sequence[int] = (1, 8, 32),
    image_size: int | None = None,
    repeats: int = 20,
    splits: Splits | None = None,
) -> Benchmark:
    """Exports a network, checks the exports, and measures them on random images.

    Args:
        trained: the network.
        formats: keys of ``EXPORTERS``.
        quantize: quantization as for ``export_model``; with several formats, it applies to those that support it.
        batch_sizes: numbers of images per call, at least 1.
        image_size: side of the images, pixels; None is the evaluation size of the run.
        repeats: number of timed calls per format and batch size, at least 1; three untimed calls precede them.
        splits: as for ``export_model``.

    Raises:
        ConfigError: if there is no format, a format is unknown, or a batch size or ``repeats`` is below 1.
        ExportError: if the network cannot be exported.
    """
    _check(formats, batch_sizes, repeats)
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # the processes share the GPU
    sizes = sorted(set(batch_sizes))
    size = trained.config.eval_size if image_size is None else image_size
    with contextlib.ExitStack() as stack:
        root = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        calls: dict[str, Callable[[int], tuple[float, float]]] = {}
        megabytes = {}
        for name in dict.fromkeys(formats):
            chosen = quantize if quantize in EXPORTERS[name].quantizations or len(formats) == 1 else "none"
            label = name if chosen == "none" else f"{name} {chosen}"
            report = export_model(
                trained, root / name, format_name=name, quantize=chosen, image_size=size, splits=splits
            )
            megabytes[label] = report.megabytes
            calls[label] = functools.partial(_in_worker, _worker(stack), name, str(root / name), size)
        bare = _worker(stack).submit(peak_megabytes).result()
        peaks = {(label, batch): _warm_up(call, batch) for label, call in calls.items() for batch in sizes}
        seconds: dict[tuple[str, int], list[float]] = {key: [] for key in peaks}
        for _ in shown(range(repeats), "timing", repeats):
            for (label, batch), times in seconds.items():
                times.append(calls[label](batch)[0])
    rows = tuple(_row(label, batch, times, peaks[label, batch]) for (label, batch), times in seconds.items())
    return Benchmark(trained.spec.name, size, _device(), repeats, bare, megabytes, rows)


def print_benchmark(result: Benchmark, console: rich.console.Console) -> None:
    """Prints a table, and the fields of ``Benchmark`` as one line of JSON."""
    table = rich.table.Table(title=f"{result.model_name} at {result.image_size} px, {result.device}")
    for heading in ("format", "batch", "median ms", "p90 ms", "images/s", "peak memory MB", "on disk MB"):
        table.add_column(heading, justify="left" if heading == "format" else "right")
    for row in result.rows:
        table.add_row(
            row.format,
            f"{row.batch_size}",
            f"{row.median_ms:.2f}",
            f"{row.p90_ms:.2f}",
            f"{row.images_per_second:.1f}",
            f"{row.peak_megabytes:.0f}",
            f"{result.megabytes[row.format]:.1f}",
        )
    show(console, table)
    show(
        console,
        f"{result.repeats} alternating calls of each row after {_WARM_UP} untimed calls. Peak memory is the resident "
        "memory of the process for batch sizes up to this one; TensorFlow alone takes "
        f"{result.bare_megabytes:.0f} MB of it.",
    )
    show(console, json.dumps(dataclasses.asdict(result)))


def peak_megabytes() -> float:
    """Returns the peak resident memory of this process so far, 10^6 bytes."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # on Linux, getrusage includes the memory of the parent process
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) * 1024 / 1e6
    import resource  # exists on macOS, not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _check(formats: Sequence[str], batch_sizes: Sequence[int], repeats: int) -> None:
    unknown = [name for name in formats if name not in EXPORTERS]
    if unknown or not formats:
        raise ConfigError(
            f"Cannot benchmark --format={','.join(formats)}; use one or more of {', '.join(EXPORTERS)}, separated by "
            "commas."
        )
    if not batch_sizes or min(batch_sizes) < 1:
        raise ConfigError(
            f"--batch_sizes is {list(batch_sizes)}; use whole numbers of at least 1, such as --batch_sizes=1,8"
        )
    if repeats < 1:
        raise ConfigError(f"repeats is {repeats}; it must be at least 1.")


def _worker(stack: contextlib.ExitStack) -> concurrent.futures.ProcessPoolExecutor:
    """Starts one worker process, which ends when the stack closes."""
    context = multiprocessing.get_context("spawn")  # a forked process would include the memory of this one
    return stack.enter_context(concurrent.futures.ProcessPoolExecutor(1, mp_context=context))


@functools.lru_cache(maxsize=1)
def _runtime(format_name: str, folder: str) -> Runtime:
    return EXPORTERS[format_name].load(pathlib.Path(folder))


def _in_worker(
    worker: concurrent.futures.Executor, format_name: str, folder: str, image_size: int, batch_size: int
) -> tuple[float, float]:
    return worker.submit(_call, format_name, folder, image_size, batch_size).result()


def _warm_up(call: Callable[[int], tuple[float, float]], batch_size: int) -> float:
    """Makes the first, slower calls and returns the peak memory after them, 10^6 bytes."""
    return [call(batch_size)[1] for _ in range(_WARM_UP)][-1]


def _call(format_name: str, folder: str, image_size: int, batch_size: int) -> tuple[float, float]:
    """Runs one call in a worker; returns its time in seconds and the peak memory of the worker in 10^6 bytes."""
    images = random_images(batch_size, image_size, image_size)
    return seconds_of(_runtime(format_name, folder), images), peak_megabytes()


def _row(label: str, batch: int, seconds: Sequence[float], peak: float) -> Row:
    median, p90 = (1000 * float(value) for value in np.percentile(seconds, (50, 90)))
    return Row(label, batch, median, p90, 1000 * batch / median, peak)


def _device() -> str:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    return f"CPU with {os.cpu_count()} cores"


def run(invocation: Invocation) -> None:
    """Benchmarks the network of the run in ``--model_dir``, or without it an untrained ``--model_name``."""
    options = invocation.options
    logging.set_verbosity(logging.WARNING)
    if not all(size.strip().isdecimal() for size in options.batch_sizes):
        raise ConfigError(
            f"--batch_sizes={','.join(options.batch_sizes)} must be whole numbers, such as --batch_sizes=1,8"
        )
    if options.quantize != "int8":
        invocation.refuse("Only --quantize=int8 reads images", "data_dir")
    if options.model_dir:
        invocation.refuse("A run has its own network and settings", "model_name", "dataset_cfg")
        changes = {**invocation.changes(reads_of_export(options.quantize)), **invocation.data_changes()}
        trained = load_trained(options.model_dir, which=options.weights, use_ema=options.use_ema)
        trained = dataclasses.replace(trained, config=trained.config.override(changes))
    else:
        invocation.refuse("A network without a run has no checkpoints", "weights", "use_ema")
        if options.image_size is not None and "eval.isize" in invocation.changes(BENCHMARK):
            raise ConfigError("--image_size sets the image size, so eval.isize would change nothing. Leave one out.")
        trained = fresh(invocation.config(BENCHMARK))
    result = benchmark(
        trained,
        formats=(options.format or "savedmodel").split(","),
        quantize=options.quantize,
        batch_sizes=[int(size) for size in options.batch_sizes],
        image_size=options.image_size,
    )
    print_benchmark(result, invocation.console)
