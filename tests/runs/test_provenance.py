"""The provenance of a run: what a resumed run reads differently is told."""

from __future__ import annotations

import pytest
import tensorflow as tf

from effnetv2_keras.runs.provenance import note_provenance, read_provenance
from effnetv2_keras.runs.run_folder import RunFolder

CPU = tf.distribute.OneDeviceStrategy("/cpu:0")
DECODED, JPEG = "9 decoded copies of 56 px", "9 JPEG copies of 56 px"


@pytest.mark.parametrize(
    ("before", "now", "is_told"), [(DECODED, JPEG, True), (DECODED, DECODED, False), ("", JPEG, False)]
)
def test_a_resumed_run_that_reads_other_images_is_told(tmp_path, caplog, before, now, is_told):
    """A run of an earlier version did not say what it read."""
    folder = RunFolder(tmp_path)
    note_provenance(folder, CPU, before)
    note_provenance(folder, CPU, now)
    assert read_provenance(folder)["training images"] == now
    told = f"began with {DECODED} and goes on with {JPEG}, so it will not be exactly as without the interruption"
    assert (told in caplog.text) is is_told
