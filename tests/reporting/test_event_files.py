"""Events are the ones that TensorFlow writes with TensorBoard's package, and need no such package."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.reporting.event_files import write_image, write_scalar

PIXELS = np.random.default_rng(0).integers(0, 256, [5, 7, 3], np.uint8)


def events_of(folder: pathlib.Path, write):
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        write()
    writer.close()
    (file,) = folder.iterdir()
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(file))]
    return [(event.step, event.summary) for event in map(tf.compat.v1.Event.FromString, records) if event.summary.value]


def test_the_events_are_those_of_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")

    def ours():
        write_scalar("train/loss", 0.1, step=3)
        write_image("train/images", PIXELS, step=4)

    def theirs():
        tf.summary.scalar("train/loss", 0.1, step=3)
        tf.summary.image("train/images", PIXELS[np.newaxis], step=4)

    found, expected = events_of(tmp_path / "ours", ours), events_of(tmp_path / "theirs", theirs)
    assert len(found) == 2
    assert found == expected


def test_a_curve_is_written_without_tensorboard(tmp_path):
    code = (
        "import sys; sys.modules['tensorboard'] = None\n"
        "import tensorflow as tf\n"
        "from effnetv2_keras.reporting.metrics_log import MetricsLog\n"
        "from effnetv2_keras.runs.run_folder import RunFolder\n"
        "import pathlib\n"
        "log = MetricsLog(RunFolder(pathlib.Path(sys.argv[1])), step=0, tensorboard=True)\n"
        "log.add({'kind': 'train', 'step': 1, 'loss': 0.5})\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    (file,) = tmp_path.glob("events.out.tfevents.*")
    events = [tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))]
    (value,) = [value for event in events for value in event.summary.value]
    assert value.tag == "train/loss"
    assert tf.make_ndarray(value.tensor) == 0.5
