"""Takes the training and the evaluation part of listed files: shares, folds and held-out images, with all classes."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Sequence

from absl import logging

from effnetv2_keras import config as config_lib
from effnetv2_keras.basics.exact import exact
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.sources.division import (
    NO_LABEL,
    Listing,
    deal_into_folds,
    divide,
    hold_out_groups,
    labels_lacking,
    labels_of,
    ranked,
    share_of_groups,
    units_of,
)
from effnetv2_keras.data.sources.groups import Groups, check_apart, check_grouped, name_of
from effnetv2_keras.data.sources.slices import Slice

_SHOWN = 10  # classes in a message


@dataclasses.dataclass(frozen=True)
class Divider:
    """Divides files as the data settings say, and refuses parts without images of a class.

    Attributes:
        data: the data settings.
        groups: the group of each image; None if each image is on its own.

    Raises:
        DataError: from each method, if an image has no group, a group is in both parts, or a class has no image in one
            of them.
    """

    data: config_lib.DataConfig
    groups: Groups | None

    def share(self, files: Listing, part: Slice, role: str) -> Listing:
        """Returns the same share of the files of each label, chosen by rank; with groups, a share of the groups.

        Args:
            files: the files of the split.
            part: the share.
            role: what it is for, ``"training"`` or ``"evaluation"``.
        """
        self._check_grouped(files)
        if self.groups is not None:
            names = share_of_groups(units_of(files, self.groups, self._separator), part)
            taken = divide(files, names, self.groups)[1]
        else:
            taken = {label: sorted(part.of(ranked(paths))) for label, paths in files.items()}
        name = "data.train_split" if role == "training" else "data.eval_split"
        self._check_classes(files, taken, role, f"{name}={getattr(self.data, name[5:])}")
        return taken

    def fold(self, files: Listing, splits: Sequence[str]) -> tuple[Listing, Listing]:
        """Returns the files outside of the fold ``data.fold``, and those in it; logs how they were divided.

        Args:
            files: the files to divide.
            splits: the splits that they are from.
        """
        self._check_grouped(files)
        folds, number = self.data.folds or 0, self.data.fold or 0
        units = units_of(files, self.groups, self._separator)
        fold_of = deal_into_folds(units, folds)
        lacking = labels_lacking(units, fold_of, folds)
        if lacking:
            fewest = min(sum(label in unit.counts for unit in units) for label in lacking)
            fewer = f"at most {fewest} folds (data.folds={fewest})" if 1 < fewest < folds else "fewer folds"
            kind = "images" if self.groups is None else "groups"
            raise DataError(
                f"data.folds={folds} needs {kind} of each class in each fold, but there are too few of "
                f"{self._counted(lacking, files)}. Use {fewer}, add {kind} of these classes, or remove the classes."
            )
        names = {unit.name for unit in units if fold_of[unit.name] == number}
        train, evaluation = divide(files, names, self.groups)
        made = "" if self.data.source == "csv" and len(splits) == 1 else f" of {' and '.join(map(repr, splits))}"
        logging.info(
            "%s: fold %d of %d (0 to %d)%s: %s.", self.data.data_dir, number, folds, folds - 1, made,
            self._described(train, evaluation),
        )  # fmt: skip
        return train, evaluation

    def hold_out(self, files: Listing) -> tuple[Listing, Listing]:
        """Returns the files to train on, and the share ``data.holdout`` of them that is held out; logs how many.

        The share is taken of each label's files, at least one. With groups, it is taken of the groups.
        """
        data, setting = self.data, f"data.holdout={self.data.holdout:g}"
        if self.groups is None:
            names = {path for paths in files.values() for path in ranked(paths)[: self._num_held_out(len(paths))]}
        else:
            names = hold_out_groups(units_of(files, self.groups, self._separator), data.holdout)
            setting += f",data.group_by={data.group_by}"
        train, evaluation = divide(files, names, self.groups)
        alone = self.groups is None and not data.multi_label
        single = [label for label, paths in train.items() if not paths] if alone else []
        if single:
            raise DataError(
                f"Class {', '.join(map(repr, single))} has only one image, so none can be held out. Add images, or "
                f"create train and validation splits in {data.data_dir}."
            )
        self._check_classes(files, train, "training", setting)
        self._check_classes(files, evaluation, "evaluation", setting)
        logging.info("%s: held out (%s): %s.", data.data_dir, setting, self._described(train, evaluation))
        self._warn_of_large_share(train, evaluation)
        return train, evaluation

    def check_apart(self, train: Listing, evaluation: Listing) -> None:
        """Raises ``DataError`` if images of one group are in both splits."""
        if self.groups is not None:
            self._check_grouped(evaluation)
            check_apart(_paths(train), _paths(evaluation), self.groups, str(self.data.group_by))

    @property
    def _separator(self) -> str | None:
        return self.data.label_separator if self.data.multi_label else None

    def _num_held_out(self, count: int) -> int:
        """Returns how many of ``count`` images of a label are held out; one at least stays, if there are several."""
        wanted = max(1, round(exact(self.data.holdout) * count))
        return wanted if count < 2 or self.data.multi_label else min(wanted, count - 1)

    def _warn_of_large_share(self, train: Listing, evaluation: Listing) -> None:
        """Warns if many rare combinations of labels, with one image held out for each, make the share large."""
        held, images = len([*_paths(evaluation)]), len([*_paths(train), *_paths(evaluation)])
        if self.data.multi_label and self.groups is None and held > 2 * self.data.holdout * images + 1:
            folds = max(2, round(1 / self.data.holdout))
            logging.warning(
                "%s: %d of %d images are held out, more than data.holdout=%g says, because at least one image of each "
                "combination of labels is. Set data.folds=%d,data.fold=0, without data.holdout, to divide by labels.",
                self.data.data_dir, held, images, self.data.holdout, folds,
            )  # fmt: skip

    def _check_grouped(self, files: Listing) -> None:
        if self.groups is not None:
            check_grouped(_paths(files), self.groups, str(self.data.group_by))

    def _check_classes(self, whole: Listing, part: Listing, role: str, setting: str) -> None:
        """Raises ``DataError`` if a label of the data has no image in a part of it.

        Args:
            whole: the data.
            part: the part.
            role: what the part is for.
            setting: the setting that made it the part.
        """
        before, after = (
            {label for written, paths in files.items() if paths for label in labels_of(written, self._separator)}
            for files in (whole, part)
        )
        lost = sorted(before - after - {NO_LABEL})
        if not lost:
            return
        more = "add images" if self.groups is None else "add images of other groups"
        advice = " data.folds=10,data.fold=0 divides rare combinations of labels evenly." if self._separator else ""
        raise DataError(
            f"With {setting}, no {role} image is left of {self._counted(lost, whole)}. Use a larger share of the data "
            f"for {role}, {more} of these classes, or remove the classes.{advice}"
        )

    def _counted(self, labels: Sequence[str], files: Listing) -> str:
        """Returns labels with their numbers of images and groups, such as "'cat' (4 images in 1 group)"."""
        images: collections.Counter[str] = collections.Counter()
        units: collections.Counter[str] = collections.Counter()
        for unit in units_of(files, self.groups, self._separator):
            images.update(unit.counts)
            units.update(unit.counts.keys())

        def one(label: str) -> str:
            inside = "" if self.groups is None else f" in {_number(units[label], 'group')}"
            return f"{label!r} ({_number(images[label], 'image')}{inside})"

        more = f" and {len(labels) - _SHOWN} more classes" if len(labels) > _SHOWN else ""
        return ", ".join(map(one, labels[:_SHOWN])) + more

    def _described(self, train: Listing, evaluation: Listing) -> str:
        """Returns how many images, or groups, there are to train and to evaluate on."""
        counts = [len([*_paths(part)]) for part in (train, evaluation)]
        what = f"{sum(counts):,} images"
        if self.groups is not None:
            counts = [len({self.groups[path] for path in _paths(part)}) for part in (train, evaluation)]
            what = f"{sum(counts):,} groups ({name_of(str(self.data.group_by))}) of {what}"
        return f"{what}, {counts[0]:,} to train on, {counts[1]:,} to evaluate on"


def _paths(files: Listing) -> Iterator[str]:
    return (path for paths in files.values() for path in paths)


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
