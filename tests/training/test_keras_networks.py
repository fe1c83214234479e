import io
import signal

import numpy as np
import PIL.Image
import pytest
import rich.console
import tensorflow as tf

from effnetv2_keras.errors import Interrupted, UsageError
from effnetv2_keras.export import export_model
from effnetv2_keras.models import layers
from effnetv2_keras.models.from_config import build_for
from effnetv2_keras.models.keras_compat import path_of
from effnetv2_keras.models.naming import layers_by_name
from effnetv2_keras.modes import benchmark
from effnetv2_keras.modes.evaluate import evaluate, load_run
from effnetv2_keras.modes.plan import print_plan
from effnetv2_keras.modes.predict import predict
from effnetv2_keras.modes.predictor import load_predictor
from effnetv2_keras.modes.summary import print_summary
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.runs.trained import load_trained
from effnetv2_keras.training.loop import train
from effnetv2_keras.training.selection import moved_variables, split_by_decay
from tests.images import write_classes
from tests.names import names_of
from tests.short_runs import UNCHANGED, tiny_config, undrawn
from tests.training.test_loop import array_splits, final_weights, stop_at

OWN = "keras:tests.own_networks:"


def config_of(name, changes=""):
    return tiny_config(f"{UNCHANGED},model.model_name={OWN}{name},{changes}".rstrip(","))


