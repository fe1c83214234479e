"""Templates of self-contained HTML pages, which need no other files and no network."""

from __future__ import annotations

from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """Returns the HTML of a template of this package.

    Args:
        template: name of the template, such as ``"report.html.jinja"``.
        **values: values of the template's variables.

    Raises:
        jinja2.UndefinedError: if the value of a variable is missing.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__name__, ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
