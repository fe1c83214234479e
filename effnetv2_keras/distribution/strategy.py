"""Which devices a run uses."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import signal
import threading
from collections.abc import Iterator
from typing import Callable

import tensorflow as tf

from effnetv2_keras.errors import UsageError, WorkerLost


class StrategyError(UsageError):
    """A choice of devices that this machine or this version cannot serve."""


@dataclasses.dataclass(frozen=True)
class Devices:
    """Where devices beyond this machine are.

    Attributes:
        tpu: name or address of a TPU; ``"local"`` is this host's, an empty one what the environment names.
        tpu_zone: its Google Cloud zone, such as ``us-central1-a``; empty for the environment's.
        gcp_project: its Google Cloud project; empty for the environment's.
        workers: addresses ``host:port`` of all workers of a multi-worker run, the same list for each; without any,
            the environment variable ``TF_CONFIG`` describes them.
        worker_index: this worker's place in ``workers``.
    """

    tpu: str = ""
    tpu_zone: str = ""
    gcp_project: str = ""
    workers: tuple[str, ...] = ()
    worker_index: int = 0


@dataclasses.dataclass(frozen=True)
class Worker:
    """This process among those that share a run.

    Attributes:
        index: its number, in [0, count).
        count: number of workers.
    """

    index: int = 0
    count: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether it is the one that writes to the run's folder and to the screen."""
        return self.index == 0


def worker_of(strategy: tf.distribute.Strategy) -> Worker:
    """Finds which worker of a ``MultiWorkerMirroredStrategy`` this process is; any other strategy has just one."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return Worker()
    resolver = strategy.cluster_resolver
    tasks = _tasks(resolver.cluster_spec())
    return Worker(tasks.index((resolver.task_type, resolver.task_id)), len(tasks)) if tasks else Worker()


def make_agreement(strategy: tf.distribute.Strategy) -> Callable[[float], float]:
    """Makes a function that returns, once all workers have called it, what the chief has called it with, a float32."""
    worker = worker_of(strategy)
    if worker.count == 1:
        return lambda value: value

    @tf.function(autograph=False)
    def add_up(share: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(tf.identity, args=(share,)), axis=None)

    def agree(value: float) -> float:
        local = len(strategy.extended.worker_devices) if worker.is_chief else 1
        return float(add_up(tf.constant(value / local if worker.is_chief else 0.0)))

    return agree


@contextlib.contextmanager
def explained_losses(worker: Worker) -> Iterator[None]:
    """Says so where another worker is gone, with which this one wanted to exchange gradients.

    Raises:
        WorkerLost: in place of TensorFlow's own error.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError,
            tf.errors.InternalError, tf.errors.DeadlineExceededError) as error:  # fmt: skip
        if worker.count == 1 or (isinstance(error, tf.errors.InternalError) and not _OF_PEERS.search(str(error))):
            raise
        raise WorkerLost(
            f"Another of the {worker.count} workers is gone, or does not answer. Start all of them again with the same "
            f"commands: they go on from the last checkpoint. ({_reason(error)})"
        ) from error


_OF_PEERS = re.compile("collective|peer|connection|socket|remote", re.IGNORECASE)  # every device is a "worker"


def _reason(error: tf.errors.OpError) -> str:
    """The line of a message that says most: the last one that names no node of a graph."""
    lines = [line.strip() for line in error.message.splitlines()]
    return next((line for line in reversed(lines) if line and "node" not in line), type(error).__name__)


def _tasks(cluster: tf.train.ClusterSpec) -> list[tuple[str, int]]:
    """All tasks, the chief first."""
    return [
        (kind, index) for kind in ("chief", "worker") if kind in cluster.jobs for index in cluster.task_indices(kind)
    ]


def _cpu(devices: Devices) -> tf.distribute.Strategy:
    return tf.distribute.OneDeviceStrategy("/cpu:0")


