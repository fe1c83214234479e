"""What a run leaves to read: ``metrics.jsonl``, ``metrics.csv`` and TensorBoard events."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from effnetv2_keras import plots
from effnetv2_keras.training.run_folder import RunFolder, write_atomically
from effnetv2_keras.training.trackers import Trackers

_SHEET_COLUMNS = 8

_SEVERAL_LABELS = (
    "map", "global_ap", "precision_at_1", "precision_at_5", "recall_at_1", "recall_at_5",
    "map_error", "global_ap_error",
)  # fmt: skip
FIELDS = (
    "kind", "step", "epoch", "stage", "image_size", "seconds", "loss", "top1", "lr", "gradient_norm",
    "images_per_second", "compile_seconds", "input_wait", "memory_mb", "num_images", "eval_loss", "top5",
    "eval_loss_ema", "top1_ema", "top5_ema", "ema_gap",
    *_SEVERAL_LABELS, *(f"{name}_ema" for name in _SEVERAL_LABELS),
)  # fmt: skip
"""Columns. ``kind`` is ``train`` (means over the steps since the last row) or ``eval``; ``seconds`` counts the
training time of the whole run, interruptions left out; of ``compile_seconds``, ``input_wait`` and ``memory_mb``, see
``observation.StepClock``; ``ema_gap`` is by how much the averaged weights are ahead of the raw ones."""


class MetricsLog:
    """Appends rows; a resumed run first drops those after its checkpoint, which it is about to repeat.

    Args:
        folder: the run's.
        step: finished steps.
        tensorboard: also write event files.
        trackers: are told each row too.
    """

    def __init__(self, folder: RunFolder, *, step: int, tensorboard: bool, trackers: Trackers | None = None) -> None:
        self._trackers = trackers
        self._jsonl, self._csv = folder / "metrics.jsonl", folder / "metrics.csv"
        self._writer: Any | None = tf.summary.create_file_writer(str(folder.path)) if tensorboard else None
        self.rows = folder.metrics(up_to_step=step)
        write_atomically(self._jsonl, "".join(json.dumps(row) + "\n" for row in self.rows))
        with self._csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(self.rows)

    @property
    def seconds(self) -> float:
        """Training time so far."""
        return self.rows[-1]["seconds"] if self.rows else 0.0

    def add(self, row: dict[str, Any]) -> None:
        """Appends one row, whose keys are among ``FIELDS``."""
        self.rows.append(row)
        with self._jsonl.open("a") as file:
            file.write(json.dumps(row) + "\n")
        with self._csv.open("a", newline="") as file:
            csv.DictWriter(file, FIELDS).writerow(row)
        if self._writer:
            with self._writer.as_default():
                for name, value in row.items():
                    if name not in ("kind", "step"):
                        tf.summary.scalar(f"{row['kind']}/{name}", value, step=row["step"])
            self._writer.flush()
        if self._trackers:
            self._trackers.log(row)

    def add_sheet(self, images: npt.NDArray[Any], title: str, *, step: int) -> None:
        """Shows in TensorBoard, if it is on, what the network is shown.

        Args:
            images: ``[N, S, S, 3]`` of values 0..255; the first 16 are drawn.
            title: what they are.
            step: of the batch.
        """
        if self._writer is None:
            return
        sheet = io.BytesIO()
        rows = [images[start : start + _SHEET_COLUMNS] for start in (0, _SHEET_COLUMNS) if start < len(images)]
        plots.plot_image_sheet(rows, [title, ""], sheet)
        with self._writer.as_default():
            tf.summary.image("train/images", tf.image.decode_png(sheet.getvalue(), channels=3)[tf.newaxis], step=step)
        self._writer.flush()

    def last_evaluation(self) -> dict[str, Any]:
        """The newest ``eval`` row, or an empty one."""
        return next((row for row in reversed(self.rows) if row["kind"] == "eval"), {})
