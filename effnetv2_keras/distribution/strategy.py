"""Choice of the devices of a run (``--strategy``), and agreement between the workers that share it."""

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
from absl import logging as absl_logging

from effnetv2_keras.distribution.gpus import gpu_name, unseen_gpus
from effnetv2_keras.distribution.waiting import announced
from effnetv2_keras.errors import UsageError, WorkerLost


class StrategyError(UsageError):
    """A choice of devices that is unknown, incomplete, or not available."""


@dataclasses.dataclass(frozen=True)
class Devices:
    """The addresses of a TPU or of the workers of a multi-worker run.

    Attributes:
        tpu: name or address of a TPU; ``"local"`` is the TPU of this host, and an empty name is the TPU that the
            environment names.
        tpu_zone: Google Cloud zone of the TPU, such as ``us-central1-a``; if empty, the environment's.
        gcp_project: Google Cloud project of the TPU; if empty, the environment's.
        workers: addresses ``host:port`` of all workers of a multi-worker run, the same list in every worker. If empty,
            the environment variable ``TF_CONFIG`` describes the workers.
        worker_index: position of this worker in ``workers``.
    """

    tpu: str = ""
    tpu_zone: str = ""
    gcp_project: str = ""
    workers: tuple[str, ...] = ()
    worker_index: int = 0


@dataclasses.dataclass(frozen=True)
class Worker:
    """The position of this process among the workers that share a run.

    Attributes:
        index: number of this worker, in [0, count).
        count: number of workers.
    """

    index: int = 0
    count: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether this is worker 0, the only one that writes to the folder of the run and to the screen."""
        return self.index == 0


def worker_of(strategy: tf.distribute.Strategy) -> Worker:
    """Returns which worker of a ``MultiWorkerMirroredStrategy`` this process is; other strategies have one worker."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return Worker()
    resolver = strategy.cluster_resolver
    tasks = _tasks(resolver.cluster_spec())
    return Worker(tasks.index((resolver.task_type, resolver.task_id)), len(tasks)) if tasks else Worker()


