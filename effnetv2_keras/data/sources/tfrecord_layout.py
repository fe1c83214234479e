"""How a TFRecord stores an image and its labels, and what is wrong with a record that does not."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import tensorflow as tf

from effnetv2_keras.data.sources.base import DataError

IMAGE_KEY, LABEL_KEY = "image/encoded", "image/class/label"
_IMAGES = re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|BM|RIFF|II\*|MM\0")  # how the files of images begin


@dataclasses.dataclass(frozen=True)
class TfRecordLayout:
    """How a record stores an image and its labels.

    Attributes:
        class_names: names of the classes, in label order.
        image_key: feature with the encoded image, one bytes value.
        label_key: feature with the label, one int64, or any number of them if ``multi_label``.
        first_label: label of the first class in the records.
        multi_label: whether a record may have several labels, or none.
    """

    class_names: tuple[str, ...]
    image_key: str = IMAGE_KEY
    label_key: str = LABEL_KEY
    first_label: int = 1
    multi_label: bool = False

    def describe_wrong_label(self, label: int) -> str:
        """Returns an error message without its subject, such as "Record 3 of FILE", for a label out of range."""
        last = self.first_label + len(self.class_names) - 1
        return (
            f"has the label {label}, but with {len(self.class_names)} classes and data.first_label={self.first_label} "
            f"labels are {self.first_label} to {last}. Set data.first_label (0 or 1) and data.num_classes, name all "
            "classes if there is a labels.txt, or repair the records."
        )

    def check(self, example: tf.train.Example, where: str) -> None:
        """Checks that a record has this layout.

        Args:
            example: the record.
            where: subject of the error message, such as "Record 3 of FILE".

        Raises:
            DataError: if a feature is missing or of another kind, or a label is out of range.
        """
        features = example.features.feature
        for key, kind, setting in (
            (self.image_key, "bytes_list", "data.image_key"),
            (self.label_key, "int64_list", "data.label_key"),
        ):
            found = features[key].WhichOneof("kind") if key in features else None
            if found != kind and not (key in features and self.multi_label and found is None):
                listed = ", ".join(f"{name} ({features[name].WhichOneof('kind')})" for name in sorted(features))
                usable = _usable(features, kind, several=self.multi_label and kind == "int64_list")
                raise DataError(
                    f"{where} has {f'the feature {key!r} as {found}' if key in features else f'no feature {key!r}'}, "
                    f"but must have it as {kind}. Its features are {listed}. "
                    + (f"Set {setting} to {' or '.join(usable)}" if usable else f"None can be {setting}; write one.")
                )
        labels = features[self.label_key].int64_list.value
        if not self.multi_label and len(labels) != 1:
            raise DataError(
                f"{where} has {len(labels)} labels, but must have one. If images have several labels, set "
                "data.multi_label=true"
            )
        for label in labels:
            if not 0 <= label - self.first_label < len(self.class_names):
                raise DataError(f"{where} {self.describe_wrong_label(label)}")


def _usable(features: Mapping[str, tf.train.Feature], kind: str, *, several: bool) -> list[str]:
    """Returns the features of a kind with one value, or with any number; of bytes, those that are images if any are."""
    found = [
        name
        for name, feature in sorted(features.items())
        if feature.WhichOneof("kind") == kind and (several or len(getattr(feature, kind).value) == 1)
    ]
    images = [name for name in found if kind == "bytes_list" and _IMAGES.match(features[name].bytes_list.value[0])]
    return images or found
