"""Which devices a run uses."""

from __future__ import annotations

from typing import Callable

import tensorflow as tf

from effnetv2_keras.errors import UsageError


class StrategyError(UsageError):
    """A choice of devices that this machine or this version cannot serve."""


def _cpu(tpu: str) -> tf.distribute.Strategy:
    return tf.distribute.OneDeviceStrategy("/cpu:0")


def _mirrored(tpu: str) -> tf.distribute.Strategy:
    """All GPUs; without any, all logical CPU devices."""
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return tf.distribute.MirroredStrategy([device.name for device in gpus])
    # Collectives on CPU devices number their keys from the same start in every strategy of a process, and then clash.
    return tf.distribute.MirroredStrategy(
        [device.name for device in tf.config.list_logical_devices("CPU")],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def _tpu(tpu: str) -> tf.distribute.Strategy:
    """The TPU with this name or address; an empty name asks the environment, ``"local"`` means this host."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise StrategyError(f"--strategy=tpu: no TPU answers at {tpu!r}. Name one with --tpu. ({error})") from error
    return tf.distribute.TPUStrategy(resolver)


def _multiworker(tpu: str) -> tf.distribute.Strategy:
    raise StrategyError("--strategy=multiworker is not available in this version; use mirrored on one machine.")


def _auto(tpu: str) -> tf.distribute.Strategy:
    """The TPU if one is named, else all GPUs, else the CPU."""
    if tpu:
        return _tpu(tpu)
    gpus = tf.config.list_logical_devices("GPU")
    if len(gpus) > 1:
        return _mirrored(tpu)
    return tf.distribute.OneDeviceStrategy(gpus[0].name) if gpus else _cpu(tpu)


STRATEGIES: dict[str, Callable[[str], tf.distribute.Strategy]] = {
    "auto": _auto,
    "cpu": _cpu,
    "mirrored": _mirrored,
    "tpu": _tpu,
    "multiworker": _multiworker,
}
"""Every ``--strategy``: a function of the ``--tpu`` flag."""


def make_strategy(name: str = "auto", *, tpu: str = "") -> tf.distribute.Strategy:
    """Builds the distribution strategy called ``name``, a key of ``STRATEGIES``.

    Raises:
        StrategyError: for an unknown name, or devices that are not there.
    """
    if name not in STRATEGIES:
        raise StrategyError(f"Unknown strategy {name!r}; use one of: {', '.join(STRATEGIES)}.")
    return STRATEGIES[name](tpu)
