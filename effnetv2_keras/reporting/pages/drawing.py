"""Plots within a page, as SVG that takes the page's colours and fonts."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator

import matplotlib
import matplotlib.figure

BLUE, ORANGE, GREEN, GREY = "#3b82f6", "#f07d2d", "#22a06b", "#98a2b3"
"""Colours that show on white and on black."""

_INK = "#010203"  # stands for the page's own text colour in what matplotlib writes


@dataclasses.dataclass(frozen=True)
class Plot:
    """A plot and what it shows.

    Attributes:
        title: in words.
        svg: the drawing, to be put into HTML as it is.
    """

    title: str
    svg: str


@contextlib.contextmanager
def page_style(title: str) -> Iterator[None]:
    """Lets matplotlib draw what ``as_svg`` takes, alike each time.

    Args:
        title: of the drawing, other than those of the page's other drawings.
    """
    ink = {f"{part}.color": _INK for part in ("text", "xtick", "ytick")}
    settings = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 10, "axes.edgecolor": _INK, **ink}
    with matplotlib.rc_context({**settings, "axes.labelcolor": _INK}):
        yield


def as_svg(figure: matplotlib.figure.Figure, title: str) -> str:
    """The figure as an SVG element: no XML prologue, no ids but those referred to, the page's font and text colour."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{title}">', svg, count=1
    )
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)  # would hold for the whole page
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = svg.replace('xlink:href="', 'href="')
    return re.sub(r"font: (\d[\w.]*) [^;\"]*", r"font-size: \1", svg)
