"""Reads text files that users write, in the encodings that spreadsheets and editors save (no TensorFlow)."""

from __future__ import annotations

import codecs
import os
import pathlib
import re

from absl import logging

from effnetv2_keras.errors import UsageError

FALLBACK = "cp1252"
"""Encoding of text that is not Unicode: Windows-1252, which contains the printable characters of Latin-1."""

_MARKS = {  # UTF-32 first, because its little-endian mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: str | os.PathLike[str]) -> str:
    """Returns the text of a file, without its byte order mark; see ``decode``."""
    return decode(pathlib.Path(path).read_bytes(), path)[0]


def decode(content: bytes, path: str | os.PathLike[str]) -> tuple[str, str]:
    """Returns a text and its encoding.

    A byte order mark tells the encoding: UTF-8, UTF-16 or UTF-32. Without one the text is UTF-8, or else UTF-16 if half
    of its bytes are zero, or else Windows-1252. A warning gives each encoding that is only a guess.

    Args:
        content: the bytes of the file.
        path: the file, for messages.

    Raises:
        UsageError: if the content cannot be decoded.
    """
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    guessed = encoding is None and not _is_utf8(content)
    if encoding is None:
        encoding = (_zeros_of_utf16(content) or FALLBACK) if guessed else "utf-8"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise _undecodable(path, f"byte {error.start} cannot be read as {encoding}") from error
    if "\0" in text:
        raise _undecodable(path, "it contains zero bytes")
    if guessed:
        sample = re.search(r"[^\s,;|\"]*[^\x00-\x7f][^\s,;|\"]*", text)
        logging.warning(
            "%s is not UTF-8. Reading it as %s, which gives for example %r. If that is wrong, save the file as UTF-8.",
            printable(os.fspath(path)), encoding, sample[0][:40] if sample else text[:40],
        )  # fmt: skip
    return text, encoding


def printable(name: str) -> str:
    """Returns a file name that can be printed and saved: bytes that are not UTF-8 are read as Windows-1252."""
    try:
        name.encode()
        return name
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape").decode(FALLBACK, "replace")


def _is_utf8(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def _zeros_of_utf16(content: bytes) -> str | None:
    """Returns which UTF-16 has zeros at the places of this text, or None if it has few zeros."""
    for name, zeros in (("utf-16-le", content[1::2]), ("utf-16-be", content[::2])):
        if len(content) % 2 == 0 and zeros.count(0) > len(zeros) // 2:
            return name
    return None


def _undecodable(path: str | os.PathLike[str], reason: str) -> UsageError:
    return UsageError(
        f"{printable(os.fspath(path))} is not text in UTF-8, UTF-16 or Windows-1252: {reason}. Save it as UTF-8 text."
    )