def _mirrored(devices: Devices) -> tf.distribute.Strategy:
    """All GPUs; without any, all logical CPU devices."""
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return tf.distribute.MirroredStrategy([device.name for device in gpus])
    # Collectives on CPU devices number their keys from the same start in every strategy of a process, and then clash.
    return tf.distribute.MirroredStrategy(
        [device.name for device in tf.config.list_logical_devices("CPU")],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def _tpu(devices: Devices) -> tf.distribute.Strategy:
    """The TPU with this name or address, a slice of a pod too."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            devices.tpu, zone=devices.tpu_zone or None, project=devices.gcp_project or None
        )
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise StrategyError(
            f"--strategy=tpu: no TPU answers at {devices.tpu!r} (zone {devices.tpu_zone or 'of the environment'}, "
            f"project {devices.gcp_project or 'of the environment'}). Name one with --tpu, --tpu_zone and "
            f"--gcp_project, or the TPU of this host with --tpu=local. ({error})"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _multiworker(devices: Devices) -> tf.distribute.Strategy:
    """All devices of all workers; the same call in each of them waits for the others."""
    tf.get_logger().setLevel(logging.WARNING)  # it tells of every sum over the workers
    resolver = _resolve_flags(devices) if devices.workers else _resolve_environment()
    handler = signal.getsignal(signal.SIGTERM)
    with explained_losses(Worker(count=len(_tasks(resolver.cluster_spec())))):
        strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # TensorFlow's own would note the signal, and do nothing else
    return strategy


def _resolve_flags(devices: Devices) -> tf.distribute.cluster_resolver.ClusterResolver:
    workers, index = devices.workers, devices.worker_index
    if not 0 <= index < len(workers):
        raise StrategyError(
            f"--worker_index={index} is not the place of one of the {len(workers)} --workers; it goes from 0 to "
            f"{len(workers) - 1}, another one for each worker."
        )
    malformed = [
        worker for worker in workers if not worker.rpartition(":")[0] or not worker.rpartition(":")[2].isdigit()
    ]
    if malformed:
        raise StrategyError(f"--workers has {malformed[0]!r}; write addresses as host:port, separated by commas.")
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(workers)}), task_type="worker", task_id=index, rpc_layer="grpc"
    )


def _resolve_environment() -> tf.distribute.cluster_resolver.ClusterResolver:
    text = os.environ.get("TF_CONFIG", "")
    advice = (
        "Describe the workers in the environment variable TF_CONFIG, as "
        '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}, '
        "or with --workers=host1:2222,host2:2222 --worker_index=0"
    )
    if not text:
        raise StrategyError(f"--strategy=multiworker knows no workers. {advice}")
    try:
        described = json.loads(text)
        task = (described["task"]["type"], int(described["task"]["index"]))
        tasks = _tasks(tf.train.ClusterSpec(described["cluster"]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StrategyError(f"Cannot read TF_CONFIG={text!r}: {error!r}. {advice}") from error
    if task not in tasks:
        raise StrategyError(f"TF_CONFIG={text!r} makes this process {task}, which is not among {tasks}. {advice}")
    return tf.distribute.cluster_resolver.TFConfigClusterResolver()


def _auto(devices: Devices) -> tf.distribute.Strategy:
    """The TPU or the workers if they are named, else all GPUs, else the CPU."""
    if devices.tpu:
        return _tpu(devices)
    if devices.workers or os.environ.get("TF_CONFIG"):
        return _multiworker(devices)
    gpus = tf.config.list_logical_devices("GPU")
    if len(gpus) > 1:
        return _mirrored(devices)
    return tf.distribute.OneDeviceStrategy(gpus[0].name) if gpus else _cpu(devices)


STRATEGIES: dict[str, Callable[[Devices], tf.distribute.Strategy]] = {
    "auto": _auto,
    "cpu": _cpu,
    "mirrored": _mirrored,
    "tpu": _tpu,
    "multiworker": _multiworker,
}
"""Every ``--strategy``."""


def make_strategy(name: str = "auto", devices: Devices = Devices()) -> tf.distribute.Strategy:  # noqa: B008 - frozen
    """Builds the distribution strategy called ``name``, a key of ``STRATEGIES``.

    Call it before anything else that uses TensorFlow: the devices of several workers are fixed with the first use.

    Raises:
        StrategyError: for an unknown name, or devices that are not there.
    """
    if name not in STRATEGIES:
        raise StrategyError(f"Unknown strategy {name!r}; use one of: {', '.join(STRATEGIES)}.")
    return STRATEGIES[name](devices)
