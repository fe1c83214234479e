"""Pages of HTML that need nothing else, neither files nor network."""

from __future__ import annotations

from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """Fills a template of this package.

    Args:
        template: its name, such as ``"report.html.jinja"``.
        **values: what it takes; to leave one out is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__name__, ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
