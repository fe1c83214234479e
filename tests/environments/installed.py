"""Uses the installed package as its users do, and prints as JSON what worked: ``python installed.py GOLDEN_NUMBERS``.

``matrix.py`` copies this file and ``filling.py`` into a folder outside of the repository. TensorFlow is imported first,
as in most programs, and no environment variable is set.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import pathlib
import subprocess
import sys
import traceback

import numpy as np
import tensorflow as tf

CLASSES = ("even", "odd")
PIXELS = np.random.default_rng(0).integers(0, 256, [48, 40, 40, 3], np.uint8)


def source():
    from effnetv2_keras import ArraySource

    return ArraySource(PIXELS, np.arange(len(PIXELS)) % len(CLASSES), CLASSES)


def stages(total_steps: int):
    from effnetv2_keras import Ramp, Ramps, plan_stages

    changing = {"image_size": Ramp(24, 32), "dropout_rate": Ramp(0.1, 0.4), "randaug_magnitude": Ramp(2, 8)}
    ramps = Ramps(**changing, mixup_alpha=Ramp(0, 0.2), cutmix_alpha=Ramp(0, 0))
    return plan_stages(ramps, num_stages=2, total_steps=total_steps)


def assert_near(found, expected, tolerance: float) -> None:
    expected = np.asarray(expected)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=tolerance * np.abs(expected).max())


def importing() -> None:
    """Nothing but the package is on top level, and the recipes are in it; the command line starts."""
    import effnetv2_keras

    assert "site-packages" in effnetv2_keras.__file__, effnetv2_keras.__file__
    for name in ("hparams", "main", "tests", "setup"):
        assert importlib.util.find_spec(name) is None, f"{name} is on top level"
    from effnetv2_keras import hparams

    assert hparams.__name__ == "effnetv2_keras.hparams"
    for command in (
        [str(pathlib.Path(sys.executable).with_name("effnetv2"))],
        [sys.executable, "-m", "effnetv2_keras"],
    ):
        planned = subprocess.run(
            [*command, "--mode=plan", "--dataset_cfg=demo"], capture_output=True, text=True, check=False
        )
        assert planned.returncode == 0, planned.stderr[-2000:]
        assert "efficientnetv2-b0: 5,932,122 parameters" in planned.stdout, planned.stdout


def building() -> None:
    """A function of the applications builds a network that runs."""
    from effnetv2_keras import EfficientNetV2B0

    images = PIXELS[:2].astype(np.float32)
    answers = EfficientNetV2B0(weights=None, classes=3, input_shape=(40, 40, 3))(images, training=False)
    assert_near(tf.reduce_sum(answers, 1), [1.0, 1.0], 1e-5)


def golden_logits() -> None:
    """Logits with equal weights are those of the reference environment."""
    from filling import fill_by_hash

    from effnetv2_keras import build_model

    expected = json.loads(pathlib.Path(sys.argv[1]).read_text())["logits"]
    images = np.random.default_rng(0).integers(0, 256, [2, 75, 64, 3]).astype(np.float32)
    model = build_model("efficientnetv2-b0", num_classes=10)
    fill_by_hash(model)
    assert_near(model(images), expected["efficientnetv2-b0"], 1e-5)


def keras_files() -> None:
    """Files that this environment's Keras writes of its own network give the same answers here."""
    from effnetv2_keras import EfficientNetV2B0, load_weights

    theirs = tf.keras.applications.EfficientNetV2B0(weights=None, classes=3, input_shape=(64, 64, 3))
    numbers = np.random.default_rng(1)
    theirs.set_weights(
        [value + numbers.uniform(0, 0.02, value.shape).astype(value.dtype) for value in theirs.get_weights()]
    )
    images = np.random.default_rng(2).integers(0, 256, [2, 64, 64, 3]).astype(np.float32)
    theirs.save_weights("theirs.weights.h5")
    theirs.save("theirs.h5")
    for file in ("theirs.weights.h5", "theirs.h5"):
        ours = EfficientNetV2B0(weights=None, classes=3, input_shape=(64, 64, 3))
        load_weights(ours, file)
        assert_near(ours(images, training=False), theirs(images, training=False), 1e-5)


