"""Plots for HTML pages, as SVG with the colors and fonts of the page."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator

import matplotlib
import matplotlib.figure

BLUE, ORANGE, GREEN, GREY = "#3b82f6", "#f07d2d", "#22a06b", "#98a2b3"
"""CSS colors that are visible on white and on black."""

_INK = "#010203"  # placeholder for the text color of the page in the output of matplotlib


@dataclasses.dataclass(frozen=True)
class Plot:
    """A plot with its title.

    Attributes:
        title: title of the plot.
        svg: SVG element, ready for use in HTML.
    """

    title: str
    svg: str


@contextlib.contextmanager
def page_style(title: str) -> Iterator[None]:
    """Sets the style of matplotlib inside a ``with`` block, for figures that go to ``as_svg``.

    The same figure always gives the same SVG.

    Args:
        title: title of the plot, unique in the page.
    """
    ink = {f"{part}.color": _INK for part in ("text", "xtick", "ytick")}
    settings = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 10, "axes.edgecolor": _INK, **ink}
    with matplotlib.rc_context({**settings, "axes.labelcolor": _INK}):
        yield


def as_svg(figure: matplotlib.figure.Figure, title: str) -> str:
    """Returns a figure as an SVG element with the font and text color of the page.

    The element has no XML prologue and no ids that are not referred to.

    Args:
        figure: figure that was made inside ``page_style``.
        title: title of the plot, for screen readers.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{title}">', svg, count=1
    )
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)  # it would apply to the whole page
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = svg.replace('xlink:href="', 'href="')
    return re.sub(r"font: (\d[\w.]*) [^;\"]*", r"font-size: \1", svg)
