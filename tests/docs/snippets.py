"""Reads the code blocks of a Markdown page, and says which of them are meant to run."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shlex
from collections.abc import Iterator

RUN = ("python", "bash")
TAGS = (*RUN, "text", "bibtex")
"""Languages of code blocks, and those that are run."""

_MARKER = r"<!-- not run:(?P<reason>[^\n]*?)-->"
_BLOCK = re.compile(rf"(?:^{_MARKER}\n+)?^```(?P<tag>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


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
        return self.tag in RUN and self.reason is None

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
    text = page.read_text("utf-8")
    found = [_snippet(page, text, block) for block in _BLOCK.finditer(text)]
    markers, used = len(re.findall(_MARKER, text)), sum(snippet.reason is not None for snippet in found)
    if markers != used:
        raise ValueError(f"{page.name}: {markers - used} markers do not stand directly before a code block.")
    return found


def _snippet(page: pathlib.Path, text: str, block: re.Match[str]) -> Snippet:
    tag, reason, line = block["tag"].strip(), block["reason"], text.count("\n", 0, block.start("code")) + 1
    place = f"{page.name}:{line - 1}"
    if tag not in TAGS:
        raise ValueError(f"{place}: the block's language is {tag!r}; use one of {', '.join(TAGS)}.")
    if reason is not None and not reason.strip():
        raise ValueError(f"{place}: the marker gives no reason; write <!-- not run: needs X -->.")
    if reason is not None and tag not in RUN:
        raise ValueError(f"{place}: a block of {tag} is never run; remove the marker above it.")
    return Snippet(page, line, tag, block["code"].rstrip("\n"), reason and reason.strip())
