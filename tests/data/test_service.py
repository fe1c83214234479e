"""Batches from real service processes on this machine: bit for bit the same, or an error with a clear message."""

import contextlib
import gc
import pathlib
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.config import Config, DataConfig
from effnetv2_keras.data import service as service_lib
from effnetv2_keras.data.pipeline import InputPlan, train_input
from effnetv2_keras.data.service import Services, next_batch
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.errors import ConfigError, UsageError
from effnetv2_keras.modes import data_service as mode
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.options import Options
from effnetv2_keras.progressive import Stage
from effnetv2_keras.training.interruption import StopRequest
from tests.images import write_classes
from tests.records import example, pictures, write_imagenet, write_shards
from tests.short_runs import ONE_STAGE, tiny_config, train_tiny
from tests.training.test_loop import assert_equal_runs
from tests.training.test_sources_in_training import lists, multi_label_tfrecord, prepared_tfds, tfrecord

ROOT = pathlib.Path(__file__).parents[2]
FREE_PORTS = "--port=0"


@contextlib.contextmanager
def running(workers=1, port=FREE_PORTS):
    """``main.py --mode=data_service``, and the addresses that it prints."""
    command = [sys.executable, "main.py", "--mode=data_service", port, f"--service_workers={workers}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process, tuple(process.stdout.readline().strip().removeprefix("--hparam_str=data.service=").split("|"))
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def three_services():
    with running(workers=3) as (_, addresses):
        yield addresses
        gc.collect()  # iterators that outlive a service try for a minute to tell it that they end


@pytest.fixture(scope="module")
def digits_source():
    return open_splits(DataConfig(source="digits")).train


def dataset(source, services=(), *, first_step=0, steps=7, replicas=1, workers=(1, 0), unreadable=None, **data):
    plan = InputPlan(DataConfig(service=services, **data), 4, None, unreadable or UnreadableImages("error"))
    stage = Stage(0, 0, steps, 16, 10.0, 0.4, 0.4, 0.1)
    input_fn = train_input(source, plan, stage=stage, seed=3, first_step=first_step)
    return input_fn(tf.distribute.InputContext(*workers, replicas))


def batches(source, services=(), **settings):
    found = list(dataset(source, services, **settings).as_numpy_iterator())
    assert found
    return found


def assert_same(left, right):
    assert len(left) == len(right)
    for one, two in zip(left, right):
        assert set(one) == set(two) == {"image", "label", "weight"}
        for name, value in one.items():
            np.testing.assert_array_equal(value, two[name])


def folder(root):
    write_classes(root / "train", {"red": 5, "blue": 6})
    write_classes(root / "val", {"red": 1, "blue": 1})
    return {"source": "folder", "data_dir": str(root)}


def digits(root):
    return {"source": "digits"}


@pytest.mark.parametrize(
    "make",
    [
        tfrecord,
        *(
            pytest.param(make, marks=pytest.mark.slow)
            for make in (folder, lists, digits, multi_label_tfrecord, prepared_tfds)
        ),
    ],
)
def test_batches_of_services_are_those_of_this_process(tmp_path, three_services, make):
    source = open_splits(DataConfig(**make(tmp_path))).train
    whole = batches(source, augment="none")
    assert len(whole) == 7
    assert_same(batches(source, three_services, first_step=1, augment="none"), whole[1:])


@pytest.mark.slow
def test_services_draw_rare_classes_more_often_too(tmp_path, three_services):
    source, settings = open_splits(DataConfig(**folder(tmp_path))).train, {"augment": "none", "balanced_sampling": 1}
    assert_same(batches(source, three_services, first_step=1, **settings), batches(source, **settings)[1:])


@pytest.mark.slow
def test_services_make_the_same_batches_from_any_step_in_any_number(digits_source, three_services):
    whole = batches(digits_source)
    assert_same(batches(digits_source, three_services[:2], first_step=3, steps=6), whole[3:6])
    whole = batches(digits_source, augment="none")
    assert_same(batches(digits_source, three_services[:1], augment="none"), whole)
    found = batches(digits_source, three_services, first_step=5, augment="none")  # fewer batches than services
    assert_same(found, whole[5:])


@pytest.mark.slow
def test_several_replicas_and_workers_have_their_share(tmp_path, three_services):
    source = open_splits(DataConfig(**tfrecord(tmp_path))).train
    for workers in ((1, 0), (2, 1)):
        shares = {"replicas": 2, "workers": workers, "augment": "none"}
        assert_same(batches(source, three_services[:2], **shares), batches(source, **shares))


@pytest.mark.slow
def test_a_run_that_started_without_services_resumes_with_them(tmp_path, three_services):
    changes = f"{ONE_STAGE},train.epochs=2,runtime.checkpoint_every=2"  # six steps
    before = tiny_config(changes, **tfrecord(tmp_path))
    train_tiny(before, tmp_path / "local")
    with pytest.MonkeyPatch.context() as patch:
        steps = iter(range(100))

        def crash_in_the_fourth_step(batches, services):
            if next(steps) == 3:
                raise MemoryError
            return next_batch(batches, services)

        patch.setattr("effnetv2_keras.training.input.next_batch", crash_in_the_fourth_step)
        with pytest.raises(MemoryError):
            train_tiny(before, tmp_path / "moved")
    train_tiny(before.override({"data.service": "|".join(three_services)}), tmp_path / "moved")
    assert_equal_runs(tmp_path / "local", tmp_path / "moved")


def test_problems_are_reported_in_the_process_that_trains(tmp_path, three_services, caplog):
    settings = folder(tmp_path)
    source = open_splits(DataConfig(**settings)).train
    broken = sorted(tmp_path.glob("train/red/*"))[1]
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(DataError, match=f"^Cannot decode {broken}: it is not a complete"):
        take_all(source, three_services[:2], UnreadableImages("error"))
    skipping = UnreadableImages("skip")
    found = batches(source, three_services[1:], unreadable=skipping, augment="none")
    assert skipping.names == [str(broken)]
    assert caplog.text.count(str(broken)) == 1
    assert_same(found, batches(source, unreadable=UnreadableImages("skip"), augment="none"))
    assert 0 < sum((batch["weight"] == 0).sum() for batch in found) < 5


def take_all(source, services, unreadable, **settings):
    take_rest(
        iter(dataset(source, services, unreadable=unreadable, augment="none", **settings)), source, services, unreadable
    )


def take_rest(found, source, services, unreadable):
    with unreadable.explained(source, services):
        while next_batch(found, services) is not None:
            pass


def test_what_is_wrong_with_records_is_named(tmp_path, three_services):
    root = write_imagenet(tmp_path, shards=1)
    image, _ = pictures(1)[0]
    bad = example(image__encoded=image, image__class__label=9)
    write_shards(tmp_path, "train", [*[example(image__encoded=image, image__class__label=1)] * 9, bad], 1)
    source = open_splits(DataConfig(source="tfrecord", data_dir=str(root), num_classes=3)).train
    with pytest.raises(DataError, match=r"^Record 9 of .*train-00000-of-00001 has the label 9, but with 3 classes"):
        take_all(source, three_services[:2], UnreadableImages("skip"), steps=20)
    path = pathlib.Path(source.extents()[0][0])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=rf"^{path} is damaged at record \d+: .*data.unreadable=skip applies to images"):
        take_all(source, three_services[:2], UnreadableImages("skip"), steps=20)


