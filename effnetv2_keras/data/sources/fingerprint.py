"""A checksum of the records of a source, by which a run that is resumed recognizes its data."""

from __future__ import annotations

import hashlib
import os

from effnetv2_keras.data.sources.base import FileSource, Source


def fingerprint(source: Source) -> str:
    """Returns a checksum of the records of a source: their names in order and, for image files, their labels.

    It does not depend on the folder of the data: paths are relative to it. Images outside of it, which a list may name,
    count with their whole path. Arrays have no names, so they all have the same checksum.
    """
    digest = hashlib.sha256()
    if isinstance(source, FileSource):
        top = os.path.join(source.root, "") if source.root else ""
        for path, _ in source.extents():
            digest.update(os.fsencode(path[len(top) :] if path.startswith(top) else path) + b"\0")
        digest.update(source.label_bytes)
    else:
        for path, numbers in source.extents():
            digest.update(os.fsencode(f"{os.path.basename(path)}:{numbers.start}:{numbers.stop}") + b"\0")
    return digest.hexdigest()
