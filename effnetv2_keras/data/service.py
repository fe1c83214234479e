"""Training batches made in other processes, by tf.data services.

A service is a dispatcher with one worker. Of W services, service k makes every W-th batch from the k-th on, and the
batches are joined in turn. They are the same batches in the same order as without a service, at whatever step the run
starts. Each service must find the data under the same paths. If the source is sequential, every service reads all of
it.

A service executes any graph that is sent to it, and TensorFlow's servers listen on every network interface of the
machine (0.0.0.0), which none of its settings changes. Restrict access to the ports to users who may run
programs on the machine.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable

import tensorflow as tf
from absl import logging

from effnetv2_keras.basics.ending import start_thread
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.sources.integrity import plain_message
from effnetv2_keras.errors import UsageError

_CONNECT_SECONDS = 5.0
_LOOK_EVERY = 2.0  # seconds between checks of the services while waiting for a batch
_GONE_AFTER = 10.0  # seconds without a connection after which a service counts as lost
_STALLED_AFTER = 600.0  # seconds without a batch after which a service counts as stalled


def from_services(make: Callable[[range], tf.data.Dataset], steps: range, services: Sequence[str]) -> tf.data.Dataset:
    """Returns the dataset of the batches for some steps, made by services and joined in order.

    Args:
        make: maps a range of steps, of any stride, to a dataset of their batches. The dataset must not contain Python
            functions.
        steps: the steps to make batches for.
        services: the address of each service, ``host:port``.

    Returns:
        A dataset equal to ``make(steps)``. It raises an error instead of skipping or repeating a batch.

    Raises:
        UsageError: if a service cannot be reached.
    """
    for service in services:
        if not _answers(service):
            raise UsageError(
                f"data.service={'|'.join(services)}: no service answers at {service}. Start one with "
                "--mode=data_service and use the address that it prints, or set data.service=none to make the batches "
                "in this process."
            )
    services = services[: len(steps)]
    parts = []
    for place, service in enumerate(services):
        own = steps[place :: len(services)]
        numbered = tf.data.Dataset.zip((tf.data.Dataset.range(own.start, own.stop, own.step), make(own)))
        parts.append(
            numbered.prefetch(tf.data.AUTOTUNE).apply(
                tf.data.experimental.service.distribute(
                    processing_mode=tf.data.experimental.service.ShardingPolicy.OFF,
                    service=f"grpc://{service}",
                    compression=None,  # images hardly compress
                )
            )
        )
    turns = tf.data.Dataset.range(len(parts)).repeat()
    joined = tf.data.Dataset.choose_from_datasets(parts, turns, stop_on_empty_dataset=True)

    @tf.autograph.experimental.do_not_convert
    def in_order(expected: tf.Tensor, numbered: tuple[tf.Tensor, Any]) -> Any:
        number, batch = numbered
        tf.debugging.assert_equal(number, expected, "a batch arrived out of order")
        return batch

    expected = tf.data.Dataset.range(steps.start, steps.stop, steps.step)
    batches = tf.data.Dataset.zip((expected, joined)).map(in_order)
    return batches.apply(tf.data.experimental.assert_cardinality(len(steps)))


def next_batch(batches: Iterator[Any], services: Sequence[str]) -> Any:
    """Returns ``next(batches)``, but does not wait forever for a service that is lost.

    A restarted service does not know the run, so the run must be resumed from its last checkpoint.

    Args:
        batches: the iterator over the batches.
        services: the services that make the batches; empty if they are made in this process.

    Raises:
        DataError: if a service can no longer be reached, or a batch takes more than ten minutes.
    """
    if not services:
        return next(batches)
    result: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def fetch() -> None:
        try:
            result.put((next(batches), None))
        except BaseException as error:
            result.put((None, error))

    start_thread(fetch, daemon=True)  # TensorFlow itself waits for an hour and cannot be interrupted
    begin = answered = time.monotonic()
    while True:
        try:
            batch, error = result.get(timeout=_LOOK_EVERY)
        except queue.Empty:
            now = time.monotonic()
            silent = [service for service in services if not _answers(service)]
            answered = answered if silent else now
            if now - answered > _GONE_AFTER or now - begin > _STALLED_AFTER:
                raise _lost(services, silent, now - begin) from None
            logging.log_every_n_seconds(logging.WARNING, "Waiting for a batch of the tf.data service at %s.", 60,
                                        ", ".join(silent or services))  # fmt: skip
            continue
        if error is not None:
            raise error
        return batch


def _lost(services: Sequence[str], silent: Sequence[str], seconds: float) -> DataError:
    where = f"at {', '.join(silent)} can no longer be reached" if silent else f"at {', '.join(services)} has stalled"
    return DataError(
        f"The tf.data service {where}: no batch arrived for {seconds:.0f} s. Start it again with --mode=data_service, "
        "then run the same command again to resume from the last checkpoint. If the service has a new address, set "
        "data.service to it."
    )


def _answers(service: str) -> bool:
    host, _, port = service.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS):
            return True
    except OSError:
        return False


class Services:
    """Starts tf.data services in this process, each a dispatcher with one worker; they run until the process ends.

    Args:
        count: number of services.
        host: name under which the training machines reach this machine. The services listen on every network interface,
            whatever this is.
        port: first of ``2 * count`` consecutive ports. The dispatchers use the first ``count``, the workers the others.
            0 for any free ports.

    Attributes:
        addresses: ``host:port`` of each service, for ``data.service``.
        ports: all ports on which the services listen.

    Raises:
        UsageError: if a port is in use.
    """

    def __init__(self, count: int, *, host: str = "localhost", port: int = 0) -> None:
        service = tf.data.experimental.service
        with contextlib.suppress(RuntimeError):  # raised if TensorFlow has already initialized its devices
            tf.config.set_visible_devices([], "GPU")
        self.addresses: list[str] = []
        self.ports: list[int] = []
        self._servers: list[Any] = []
        try:
            for place in range(count):
                dispatcher = service.DispatchServer(service.DispatcherConfig(port=port + place if port else 0))
                local = dispatcher.target.partition("://")[2]
                worker_port = port + count + place if port else 0
                worker = service.WorkerServer(
                    service.WorkerConfig(
                        dispatcher_address=local, worker_address=f"{host}:{worker_port or '%port%'}", port=worker_port
                    )
                )
                self._servers += [worker, dispatcher]
                own = int(local.rpartition(":")[2])
                self.ports += [own, int(worker._address.rpartition(":")[2])]  # there is no public attribute
                self.addresses.append(f"{host}:{own}")
        except (tf.errors.OpError, RuntimeError) as error:
            raise UsageError(
                f"Cannot start {count} services on the {2 * count} ports from {port} on: {plain_message(error)}. "
                "Choose other ports with --port, or --port=0 for any free ports."
            ) from error
