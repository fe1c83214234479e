"""Runs of benchmarks that each have one processor core of their own."""

from __future__ import annotations

import concurrent.futures
import os
import queue
from collections.abc import Callable, Sequence
from typing import TypeVar

Job = TypeVar("Job")


def use_core(core: int) -> None:
    """Binds this process to one core, and lets TensorFlow use one thread. Call it before TensorFlow computes."""
    os.sched_setaffinity(0, {core})
    import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow

    # isort: split
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def run_on_cores(jobs: Sequence[Job], cores: Sequence[int], run: Callable[[Job, int], None]) -> None:
    """Runs all jobs in their order, one at a time on each core.

    Args:
        jobs: the jobs.
        cores: numbers of the cores.
        run: runs a job on a core and waits for its end; called in a thread.

    Raises:
        Exception: the first error of a job, after the end of the jobs that run. No further jobs begin after it.
    """
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in cores:
        free.put(core)

    def run_on_free_core(job: Job) -> None:
        core = free.get()
        try:
            run(job, core)
        finally:
            free.put(core)

    pool = concurrent.futures.ThreadPoolExecutor(len(cores))
    try:
        list(pool.map(run_on_free_core, jobs))
    finally:
        pool.shutdown(cancel_futures=True)