def trained(config, folder, **arguments):
    with undrawn():
        return train(config, folder, splits=array_splits(), console=rich.console.Console(quiet=True), **arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a whole run, the layers that drop something in its step, and the rates of the stages, in order."""
    folder, dropped, rates = tmp_path_factory.mktemp("keras") / "run", [], []
    zero = layers._RandomZeros._zero

    def noted(self, inputs, rate, mask_shape):
        dropped.append((self.name, "of the stage" if tf.is_tensor(rate) else round(rate, 3)))
        if tf.is_tensor(rate):
            tf.py_function(lambda value: rates.append(round(float(value), 3)), [rate], [])
        return zero(self, inputs, rate, mask_shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers._RandomZeros, "_zero", noted)
        trained(config_of("tiny"), folder)
    return folder, dropped, rates


def test_stages_set_the_dropout_before_the_classifier_alone(run):
    _, dropped, rates = run
    # Before, the network was tried out, at its own rates, when it and its average were built.
    assert dropped[-3:] == [("body_dropout", 0.05), ("depth", 0.1), ("dropout", "of the stage")]
    assert rates == sorted(rates)
    assert set(rates) == {0.1, 0.3}


def test_a_run_learns_stage_by_stage(run):
    rows = [row for row in RunFolder(run[0]).metrics() if row["kind"] == "train"]
    assert {(row["stage"], row["image_size"]) for row in rows} == {(0, 16), (1, 24)}
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.slow
def test_stopped_and_continued_equals_uninterrupted(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 8, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Interrupted):
            trained(config_of("tiny"), tmp_path / "run")
    trained(config_of("tiny"), tmp_path / "run")
    whole, parts = final_weights(run[0]), final_weights(tmp_path / "run")
    assert whole.keys() == parts.keys()
    assert sum("ema_model" in name for name in whole) > 10
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name], err_msg=name)


def test_evaluation_prediction_and_export(run, tmp_path):
    folder, splits, strategy = run[0], array_splits(), tf.distribute.get_strategy()
    result = evaluate(load_run(str(folder), strategy, which="latest"), strategy, splits=splits, folder=tmp_path)
    last = RunFolder(folder).metrics()[-1]
    assert result["top1_ema"] == last["top1_ema"]
    assert result["num_images"] == 13
    PIL.Image.new("RGB", (30, 20), (220, 40, 30)).save(tmp_path / "red.png")
    for name in ("savedmodel", "keras", "tflite"):
        report = export_model(load_trained(folder), tmp_path / name, format_name=name, image_size=24)
        assert report.comparison.largest_difference < 1e-4
    (of_run,), (of_export,) = (
        predict(load_predictor(path), [tmp_path / "red.png"]) for path in (folder, tmp_path / "savedmodel")
    )
    assert {name for name, _ in of_run.classes} == {"red", "green", "blue"}
    assert dict(of_export.classes) == pytest.approx(dict(of_run.classes), abs=1e-5)


@pytest.mark.slow
def test_replicas_accumulation_and_mixed_precision(tmp_path, two_replicas):
    config = config_of("tiny", "train.epochs=1,progressive.stages=1,precision.policy=mixed_bfloat16,train.sync_bn=true")
    result = trained(config, tmp_path / "a", strategy=two_replicas)
    assert 0 <= result["top1"] <= 1
    parts = config_of("tiny", "train.epochs=1,progressive.stages=1,train.accumulation_steps=2,train.optimizer=adamw")
    assert 0 <= trained(parts, tmp_path / "b")["top1"] <= 1


def test_a_network_without_batchnorm_and_dropout_trains(tmp_path):
    assert 0 <= trained(config_of("bare", "train.epochs=1,progressive.stages=1"), tmp_path)["top1"] <= 1


def test_variables_are_named_by_their_layers():
    config = config_of("tiny")
    model = build_for(config, 3)
    decayed, others = ({*names_of(model, part)} for part in split_by_decay(model, ".*(bias|gamma|beta).*"))
    assert decayed == {"conv2d/kernel", "depthwise_conv2d/depthwise_kernel", "conv2d_1/kernel", "logits/kernel"}
    assert {name.rpartition("/")[2] for name in others} == {"bias", "gamma", "beta"}
    assert names_of(model, moved_variables(model, "logits/")) == ["logits/kernel", "logits/bias"]


def test_part_of_a_network_trains():
    config = config_of("tiny", "train.trainable_from=dropout,train.freeze_bn=true")
    model = build_for(config, 3)
    assert [path_of(variable) for variable in model.trainable_variables] == ["logits/kernel", "logits/bias"]
    config = config_of("tiny", "train.trainable_layers=.*conv2d.*,train.freeze_bn=true")
    moving = {name for name, layer in layers_by_name(build_for(config, 3)).items() if layer.trainable}
    assert moving == {"conv2d", "depthwise_conv2d", "conv2d_1"}
    config = config_of("tiny", "train.trainable_from=logit")
    with pytest.raises(
        UsageError, match="trainable_from is 'logit', which is not a layer of 'tiny'; did you mean 'logits'"
    ):
        build_for(config, 3)


def test_plan_and_summary(tmp_path):
    write_classes(tmp_path / "train", {"red": 8, "green": 8, "blue": 8})
    write_classes(tmp_path / "val", {"red": 1, "green": 1, "blue": 1}, seed=1)
    output = io.StringIO()
    console = rich.console.Console(file=output, width=200)
    print_plan(config_of("bare").override({"data.data_dir": str(tmp_path)}), console)
    planned = output.getvalue()
    assert f"{OWN}bare: 251 parameters, 251 trainable; " in planned
    assert "It has no dropout before the classifier: progressive.dropout_rate changes nothing." in planned
    # 3 x 3 kernels have 14 x 14 positions in 16 px, and 22 x 22 in 24 px.
    assert f"{(14 * 14 * 216 + 24) / (22 * 22 * 216 + 24):.0%}" in planned
    print_summary(config_of("tiny"), console)
    shown = output.getvalue()[len(planned) :]
    assert "BatchNorm" in shown
    assert "trainable)" in shown
    assert "changes nothing" not in shown


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "tiny",
            "model.act_fn=relu",
            "model.act_fn applies only to networks of a ModelSpec, not to keras:tests.own_networks:tiny",
        ),
        ("tiny", "model.bn_epsilon=1e-5", "model.bn_epsilon applies only to networks of a ModelSpec"),
        (
            "tiny",
            "runtime.rematerialize=true",
            "runtime.rematerialize applies only to .* set train.accumulation_steps to save memory",
        ),
        (
            "tiny",
            "train.ft_init_ckpt=imagenet",
            "train.ft_init_ckpt applies only to .*, so load them there. Remove the setting.",
        ),
        (
            "bare",
            "model.normalization=centered",
            "model.normalization=centered does not apply to .* normalizes pixels itself",
        ),
        ("bare", "model.include_preprocessing=false", "Use --hparam_str=model.include_preprocessing=true"),
    ],
)
def test_settings_that_cannot_apply(name, changes, message):
    config = config_of(name, changes)
    with pytest.raises(UsageError, match=message):
        build_for(config, 3)


def test_pixels_are_normalised_in_the_network_or_before_it():
    config = config_of("tiny", "model.normalization=centered")
    inside, outside = (build_for(config.override({"model.include_preprocessing": value}), 3) for value in (True, False))
    outside.set_weights(inside.get_weights())
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 20, 20, 3)).astype(np.float32)
    np.testing.assert_allclose(inside(pixels), outside((pixels - 128) / 128), rtol=1e-4, atol=1e-5)


def test_a_fresh_network_can_be_exported_and_timed():
    fresh = benchmark.fresh(config_of("tiny"), num_classes=5)
    assert fresh.spec.name == OWN + "tiny"
    assert fresh.model.output_shape == (None, 5)
