"""Finds the TFRecord file that made the input fail, because TensorFlow's error does not name it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Callable

import tensorflow as tf
from absl import logging

from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.sources.shards import records_of

_ADVICE = (
    "Copy or write it again, then run the same command again to resume from the last checkpoint. "
    "data.unreadable=skip applies to images and does not help with a damaged file. To train without this file, start a "
    "new run in another --model_dir."
)


def find_bad_record(files: Mapping[str, int | None], check: Callable[[bytes, str], None] | None = None) -> str | None:
    """Reads TFRecord files up to the first damaged record and returns a description of it.

    Args:
        files: maps each path to the number of records that the file must have, or to None if it is not known.
        check: called with a record and its description, such as "Record 3 of FILE". It raises ``DataError`` if the
            record cannot be used.

    Returns:
        A message that says which file or record is damaged and what to do; None if all files are intact.
    """
    logging.warning("The input failed. Reading %d files again to find the damaged one.", len(files))
    for done, (path, wanted) in enumerate(files.items()):
        logging.log_every_n_seconds(logging.INFO, "%d of %d files are intact.", 10, done, len(files))
        count = 0
        try:
            for record in records_of(path).as_numpy_iterator():
                if check is not None:
                    check(record, f"Record {count} of {path}")
                count += 1
        except DataError as error:
            return str(error)
        except (FileNotFoundError, tf.errors.NotFoundError):
            return f"The file {path} is no longer there. {_ADVICE}"
        except tf.errors.OpError as error:
            return f"{path} is damaged at record {count}: {plain_message(error)}. {_ADVICE}"
        if wanted not in (None, count):
            return f"{path} has {count} records, but had {wanted} when the run started. {_ADVICE}"
    return None


def plain_message(error: Exception) -> str:
    """Returns the first line of a TensorFlow error message, without the names of nodes and operations."""
    return re.sub(
        r"\{\{.*?\}\}|\[Op:.*?\]|name:\s*$", "", getattr(error, "message", str(error)).partition("\n")[0]
    ).strip(" .")
