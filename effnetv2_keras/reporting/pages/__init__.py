"""Self-contained HTML pages, which need no other files and no network."""

from __future__ import annotations

from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """Returns the HTML page of a template.

    Args:
        template: name of the template in this package, such as ``"report.html.jinja"``.
        **values: values for the template; a missing value is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__name__, ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
