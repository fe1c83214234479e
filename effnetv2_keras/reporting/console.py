"""Prints data such as class names and paths on a console as they are, not as rich's markup."""

from __future__ import annotations

import rich.console
import rich.table
import rich.text


def show(console: rich.console.Console, content: str | rich.table.Table) -> None:
    """Prints text or a table without reading ``[...]`` as markup or ``:...:`` as emoji.

    Args:
        console: output.
        content: text, which is not wrapped, or a table. Cells with data of users should be ``rich.text.Text``.
    """
    if isinstance(content, str):
        console.print(content, highlight=False, markup=False, emoji=False, soft_wrap=True)
        return
    if isinstance(content.title, str):
        content.title = rich.text.Text(content.title, style="table.title", justify="center")
    console.print(content, markup=False, emoji=False)
