"""PNG plots: the course of a run, sheets of images, accuracy by image size, and confusion matrices."""

from __future__ import annotations

import contextlib
import os
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Callable

import matplotlib
import matplotlib.figure
import matplotlib.font_manager
import numpy as np
import numpy.typing as npt
from absl import logging

from effnetv2_keras.progressive import QUANTITIES, Stage
from effnetv2_keras.reporting.primary_metric import primary_metric
from effnetv2_keras.reporting.stage_summary import summarize_stages

_MOST_NAMES, _MOST_COUNTS = 50, 30
_FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Noto Sans", "Noto Sans Devanagari", "Noto Sans Thai",
    "Arial Unicode MS", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "Malgun Gothic",
    "Nirmala UI", "Leelawadee UI",
)  # fmt: skip
"""Fonts for the letters of class names, the first choice first; those that are installed are used."""
_MOST_NOTES = 12  # stages; with more, the notes would overlap


def try_to_draw(draw: Callable[..., None], *arguments: Any) -> bool:
    """Calls a function that draws; if it fails, logs a warning, because a picture must not cost a result.

    Returns:
        Whether the picture was drawn.
    """
    try:
        draw(*arguments)
    except Exception as error:  # whatever the fonts, the disk or matplotlib do
        logging.warning("Cannot draw a picture (%s): %s: %s", draw.__name__, type(error).__name__, error)
        return False
    return True


