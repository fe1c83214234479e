"""``evaluations.json``, the newest evaluation of each split of a run, and ``mistakes/`` with its wrong answers."""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import pydantic
from absl import logging

from effnetv2_keras.basics.small_files import parse_json, read_text
from effnetv2_keras.config import Config
from effnetv2_keras.config.fields import OptionalFloat, OptionalStr
from effnetv2_keras.reporting.class_figures import most_confused, of_suffix
from effnetv2_keras.reporting.samples import Sample
from effnetv2_keras.runs.disk import full_disk_explained, write_atomically
from effnetv2_keras.runs.run_folder import RunFolder

EVALUATIONS_FILE, MISTAKES_FOLDER = "evaluations.json", "mistakes"
_MOST_PAIRS = 5000
_PICTURE_SIDE = 224  # pixels


class Picture(pydantic.BaseModel):
    """A wrong answer.

    Attributes:
        picture: name of the JPEG in ``mistakes/``.
        overlay: the same with the parts colored that support the answer, see ``Sample``; None if there is none.
        true: names of the true classes.
        predicted: name of the most likely class.
        probability: its probability, in [0, 1].
    """

    picture: str
    overlay: OptionalStr = None
    true: tuple[str, ...]
    predicted: str
    probability: float


class Evaluation(pydantic.BaseModel):
    """An evaluation of a split.

    Attributes:
        split: value of ``data.eval_split``; None if it was chosen by itself.
        data_dir: value of ``data.data_dir``.
        step: number of finished steps of the checkpoint.
        averaged: whether ``classes``, ``confused`` and ``mistakes`` are of the averaged weights.
        image_size: side of the images, pixels.
        num_images: number of evaluated images.
        num_examples: number of images in the split.
        figures: finite metrics of ``Evaluator.run`` with the suffix of each model.
        classes: metrics of ``Evaluator.run`` that have a number for each class; None for a number that is not defined.
        confused: the most frequent pairs of confused classes: true class, predicted class, number of images.
        mistakes: the most confident wrong answers.
    """

    model_config = pydantic.ConfigDict(allow_inf_nan=False)

    split: OptionalStr
    data_dir: OptionalStr
    step: int
    averaged: bool
    image_size: int
    num_images: int
    num_examples: int
    figures: dict[str, float]
    classes: dict[str, list[OptionalFloat]]
    confused: list[tuple[int, int, int]] = []
    mistakes: list[Picture] = []

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Evaluation:
        lengths = {len(values) for values in self.classes.values()}
        count = max(lengths, default=0)
        if not {"num_positive", "num_predicted", "num_hits"} <= self.classes.keys() or len(lengths) > 1:
            raise ValueError("the figures of some classes are missing")
        if not all(0 <= number < count for *pair, _ in self.confused for number in pair):
            raise ValueError("a number of a class is out of range")
        return self


def evaluation_of(
    config: Config, figures: Mapping[str, Any], num_examples: int, *, step: int, image_size: int
) -> Evaluation:
    """Returns what ``evaluations.json`` keeps of an evaluation.

    Args:
        config: configuration with the data of the evaluation.
        figures: result of ``Evaluator.run``.
        num_examples: number of images in the split.
        step: number of finished steps of the checkpoint.
        image_size: side of the images, pixels.
    """
    averaged = any(name.endswith("_ema") for name in figures)
    tables = of_suffix(figures, "_ema" if averaged else "")
    confusion = tables.pop("confusion", None)
    return Evaluation(
        split=config.data.eval_split,
        data_dir=config.data.data_dir,
        step=step,
        averaged=averaged,
        image_size=image_size,
        num_images=figures["num_images"],
        num_examples=num_examples,
        figures={name: one for name, one in figures.items() if not isinstance(one, np.ndarray) and math.isfinite(one)},
        classes={name: [None if math.isnan(one) else one for one in row.tolist()] for name, row in tables.items()},
        confused=[] if confusion is None else most_confused(confusion)[:_MOST_PAIRS],
    )


def note_evaluation(folder: RunFolder, evaluation: Evaluation, mistakes: Sequence[Sample] = ()) -> None:
    """Writes an evaluation into the folder of a run, where it replaces an earlier one of the same split.

    Args:
        folder: folder of the run.
        evaluation: the evaluation.
        mistakes: wrong answers, whose pictures are written into ``mistakes/``.

    Raises:
        NoRoomError: if the disk is full.
    """
    others = [other for other in read_evaluations(folder) if _place(other) != _place(evaluation)]
    with full_disk_explained(folder / EVALUATIONS_FILE):
        pictures = _write_pictures(folder, evaluation, others, mistakes)
        rows = [*others, evaluation.model_copy(update={"mistakes": pictures})]
        text = ",\n".join(row.model_dump_json() for row in rows)
        write_atomically(folder / EVALUATIONS_FILE, f"[\n{text}\n]\n")


def _place(evaluation: Evaluation) -> tuple[str | None, str | None]:
    return evaluation.data_dir, evaluation.split


def _write_pictures(
    folder: RunFolder, evaluation: Evaluation, others: Sequence[Evaluation], mistakes: Sequence[Sample]
) -> list[Picture]:
    """Writes the pictures of an evaluation, removes those of none, and returns what they show."""
    place = folder / MISTAKES_FOLDER
    used = {name for other in others for one in other.mistakes for name in (one.picture, one.overlay)}
    for old in place.glob("*.jpg"):
        if old.name not in used:
            old.unlink()
    if mistakes:
        place.mkdir(exist_ok=True)
    slug = re.sub(r"[^A-Za-z0-9]+", "-", evaluation.split or "evaluation").strip("-")
    start = next(n for n in range(len(used) + 1) if f"{slug}{n or ''}-01.jpg" not in used)
    pictures = []
    for number, mistake in enumerate(mistakes, start=1):
        names: list[str | None] = [f"{slug}{start or ''}-{number:02d}.jpg", None]
        _save(place / str(names[0]), mistake.image)
        if mistake.overlay is not None:
            names[1] = f"{slug}{start or ''}-{number:02d}-why.jpg"
            _save(place / str(names[1]), mistake.overlay)
        pictures.append(
            Picture(
                picture=str(names[0]),
                overlay=names[1],
                true=mistake.true,
                predicted=mistake.predicted,
                probability=mistake.probability,
            )
        )
    return pictures


def _save(path: pathlib.Path, image: Any) -> None:
    picture = PIL.Image.fromarray(image)
    picture.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    picture.save(path, "JPEG", quality=85)


def read_evaluations(folder: RunFolder) -> list[Evaluation]:
    """Returns the evaluations of a run, the oldest first; without those that cannot be read, with a warning."""
    path = folder / EVALUATIONS_FILE
    if not path.exists():
        return []
    try:
        rows = parse_json(read_text(path), list)
    except ValueError as error:
        logging.warning("%s cannot be read (%s), so it is left out. --mode=eval writes it anew.", path, error)
        return []
    evaluations = []
    for row in rows:
        try:
            evaluations.append(Evaluation.model_validate(row))
        except (ValueError, RecursionError):
            logging.warning("%s has an entry that cannot be read, which is left out: %s.", path, str(row)[:80])
    return evaluations