def training() -> None:
    """Ten steps of the training loop in two stages, with evaluation, checkpoints, events and a report."""
    from effnetv2_keras import BlockSpec, Config, ModelSpec, Splits, train

    blocks = (BlockSpec("fused_mbconv", 1, 3, 1, 4, 8, 8), BlockSpec("mbconv", 1, 3, 2, 4, 8, 16, 0.25))
    network = ModelSpec("small", blocks, head_filters=32, train_size=32, eval_size=32, dropout_rate=0.2)
    config = Config().override({
        "train.epochs": 2, "train.batch_size": 9, "train.optimizer": "adamw", "train.lr_sched": "cosine",
        "train.lr_warmup_epoch": 0, "train.ema_decay": 0.9, "progressive.stages": 2,
        "progressive.image_size.start": 24, "progressive.image_size.end": 32, "eval.isize": 32, "eval.batch_size": 8,
        "runtime.log_every": 1, "runtime.tensorboard": True,
    })  # fmt: skip
    result = train(config.with_network(network), "run", splits=Splits(source(), source()))
    assert 0 <= result["top1"] <= 1
    rows = [json.loads(line) for line in pathlib.Path("run", "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert len(losses) == 10, losses
    assert np.isfinite(losses).all(), losses
    assert "<svg" in pathlib.Path("run", "report.html").read_text()
    assert list(pathlib.Path("run").glob("events.out.tfevents.*"))


def fitting() -> None:
    """A model of the user's own follows the stages in ``fit``."""
    from effnetv2_keras import FollowStages, progressive_dataset

    model = tf.keras.Sequential([
        tf.keras.layers.Rescaling(1 / 255), tf.keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
        tf.keras.layers.GlobalAveragePooling2D(), tf.keras.layers.Dropout(0.9),
        tf.keras.layers.Dense(len(CLASSES), activation="softmax"),
    ])  # fmt: skip
    model.compile("adam", "categorical_crossentropy")
    plan = stages(12)
    dataset = progressive_dataset(source(), plan, batch_size=8, seed=0, steps_per_epoch=3)
    history = model.fit(dataset, steps_per_epoch=3, epochs=4, callbacks=[FollowStages(plan)], verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert len(history.history["loss"]) == 4
    assert abs(model.layers[3].rate - 0.4) < 1e-6, model.layers[3].rate


def exporting() -> None:
    """The SavedModel of the run gives the network's logits in a process without this package."""
    from effnetv2_keras import load_trained
    from effnetv2_keras.export import export_model

    trained = load_trained("run")
    export_model(trained, "saved_model")
    np.save("images.npy", PIXELS[:4])
    code = (
        "import numpy as np, tensorflow as tf; loaded = tf.saved_model.load('saved_model')\n"
        "np.save('logits.npy', loaded.signatures['uint8'](images=tf.constant(np.load('images.npy')))['logits'])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert_near(np.load("logits.npy"), trained.model(PIXELS[:4].astype(np.float32), training=False), 1e-5)


STEPS = {
    "import": importing,
    "build": building,
    "logits": golden_logits,
    "Keras files": keras_files,
    "train": training,
    "fit": fitting,
    "SavedModel": exporting,
}
"""What is tried, by its column in the table of docs/environments.md; ``SavedModel`` exports the run of ``train``."""


def main() -> None:
    """Runs all steps; prints versions, and for each step what went wrong (empty if nothing)."""
    wrong = {}
    for name, step in STEPS.items():
        try:
            step()
            wrong[name] = ""
        except BaseException:  # a step that ends the process would hide the others
            wrong[name] = traceback.format_exc()
    versions = {name: importlib.import_module(name).__version__ for name in ("tensorflow", "keras", "numpy")}
    print(json.dumps({**versions, "wrong": wrong}))


if __name__ == "__main__":
    main()