def test_a_missing_service_is_reported_at_once(digits_source, three_services):
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(
        UsageError, match=rf"no service answers at localhost:{port}. Start one with --mode=data_service"
    ):
        dataset(digits_source, (three_services[0], f"localhost:{port}"))


def test_a_port_in_use_is_reported():
    with socket.create_server(("0.0.0.0", 0)) as taken, pytest.raises(UsageError, match="--port=0 for any"):
        Services(1, port=taken.getsockname()[1])


@pytest.mark.parametrize("address", ["localhost", "grpc://localhost:50", "a:b", "a:1,b:2"])
def test_addresses_are_host_and_port(address):
    with pytest.raises(ConfigError, match=r"is not an address; write host:port, or host:port\|host:port for several"):
        Config().override({"data.service": address})


def test_services_do_not_make_a_different_run():
    some = Config().override({"data.service": "a:1|[::1]:2"})
    assert some.data.service == ("a:1", "[::1]:2")
    assert Config.from_yaml(some.to_yaml()) == some
    assert some.override({"data.service": "none"}) == Config()
    assert not Config().differences(some)
    assert Config().differences(Config().override({"data.source": "csv"}))


@pytest.mark.slow
def test_a_service_that_dies_ends_the_run_with_a_message(monkeypatch, digits_source):
    """The run ends whether the service stays away or another takes its place; a signal ends that one cleanly."""
    monkeypatch.setattr(service_lib, "_GONE_AFTER", 3.0)
    unreadable = UnreadableImages("error")
    port = f"--port={free_port()}"
    with running(port=port) as (process, services):
        runs = [iter(dataset(digits_source, services, steps=10**6, augment="none")) for _ in range(2)]
        for found in runs:
            next_batch(found, services)
        process.kill()
        process.wait()
        with pytest.raises(DataError, match=r"service at localhost:\d+ can no longer be reached: .*the same command"):
            take_rest(runs[0], digits_source, services, unreadable)
    with running(port=port) as (process, _):
        with pytest.raises(DataError, match=r"service at localhost:\d+ failed: .*the same command"):
            take_rest(runs[1], digits_source, services, unreadable)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda batches: batches.flat_map(lambda *item: tf.data.Dataset.from_tensors(item).repeat(2)), "out of order"),
        (lambda batches: batches.skip(1), "out of order"),
        (lambda batches: batches.take(2), "was expected to contain 4 elements but contained only 2"),
    ],
)
def test_batches_that_come_twice_or_not_at_all_are_refused(monkeypatch, digits_source, spoil, message):
    monkeypatch.setattr(tf.data.experimental.service, "distribute", lambda **_: spoil)
    unreadable = UnreadableImages("error")
    with socket.create_server(("localhost", 0)) as listening:
        address = f"localhost:{listening.getsockname()[1]}"
        with pytest.raises(DataError, match=f"service at {address} failed: .*{message}"):
            take_all(digits_source, (address,), unreadable, steps=4)