def make_agreement(strategy: tf.distribute.Strategy) -> Callable[[float], float]:
    """Returns a function that gives every worker the value which the chief passes to it, as a float64.

    All workers must call the function: each call waits for the others.
    """
    worker = worker_of(strategy)
    if worker.count == 1:
        return lambda value: value

    def of_first_replica(value: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        return tf.where(context.replica_id_in_sync_group == 0, value, tf.zeros_like(value))

    @tf.function(autograph=False)
    def add_up(value: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(of_first_replica, args=(value,)), axis=None)

    return lambda value: float(add_up(tf.constant(value, tf.float64)))


@contextlib.contextmanager
def explained_losses(worker: Worker) -> Iterator[None]:
    """Turns TensorFlow's errors about a lost worker into ``WorkerLost``, inside a ``with`` block.

    Args:
        worker: this worker.

    Raises:
        WorkerLost: if another worker does not answer.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError,
            tf.errors.InternalError, tf.errors.DeadlineExceededError) as error:  # fmt: skip
        if worker.count == 1 or (isinstance(error, tf.errors.InternalError) and not _OF_PEERS.search(str(error))):
            raise
        raise WorkerLost(
            f"Another of the {worker.count} workers has ended or does not answer. Start all workers again with the "
            f"same commands: they resume from the last checkpoint. ({_reason(error)})"
        ) from error


# "worker" is not among these words, because the name of every device contains it.
_OF_PEERS = re.compile("collective|peer|connection|socket|remote", re.IGNORECASE)


def _reason(error: tf.errors.OpError) -> str:
    """Returns the most informative line of a message: the last one that does not name a node of a graph."""
    lines = [line.strip() for line in error.message.splitlines()]
    return next((line for line in reversed(lines) if line and "node" not in line), type(error).__name__)


def _tasks(cluster: tf.train.ClusterSpec) -> list[tuple[str, int]]:
    """Returns all tasks, the chief first."""
    return [
        (kind, index) for kind in ("chief", "worker") if kind in cluster.jobs for index in cluster.task_indices(kind)
    ]


def _cpu(devices: Devices) -> tf.distribute.Strategy:
    return tf.distribute.OneDeviceStrategy("/cpu:0")


def _mirrored(devices: Devices) -> tf.distribute.Strategy:
    """Uses all GPUs, or all logical CPU devices if there is no GPU."""
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return tf.distribute.MirroredStrategy([device.name for device in gpus])
    # With collectives on CPU devices, every strategy of a process numbers its keys from the same start, and the keys
    # of two strategies clash.
    return tf.distribute.MirroredStrategy(
        [device.name for device in tf.config.list_logical_devices("CPU")],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def _tpu(devices: Devices) -> tf.distribute.Strategy:
    """Uses the TPU with the given name or address, which may be a slice of a pod."""
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
    """Uses all devices of all workers. Every worker must call this; each call waits for the others, and says so."""
    tf.get_logger().setLevel(logging.WARNING)  # level INFO logs every sum over the workers
    resolver = _resolve_flags(devices) if devices.workers else _resolve_environment()
    handler = signal.getsignal(signal.SIGTERM)
    cluster = resolver.cluster_spec()
    tasks = _tasks(cluster)
    addresses = [cluster.task_address(kind, index) for kind, index in tasks]
    index = tasks.index((resolver.task_type, resolver.task_id))
    with explained_losses(Worker(count=len(tasks))), announced(addresses, index):
        strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # TensorFlow's handler records the signal but does not end the process
    return strategy


def _resolve_flags(devices: Devices) -> tf.distribute.cluster_resolver.ClusterResolver:
    workers, index = devices.workers, devices.worker_index
    if not 0 <= index < len(workers):
        raise StrategyError(
            f"--worker_index={index} is not the position of one of the {len(workers)} --workers; it must lie in "
            f"[0, {len(workers) - 1}]. Give each worker a different one."
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
        raise StrategyError(f"--strategy=multiworker has no list of workers. {advice}")
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
    """Uses the TPU or the workers if they are named, otherwise all GPUs, otherwise the CPU; logs which."""
    if devices.tpu:
        return _tpu(devices)
    if devices.workers or os.environ.get("TF_CONFIG"):
        return _multiworker(devices)
    gpus = tf.config.list_logical_devices("GPU")
    if not gpus:
        if notice := unseen_gpus():
            absl_logging.warning("%s", notice)
        absl_logging.info("--strategy=auto uses the CPU.")
        return _cpu(devices)
    names = ", ".join(sorted(set(map(gpu_name, tf.config.list_physical_devices("GPU")))))
    absl_logging.info("--strategy=auto uses %d GPU%s: %s.", len(gpus), "s" if len(gpus) > 1 else "", names)
    return _mirrored(devices) if len(gpus) > 1 else tf.distribute.OneDeviceStrategy(gpus[0].name)


STRATEGIES: dict[str, Callable[[Devices], tf.distribute.Strategy]] = {
    "auto": _auto,
    "cpu": _cpu,
    "mirrored": _mirrored,
    "tpu": _tpu,
    "multiworker": _multiworker,
}
"""The function that builds each ``--strategy``."""


def make_strategy(name: str = "auto", devices: Devices = Devices()) -> tf.distribute.Strategy:  # noqa: B008 - frozen
    """Builds a distribution strategy.

    Call this function before anything else that uses TensorFlow. With several workers, the first use of TensorFlow
    fixes their devices.

    Args:
        name: a key of ``STRATEGIES``.
        devices: the addresses that ``"tpu"`` and ``"multiworker"`` use.

    Raises:
        StrategyError: if the name is unknown, ``devices`` is malformed, or a device is not available.
    """
    if name not in STRATEGIES:
        raise StrategyError(f"Unknown strategy {name!r}; use one of: {', '.join(STRATEGIES)}.")
    return STRATEGIES[name](devices)
