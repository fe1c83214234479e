"""The metrics files of a run: ``metrics.jsonl``, ``metrics.csv`` and TensorBoard events."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy.typing as npt
import tensorflow as tf
from absl import logging

from effnetv2_keras.reporting import plots
from effnetv2_keras.reporting.event_files import write_image, write_scalar
from effnetv2_keras.reporting.trackers import Trackers
from effnetv2_keras.runs.disk import append_whole, full_disk_explained, write_atomically
from effnetv2_keras.runs.metrics_rows import METRICS_FILE, read_rows, set_aside
from effnetv2_keras.runs.run_folder import RunFolder

_SHEET_COLUMNS = 8

_SEVERAL_LABELS = (
    "map", "global_ap", "precision_at_1", "precision_at_5", "recall_at_1", "recall_at_5",
    "map_error", "global_ap_error", "macro_recall",
)  # fmt: skip
_OF_CLASSES = ("macro_precision", "macro_f1", "balanced_accuracy", "ece")
FIELDS = (
    "kind", "step", "epoch", "stage", "image_size", "seconds", "processor_seconds", "loss", "top1", "lr", "lr_scale",
    "gradient_norm", "skipped_steps", "images_per_second", "compile_seconds", "input_wait", "memory_mb", "num_images",
    "eval_loss", "top5", "eval_loss_ema", "top1_ema", "top5_ema", "ema_gap",
    *_SEVERAL_LABELS, *(f"{name}_ema" for name in _SEVERAL_LABELS),
    *_OF_CLASSES, *(f"{name}_ema" for name in _OF_CLASSES),
)  # fmt: skip
"""Columns of the metrics files.

- ``kind``: ``train`` (means over the steps since the last row), ``eval`` or ``rollback``;
- ``gradient_norm``: mean over the steps whose gradient is finite;
- ``skipped_steps``: number of steps since the last row that loss scaling skipped, because their gradient overflowed
  (``precision.policy=mixed_float16``);
- ``seconds``: training time of the run without interruptions, evaluations and checkpoints;
- ``processor_seconds``: processor time of the process in these seconds, over all its threads. Other work on the machine
  changes it less than ``seconds``;
- ``compile_seconds``, ``input_wait`` and ``memory_mb``: see ``timing.StepClock``;
- ``ema_gap``: primary metric of the moving average of the weights minus that of the raw weights.
"""


class MetricsLog:
    """Appends rows to the metrics files. A resumed run first drops the rows after its checkpoint, which it repeats.

    Args:
        folder: folder of the run.
        step: number of finished steps.
        tensorboard: whether to write event files.
        write: False keeps the rows only in memory, for workers that do not write.
        trackers: experiment trackers that receive each row.

    Attributes:
        rows: all rows, oldest first.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        step: int,
        tensorboard: bool,
        write: bool = True,
        trackers: Trackers | None = None,
    ) -> None:
        self._trackers, self._write = trackers, write
        self._jsonl, self._csv = folder / METRICS_FILE, folder / "metrics.csv"
        self._writer: Any | None = tf.summary.create_file_writer(str(folder.path)) if tensorboard else None
        rows, damaged = read_rows(self._jsonl)
        self.rows = [row for row in rows if row["step"] <= step]
        if not write:
            return
        if step and not self.rows:
            logging.warning("%s has no rows of the first %d steps; the log begins anew.", self._jsonl, step)
        with full_disk_explained(self._jsonl):
            if damaged:
                set_aside(self._jsonl, damaged)
            write_atomically(self._jsonl, "".join(map(_as_json, self.rows)))
            write_atomically(self._csv, ",".join(FIELDS) + "\r\n" + "".join(map(_as_csv, self.rows)))

    @property
    def rollbacks(self) -> int:
        """Number of rollbacks of the run."""
        return sum(row["kind"] == "rollback" for row in self.rows)

    @property
    def lr_scale(self) -> float:
        """Factor of the learning rate since the last rollback; 1 without a rollback."""
        return next((row["lr_scale"] for row in reversed(self.rows) if row["kind"] == "rollback"), 1.0)

    @property
    def seconds(self) -> float:
        """Training time so far, seconds."""
        return self.rows[-1].get("seconds", 0.0) if self.rows else 0.0

    @property
    def processor_seconds(self) -> float:
        """Processor time of the training so far, seconds; 0 if an earlier version wrote the last row."""
        return self.rows[-1].get("processor_seconds", 0.0) if self.rows else 0.0

    def add(self, row: dict[str, Any]) -> None:
        """Appends one row, whose keys must be in ``FIELDS``.

        Raises:
            NoRoomError: if the disk is full; the files then contain no part of the row.
        """
        self.rows.append(row)
        if not self._write:
            return
        with full_disk_explained(self._jsonl):
            append_whole(self._jsonl, _as_json(row))
            append_whole(self._csv, _as_csv(row))
            if self._writer:
                with self._writer.as_default():
                    for name, value in row.items():
                        if name not in ("kind", "step"):
                            write_scalar(f"{row['kind']}/{name}", value, step=row["step"])
                self._writer.flush()
        if self._trackers:
            self._trackers.log(row)

    def add_sheet(self, images: npt.NDArray[Any], title: str, *, step: int) -> None:
        """Writes a sheet of images to TensorBoard, if event files are written.

        Args:
            images: ``[N, S, S, 3]``, pixels in 0..255; the sheet has the first 16.
            title: title of the sheet.
            step: step of the batch.
        """
        if self._writer is None:
            return
        sheet = io.BytesIO()
        rows = [images[start : start + _SHEET_COLUMNS] for start in (0, _SHEET_COLUMNS) if start < len(images)]
        if not plots.try_to_draw(plots.plot_image_sheet, rows, [title, ""], sheet):
            return
        with self._writer.as_default():
            write_image("train/images", tf.io.decode_png(sheet.getvalue(), channels=3).numpy(), step=step)
        self._writer.flush()

    def last_evaluation(self) -> dict[str, Any]:
        """Returns the newest ``eval`` row; empty if there is none."""
        return next((row for row in reversed(self.rows) if row["kind"] == "eval"), {})

    def evaluations_since(self, step: int) -> int:
        """Returns the number of steps after ``step`` that were evaluated."""
        return len({row["step"] for row in self.rows if row["kind"] == "eval" and row["step"] > step})


def _as_json(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _as_csv(row: dict[str, Any]) -> str:
    line = io.StringIO()
    csv.DictWriter(line, FIELDS, extrasaction="ignore").writerow(row)
    return line.getvalue()
