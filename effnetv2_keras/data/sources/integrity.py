"""Which TFRecord file made the input fail: TensorFlow does not say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Callable

import tensorflow as tf
from absl import logging

from effnetv2_keras.data.sources.base import DataError

_ADVICE = (
    "Copy or write it again, and the same command goes on from the last checkpoint. data.unreadable=skip is for images "
    "and helps no file; a run without this one needs another --model_dir."
)


def find_bad_record(files: Mapping[str, int | None], check: Callable[[bytes, str], None] | None = None) -> str | None:
    """Reads files to the first record that is damaged.

    Args:
        files: by path, the records that each must have, if that is known.
        check: called with a record and "Record 3 of FILE"; raises ``DataError`` if the record cannot be used.

    Returns:
        Which file or record it is, and what to do; None if all are sound.
    """
    logging.warning("Input failed. Reading %d files again to find out which one is at fault.", len(files))
    for done, (path, wanted) in enumerate(files.items()):
        logging.log_every_n_seconds(logging.INFO, "%d of %d files are sound.", 10, done, len(files))
        count = 0
        try:
            for record in tf.data.TFRecordDataset(path, buffer_size=1 << 20).as_numpy_iterator():
                if check is not None:
                    check(record, f"Record {count} of {path}")
                count += 1
        except DataError as error:
            return str(error)
        except tf.errors.NotFoundError:
            return f"The file {path} is no longer there. {_ADVICE}"
        except tf.errors.OpError as error:
            return f"{path} is damaged at record {count}: {plain_message(error)}. {_ADVICE}"
        if wanted not in (None, count):
            return f"{path} has {count} records, but had {wanted} when the run began. {_ADVICE}"
    return None


def plain_message(error: Exception) -> str:
    """What TensorFlow says, without the names of its nodes and operations."""
    return re.sub(
        r"\{\{.*?\}\}|\[Op:.*?\]|name:\s*$", "", getattr(error, "message", str(error)).partition("\n")[0]
    ).strip(" .")