@contextlib.contextmanager
def _figure(path: str | os.PathLike[str] | BinaryIO, size: tuple[float, float]) -> Iterator[matplotlib.figure.Figure]:
    """Makes a figure, to be drawn in a ``with`` block, and writes it as PNG, or in the format of another suffix.

    Dollar signs in class names are not mathematics. Letters that no installed font has are drawn as boxes, without a
    warning for each.

    Args:
        path: path of the PNG, or a binary file to write to.
        size: width and height, inches.
    """
    installed = set(matplotlib.font_manager.get_font_names())
    fonts = [name for name in _FONTS if name in installed] or ["sans-serif"]
    with matplotlib.rc_context({"text.parse_math": False, "font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
        yield figure
        has_suffix = isinstance(path, (str, os.PathLike)) and pathlib.Path(path).suffix
        figure.savefig(path, dpi=120, format=None if has_suffix else "png")  # None would append a suffix


def plot_training(rows: Sequence[dict[str, Any]], stages: Sequence[Stage], path: str | os.PathLike[str]) -> None:
    """Writes a PNG with loss, top-1 and stage plan over the training time.

    With several labels per image, mAP takes the place of top-1.

    Args:
        rows: rows of ``metrics.jsonl``.
        stages: the stage plan.
        path: path of the PNG.
    """
    with _figure(path, (9, 8)) as figure:
        loss_axes, score_axes, plan_axes = figure.subplots(3, 1, sharex=True, height_ratios=(2, 2, 1.4))
        trained = [row for row in rows if row["kind"] == "train"]
        evaluated = [row for row in rows if row["kind"] == "eval"]

        def minutes(some: Sequence[dict[str, Any]]) -> list[float]:
            return [row["seconds"] / 60 for row in some]

        losses = [row.get("loss", np.nan) for row in trained]
        loss_axes.plot(minutes(trained), losses, color="tab:blue", label="training loss")
        loss_axes.set_ylabel("loss, nats")
        loss_axes.legend(loc="upper right")
        score, name = primary_metric(evaluated[0] if evaluated else {})
        for key, label, color in ((score, name, "tab:orange"), (f"{score}_ema", f"{name}, EMA", "tab:red")):
            known = [row for row in evaluated if key in row]
            score_axes.plot(minutes(known), [row[key] for row in known], ".-", color=color, label=label)
        score_axes.set_ylabel(f"evaluation {name}")
        score_axes.legend(loc="lower right")

        for summary in summarize_stages(stages, rows):
            stage, began, ended = summary.stage, summary.began / 60, summary.ended / 60
            plan_axes.plot([began, ended], [stage.image_size] * 2, color="black", linewidth=2)
            note = "\n".join(regularizers(stage)) if len(stages) <= _MOST_NOTES else ""
            plan_axes.annotate(note, ((began + ended) / 2, stage.image_size), (0, -4), textcoords="offset points",
                               ha="center", va="top", fontsize=7)  # fmt: skip
            for axes in (loss_axes, score_axes, plan_axes):
                axes.axvspan(began, ended, color="tab:gray", alpha=0.08 if stage.index % 2 else 0.18, linewidth=0)
        plan_axes.set_ylim(0, max(stage.image_size for stage in stages) * 1.15)
        plan_axes.set_ylabel("image size, px")
        plan_axes.set_xlabel("training time, minutes")


def plot_image_sheet(
    images: Sequence[npt.NDArray[Any]], row_titles: Sequence[str], path: str | os.PathLike[str] | BinaryIO
) -> None:
    """Writes a PNG with rows of images, each as large as its number of pixels compared with the other rows.

    Args:
        images: for each row, an array ``[columns, H, W, 3]`` of any number type, values in 0..255; H, W and the number
            of columns may differ between rows.
        row_titles: title of each row.
        path: path of the PNG, or a binary file to write to.
    """
    columns = max(len(row) for row in images)
    heights = [row[0].shape[0] / max(row[0].shape[0] for row in images) for row in images]
    with _figure(path, (1.5 * columns + 1.2, 1.6 * sum(heights))) as figure:
        grid = figure.subplots(len(images), columns, squeeze=False, height_ratios=heights)
        for row, (pictures, title) in enumerate(zip(images, row_titles)):
            for column in range(columns):
                axes = grid[row][column]
                axes.set_xticks([])
                axes.set_yticks([])
                if column < len(pictures):
                    axes.imshow(np.clip(pictures[column], 0, 255).astype(np.uint8))
                axes.axis("on" if column < len(pictures) else "off")
            grid[row][0].set_ylabel(title, fontsize=8, rotation=0, ha="right", va="center")


def stage_title(stage: Stage, augment: str) -> str:
    """Returns three lines about a stage: number and image size, augmentation, and regularizers.

    Args:
        stage: the stage.
        augment: the augmentation, as in ``data.augment``.
    """
    return f"stage {stage.index + 1}: {stage.image_size} px\naugment {augment}\n{' '.join(regularizers(stage))}"


def regularizers(stage: Stage) -> list[str]:
    """Returns the regularizers of a stage that are not 0, with values, such as ``["RandAugment 5", "dropout 0.1"]``."""
    values = {quantity.heading: getattr(stage, name) for name, quantity in QUANTITIES.items() if name != "image_size"}
    return [f"{heading} {value:.3g}" for heading, value in values.items() if value]


def plot_sizes(rows: Sequence[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Writes a PNG with top-1 over the image size, or mAP if images have several labels.

    Args:
        rows: rows of ``evaluate``, one per size.
        path: path of the PNG.
    """
    with _figure(path, (6, 4)) as figure:
        axes = figure.subplots()
        rows = sorted(rows, key=lambda row: row["image_size"])
        score, name = primary_metric(rows[0])
        for key, label in ((score, name), (f"{score}_ema", f"{name}, EMA")):
            if key in rows[0]:
                axes.plot([row["image_size"] for row in rows], [row[key] for row in rows], ".-", label=label)
        axes.set_xlabel("evaluation size, px")
        axes.set_ylabel(name)
        axes.legend()
        axes.grid(alpha=0.3)


def plot_confusion(confusion: npt.NDArray[np.int64], class_names: Sequence[str], path: str | os.PathLike[str]) -> None:
    """Writes a PNG with a confusion matrix: for each class, the share of its images by predicted class.

    Args:
        confusion: numbers of images by true class (rows) and predicted class (columns), ``[classes, classes]``, int64.
        class_names: names of the classes, in the same order. The names are drawn if there are at most 50, and the
            numbers of images if there are at most 30.
        path: path of the PNG.
    """
    count = len(class_names)
    side = min(4 + 0.25 * count, 14)
    with _figure(path, (side + 1, side)) as figure:
        axes = figure.subplots()
        shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
        figure.colorbar(axes.imshow(shares, cmap="viridis", vmin=0, vmax=1), label="share of the class")
        if count <= _MOST_NAMES:
            axes.set_xticks(range(count), class_names, rotation=90)
            axes.set_yticks(range(count), class_names)
        for true, predicted in np.argwhere(confusion) if count <= _MOST_COUNTS else ():
            color = "black" if shares[true, predicted] > 0.6 else "white"  # viridis is bright at its end
            text = f"{confusion[true, predicted]}"
            axes.text(predicted, true, text, color=color, fontsize=7, ha="center", va="center")
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
