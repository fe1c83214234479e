"""ONNX, in ONNX Runtime."""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import pytest

from effnetv2_keras.errors import PackageMissing
from effnetv2_keras.export import export_model
from effnetv2_keras.runs.trained import Trained
from tests.export.exports import block_images, rebuilt


@pytest.mark.parametrize(
    "changes", [{}, {"model__include_preprocessing": False}, {"precision__policy": "mixed_bfloat16"}]
)
def test_runs_in_onnx_runtime(trained: Trained, changes: dict[str, object], tmp_path: pathlib.Path):
    import onnxruntime

    report = export_model(rebuilt(trained, **changes), tmp_path / "onnx", format_name="onnx")
    assert report.comparison.largest_difference <= 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    assert (source.name, source.type, source.shape[1:]) == ("images", "tensor(float)", [40, 40, 3])
    assert [source.shape[0], *session.get_outputs()[0].shape] == ["batch", "batch", len(trained.class_names)]
    for count in (1, 3):
        images = block_images(count)
        expected = trained.model(images, training=False).numpy()
        (logits,) = session.run(["logits"], {"images": images.astype(np.float32)})
        np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


def test_says_what_is_not_installed(trained: Trained, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(
        PackageMissing,
        match=r"--format=onnx needs the package tf2onnx, which is not installed\. Run: pip install .*\[onnx\]",
    ):
        export_model(trained, tmp_path / "onnx", format_name="onnx")
