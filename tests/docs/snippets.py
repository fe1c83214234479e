"""Reads the code blocks of a Markdown page, and says which of them are meant to run."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shlex
from collections.abc import Iterator

TAGS = ("python", "bash", "text", "bibtex")
"""Languages of code blocks; the first two are run."""

_FENCE = re.compile(r"```(\S*)\s*")
_MARKER = re.compile(r"<!-- not run:\s*(.*?)\s*-->")


@dataclasses.dataclass(frozen=True)
class Snippet:
    """A code block.

    Attributes:
        page: its file.
        line: where its code begins, from 1.
        tag: its language.
        code: what is in it.
        reason: why it is not run; None if it is.
    """

    page: pathlib.Path
    line: int
    tag: str
    code: str
    reason: str | None = None

    @property
    def is_run(self) -> bool:
        return self.tag in ("python", "bash") and self.reason is None

    def commands(self) -> Iterator[list[str]]:
        """The commands of a ``bash`` block, each as its words."""
        for line in self.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words

    def expected_output(self) -> Iterator[str]:
        """Comments directly below a ``print``: what it prints."""
        lines = self.code.splitlines()
        for call, comment in zip(lines, lines[1:]):
            if call.startswith("print(") and comment.startswith("# "):
                yield comment[2:]


def read_snippets(page: pathlib.Path) -> list[Snippet]:
    """Reads a page's code blocks.

    Raises:
        ValueError: for a block without a known language, or a marker that gives no reason or has no block to run below.
    """
    found, lines, reason, start = [], page.read_text("utf-8").splitlines(), None, 0
    tag: str | None = None
    for number, line in enumerate(lines, 1):
        fence, marker = _FENCE.fullmatch(line.strip()), _MARKER.fullmatch(line.strip())
        if tag is not None:
            if fence and not fence[1]:
                found.append(Snippet(page, start, tag, "\n".join(lines[start - 1 : number - 1]), reason))
                tag, reason = None, None
        elif fence:
            tag, start = fence[1], number + 1
            if tag not in TAGS:
                raise ValueError(
                    f"{page.name}:{number}: the block's language is {tag!r}; use one of {', '.join(TAGS)}."
                )
            if reason is not None and tag not in ("python", "bash"):
                raise ValueError(f"{page.name}:{number}: a block of {tag} is never run; remove the marker above it.")
        elif marker:
            reason = marker[1]
            if not reason:
                raise ValueError(f"{page.name}:{number}: the marker gives no reason; write <!-- not run: needs X -->.")
        elif line.strip() and reason is not None:
            raise ValueError(f"{page.name}:{number}: the marker above must stand directly before a code block.")
    if reason is not None:
        raise ValueError(f"{page.name}: the last marker has no code block.")
    return found
