"""How a TFRecord stores an image and its labels, and what is wrong with a record that does not."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from effnetv2_keras.data.sources.base import DataError

IMAGE_KEY, LABEL_KEY = "image/encoded", "image/class/label"


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
            f"labels are {self.first_label} to {last}. Set data.first_label (0 or 1) and data.num_classes, or repair "
            "the records."
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
                raise DataError(
                    f"{where} has {f'the feature {key!r} as {found}' if key in features else f'no feature {key!r}'}, "
                    f"but must have it as {kind}. Its features are {', '.join(sorted(features))}. Set {setting} to the "
                    "right one."
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