def test_a_stalled_service_ends_the_run_with_a_message(monkeypatch):
    monkeypatch.setattr(service_lib, "_LOOK_EVERY", 0.05)
    monkeypatch.setattr(service_lib, "_STALLED_AFTER", 0.2)
    stop = threading.Event()
    with socket.create_server(("localhost", 0)) as listening:  # accepts connections but never answers
        address = f"localhost:{listening.getsockname()[1]}"
        with pytest.raises(
            DataError, match=f"service at {address} has stalled: no batch arrived for 0 s. Start it again"
        ):
            next_batch(iter(stop.wait, True), (address,))
    stop.set()


def test_ctrl_c_ends_a_service_cleanly():
    with running() as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def free_port():
    """The first of two ports in a row that were free a moment ago."""
    for port in range(20_000, 60_000, 101):
        with contextlib.suppress(OSError), socket.create_server(("", port)), socket.create_server(("", port + 1)):
            return port
    raise AssertionError


def test_the_ports_on_which_a_service_listens_are_named(monkeypatch, caplog, capsys):
    """The system lists them as open to every interface."""
    made = []
    monkeypatch.setattr(mode, "Services", lambda *args, **kwargs: made.append(Services(*args, **kwargs)) or made[0])
    monkeypatch.setattr(StopRequest, "wait", lambda _: None)
    options = Options(mode="data_service", port=0)
    mode.run(Invocation(options, None, (), None))
    (services,) = made
    assert f"localhost:{services.ports[0]}" in capsys.readouterr().out
    assert "listen on every network interface of this machine, also with --service_host=localhost" in caplog.text
    assert all(str(port) in caplog.text for port in services.ports)
    listening = [
        line.split()[1].rpartition(":")
        for file in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in pathlib.Path(file).read_text().splitlines()[1:]
    ]
    open_to_all = {int(port, 16) for address, _, port in listening if not address.strip("0")}
    assert set(services.ports) <= open_to_all
