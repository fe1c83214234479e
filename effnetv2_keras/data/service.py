"""Batches made in other processes, by tf.data services.

A service is a dispatcher with one worker. Of W services, the one in place k makes every W-th batch from the k-th on,
and they are joined in turn: the same batches in the same order as without a service, wherever the run begins. Each
service has to see the data under the same paths; a source that is read from front to back is read by all of them.

A service runs whatever graph it is sent: let only those reach its ports who may run programs there.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable

import tensorflow as tf
from absl import logging

from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.sources.integrity import plain_message
from effnetv2_keras.errors import UsageError

_CONNECT_SECONDS = 5.0
_LOOK_EVERY = 2.0  # seconds between two looks at services while a batch is awaited
_GONE_AFTER = 10.0  # seconds during which a service cannot be reached
_STALLED_AFTER = 600.0  # seconds that a batch may take


def from_services(make: Callable[[range], tf.data.Dataset], steps: range, services: Sequence[str]) -> tf.data.Dataset:
    """Lets services make the batches of a run of steps, and joins these in order.

    Args:
        make: from steps, of any stride, to their batches; without Python functions.
        steps: that are wanted.
        services: ``host:port`` of each.

    Returns:
        What ``make(steps)`` is. It fails rather than leave out or repeat a batch.

    Raises:
        UsageError: if a service cannot be reached.
    """
    for service in services:
        if not _answers(service):
            raise UsageError(
                f"data.service={'|'.join(services)}: nothing answers at {service}. Start it with --mode=data_service "
                "and use the address that it prints, or make batches in this process: data.service=none"
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
                    compression=None,  # batches hardly become smaller
                )
            )
        )
    turns = tf.data.Dataset.range(len(parts)).repeat()
    joined = tf.data.Dataset.choose_from_datasets(parts, turns, stop_on_empty_dataset=True)

    @tf.autograph.experimental.do_not_convert
    def in_order(expected: tf.Tensor, numbered: tuple[tf.Tensor, Any]) -> Any:
        number, batch = numbered
        tf.debugging.assert_equal(number, expected, "a batch came out of turn")
        return batch

    expected = tf.data.Dataset.range(steps.start, steps.stop, steps.step)
    batches = tf.data.Dataset.zip((expected, joined)).map(in_order)
    return batches.apply(tf.data.experimental.assert_cardinality(len(steps)))


def next_batch(batches: Iterator[Any], services: Sequence[str]) -> Any:
    """``next(batches)``; where services make them, without waiting for ever for one that is gone.

    A service that is started again knows nothing of the run, which has to go on from its last checkpoint.

    Raises:
        DataError: if a service cannot be reached any more, or a batch takes more than ten minutes.
    """
    if not services:
        return next(batches)
    result: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def fetch() -> None:
        try:
            result.put((next(batches), None))
        except BaseException as error:
            result.put((None, error))

    threading.Thread(target=fetch, daemon=True).start()  # TensorFlow itself waits for an hour, and cannot be stopped
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
    where = f"at {', '.join(silent)} cannot be reached any more" if silent else f"at {', '.join(services)} stalls"
    return DataError(
        f"The tf.data service {where}: no batch came for {seconds:.0f} s. Start it again with --mode=data_service; the "
        "same command then goes on from the last checkpoint. Its address may change: data.service."
    )


def _answers(service: str) -> bool:
    host, _, port = service.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS):
            return True
    except OSError:
        return False


class Services:
    """Services in this process, each a dispatcher with a worker, that run until it ends.

    Args:
        count: how many.
        host: the name of this machine, by which those that train reach it.
        port: the first of ``2 * count`` ports in a row, first those of dispatchers; 0 for any that are free.

    Attributes:
        addresses: what ``data.service`` takes.

    Raises:
        UsageError: if a port is taken.
    """

    def __init__(self, count: int, *, host: str = "localhost", port: int = 0) -> None:
        service = tf.data.experimental.service
        with contextlib.suppress(RuntimeError):  # too late where TensorFlow is in use already
            tf.config.set_visible_devices([], "GPU")
        self.addresses: list[str] = []
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
                self.addresses.append(f"{host}:{local.rpartition(':')[2]}")
        except (tf.errors.OpError, RuntimeError) as error:
            raise UsageError(
                f"Cannot start {count} services on the {2 * count} ports from {port} on: {plain_message(error)}. Name "
                "other ports with --port, or --port=0 for any."
            ) from error
