"""TensorFlow Lite: every quantisation, in its own interpreter."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from effnetv2_keras.data.splits import Splits
from effnetv2_keras.export import Comparison, ExportError, ExportReport, export_model, tflite
from effnetv2_keras.export.tflite import TfliteExporter
from effnetv2_keras.runs.trained import Trained
from tests.export.exports import block_images, block_splits, ending_in, rebuilt
from tests.images import write_classes
from tests.made_runs import EVAL_SIZE


@pytest.fixture(scope="module")
def splits() -> Splits:
    return block_splits(train=30, evaluation=12)


@pytest.fixture(scope="module")
def reports(trained: Trained, splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExportReport]:
    folder = tmp_path_factory.mktemp("export")
    return {
        quantize: export_model(trained, folder / quantize, format_name="tflite", quantize=quantize, splits=splits)
        for quantize in TfliteExporter.quantizations
    }


def interpret(path: pathlib.Path, images: np.ndarray) -> tuple[Any, np.ndarray]:
    """Runs a file as its user would, one image at a time."""
    interpreter = tflite.make_interpreter(str(path / "model.tflite"))
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    logits = []
    for image in images:
        interpreter.set_tensor(source["index"], image[None].astype(source["dtype"]))
        interpreter.invoke()
        logits.append(interpreter.get_tensor(target["index"])[0])
    return interpreter, np.stack(logits)


# On six weights' rounding the tiny network differs by 7e-7, 7e-4, 9e-3 and 4e-2: each must show, and no more than that.
@pytest.mark.parametrize(
    ("quantize", "least", "most"),
    [("none", 0, 1e-5), ("float16", 1e-5, 5e-3), ("dynamic", 1e-3, 5e-2), ("int8", 5e-3, 0.2)],
)
def test_computes_what_the_network_does(
    trained: Trained, reports: dict[str, ExportReport], quantize: str, least: float, most: float
):
    images = block_images(8)
    expected = trained.model(images, training=False).numpy()
    assert np.ptp(expected, axis=0).max() > 0.3 * np.abs(expected).max(), "the images must matter"
    interpreter, logits = interpret(reports[quantize].path, images)
    assert least <= np.abs(logits - expected).max() / np.abs(expected).max() <= most
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["images"], "outputs": ["logits"]}}
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert source["shape"].tolist() == [1, EVAL_SIZE, EVAL_SIZE, 3]
    assert (source["dtype"], target["dtype"]) == (np.uint8 if quantize == "int8" else np.float32, np.float32)


def test_int8_computes_in_whole_numbers_and_takes_bytes_as_pixels(reports: dict[str, ExportReport]):
    interpreter, _ = interpret(reports["int8"].path, block_images(1))
    assert interpreter.get_input_details()[0]["quantization"] == (1.0, 0)
    (target,) = interpreter.get_output_details()
    floats = [detail["index"] for detail in interpreter.get_tensor_details() if detail["dtype"] == np.float32]
    assert floats == [target["index"]], "only the logits"


def test_quantised_weights_are_smaller(reports: dict[str, ExportReport]):
    megabytes = {quantize: report.megabytes for quantize, report in reports.items()}
    assert max(megabytes["float16"], megabytes["dynamic"], megabytes["int8"]) < 0.8 * megabytes["none"]


def test_only_int8_is_compared_on_evaluation_images(reports: dict[str, ExportReport], splits: Splits):
    counted = {quantize: report.comparison.num_images for quantize, report in reports.items()}
    assert counted == {"none": 0, "float16": 0, "dynamic": 0, "int8": splits.evaluation.num_examples}
    assert 11 <= reports["int8"].comparison.same_top1 <= 12


def test_the_loaded_export_takes_any_number_of_images(trained: Trained, reports: dict[str, ExportReport]):
    runtime, images = TfliteExporter.load(reports["none"].path), block_images(3)
    for count in (1, 3, 2):
        expected = trained.model(images[:count], training=False)
        np.testing.assert_allclose(runtime(images[:count]), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("changes", [{"model__include_preprocessing": False}, {"precision__policy": "mixed_bfloat16"}])
def test_takes_pixels_and_computes_in_float32_whatever_the_network(
    trained: Trained, changes: dict[str, object], tmp_path: pathlib.Path
):
    export_model(rebuilt(trained, **changes), tmp_path / "lite", format_name="tflite")
    images = block_images(2)
    expected = trained.model(images, training=False).numpy()
    np.testing.assert_allclose(interpret(tmp_path / "lite", images)[1], expected, atol=1e-5 * np.abs(expected).max())


def test_int8_draws_its_images_from_the_run_s_own_data(trained: Trained, tmp_path: pathlib.Path):
    write_classes(tmp_path / "photos", {"red": 8, "blue": 8})
    (tmp_path / "photos" / "red" / "broken.jpg").write_bytes(b"no image")
    exporter = TfliteExporter(
        rebuilt(trained, data__data_dir=str(tmp_path / "photos"), data__holdout=0.25), EVAL_SIZE, quantize="int8"
    )
    images = [image for (image,) in exporter._calibration()]
    assert len(images) == 12
    assert (images[0].min(), images[0].max(), images[0].dtype, images[0].shape) == (0, 255, np.float32, (1, 40, 40, 3))
    red_first = [float(image[..., 0].mean() > image[..., 2].mean()) for image in images]
    assert red_first not in (sorted(red_first), sorted(red_first, reverse=True)), "not one class first"


def test_int8_without_data_says_what_to_do(trained: Trained, tmp_path: pathlib.Path):
    lost = rebuilt(trained, data__data_dir="/nowhere")
    with pytest.raises(ExportError, match=r"cannot be opened: --data_dir=/nowhere: .*with --data_dir, or use --quant"):
        export_model(lost, tmp_path / "lite", format_name="tflite", quantize="int8")
    assert not list(tmp_path.iterdir())


def test_int8_with_unreadable_images_only_says_so(trained: Trained, tmp_path: pathlib.Path):
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image")
    exporter = TfliteExporter(rebuilt(trained, data__data_dir=str(tmp_path / "photos")), EVAL_SIZE, quantize="int8")
    with pytest.raises(ExportError, match="no image of the run's data can be decoded"):
        list(exporter._calibration())


def test_an_int8_network_that_sees_other_classes_is_refused(
    trained: Trained, reports: dict[str, ExportReport], splits: Splits
):
    other = ending_in(trained, lambda logits: -logits)
    exporter = TfliteExporter(other, EVAL_SIZE, quantize="int8", splits=splits)
    comparison = exporter.compare(reports["int8"].path)
    assert comparison.same_top1 == 0
    with pytest.raises(ExportError, match="the same top-1 on only 0 of 12 evaluation images"):
        exporter._check(comparison)


def test_too_little_agreement_is_refused(trained: Trained):
    exporter = TfliteExporter(trained, EVAL_SIZE, quantize="int8")
    with pytest.raises(ExportError, match=r"the same top-1 on only 10 of 12 evaluation images.*--quantize=dynamic"):
        exporter._check(Comparison(0.1, 10, 12))
    exporter._check(Comparison(0.1, 11, 12))
