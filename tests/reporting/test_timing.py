import io

import psutil
import pytest
import rich.console

from effnetv2_keras.progressive import Stage
from effnetv2_keras.reporting.progress import Progress, Stopwatch
from effnetv2_keras.reporting.timing import StepClock, memory_mb


class Time:
    """A clock that the test sets."""

    now = 100.0

    def __call__(self):
        return self.now


def test_time_is_split_into_tracing_waiting_and_steps():
    time = Time()
    clock = StepClock(time)

    def step(wait, work, first=False):
        with clock.waiting():
            time.now += wait
        with clock.stepping(first=first):
            time.now += work

    step(5, 30, first=True)
    assert clock.row().items() >= {"compile_seconds": 30.0, "input_wait": 0.0}.items()  # there is only the first step
    step(5, 30, first=True)
    step(1, 2)
    step(2, 5)
    assert clock.row().items() >= {"compile_seconds": 30.0, "input_wait": 0.3}.items()
    step(1, 0)
    time.now += 3  # the device is still busy after the step was submitted
    assert clock.row().items() >= {"compile_seconds": 0.0, "input_wait": 0.25}.items()


def test_memory_is_that_of_the_process_if_devices_do_not_report_it():
    resident = psutil.Process().memory_info().rss / 2**20
    assert memory_mb(["/job:localhost/replica:0/task:0/device:CPU:0"]) == pytest.approx(resident, rel=0.2)


def test_memory_is_the_largest_peak_of_the_devices(monkeypatch):
    peaks = {"GPU:0": 3 * 2**20, "GPU:1": 7 * 2**20}
    monkeypatch.setattr("tensorflow.config.experimental.get_memory_info", lambda device: {"peak": peaks[device]})
    assert memory_mb(list(peaks)) == 7.0


@pytest.mark.parametrize(("share", "shown"), [(0.43, True), (0.2, False)])
def test_an_input_bound_run_says_so(share, shown):
    output = io.StringIO()
    stage = Stage(0, 0, 10, 32, 5.0, 0.0, 0.0, 0.1)
    progress = Progress([stage], rich.console.Console(file=output, width=200))
    row = {"step": 5, "images_per_second": 10.0, "loss": 1.0, "lr": 0.1, "input_wait": share}
    progress.train_row(stage, row, 1.0)
    assert ("input-bound (43 % of the time waiting for images)" in output.getvalue()) == shown


def test_a_resumed_stopwatch_goes_on_without_what_was_paused(monkeypatch):
    clock, processor = Time(), Time()
    monkeypatch.setattr("time.perf_counter", clock)
    monkeypatch.setattr("time.process_time", processor)
    watch = Stopwatch(20.0, 5.0)
    clock.now += 10
    processor.now += 4
    with watch.paused():
        clock.now += 100
        processor.now += 50
    assert (watch.seconds, watch.processor_seconds) == (30.0, 9.0)
