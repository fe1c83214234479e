"""Prints data such as class names and paths on a console as they are, not as rich's markup, and tables that fit it."""

from __future__ import annotations

import rich.console
import rich.table
import rich.text

_NOTHING = ({"0"}, {"-"})
"""The cells of columns that say nothing."""


def show(console: rich.console.Console, content: str | rich.table.Table) -> None:
    """Prints text or a table without reading ``[...]`` as markup or ``:...:`` as emoji.

    A table that is too wide for the console loses columns that are the same in every row, which its caption then names,
    and the space between columns. Text that is still too long continues on the next line of its cell.

    Args:
        console: output.
        content: text, which is not wrapped, or a table. Cells with data of users should be ``rich.text.Text``.
    """
    if isinstance(content, str):
        console.print(content, highlight=False, markup=False, emoji=False, soft_wrap=True)
        return
    if isinstance(content.title, str):
        content.title = rich.text.Text(content.title, style="table.title", justify="center")
    console.print(_fitted(content, console), markup=False, emoji=False)


def _fitted(table: rich.table.Table, console: rich.console.Console) -> rich.table.Table:
    """Returns the table, or a narrower one if it is wider than the console."""
    dropped: list[rich.table.Column] = []
    alike = [column for column in table.columns if len({str(cell) for cell in column.cells}) == 1]
    alike.sort(key=lambda column: {str(cell) for cell in column.cells} not in _NOTHING)
    for column in alike if table.row_count > 1 else ():
        if _fits(table, console):
            break
        dropped.append(column)
        table = _without(table, column)
    if dropped:
        same = ", ".join(f"{column.header} {next(iter(column.cells))}" for column in dropped)
        table.caption = rich.text.Text(f"In every row: {same}", style="table.caption", justify="center")
    if not _fits(table, console):
        _narrow(table, console.width)
    return table


def _narrow(table: rich.table.Table, width: int) -> None:
    """Removes the space between columns and breaks lines in cells, between words where that is enough."""
    table.padding = 0  # type: ignore[assignment]  # the setter takes what the getter does not return
    texts = [[str(text) for text in (column.header, *column.cells)] for column in table.columns]
    words = [max(len(word) for text in column for word in text.split() or [""]) for column in texts]
    room = width - len(words) - 1 - sum(words)
    wanted = [max(map(len, column)) - word for column, word in zip(texts, words)]
    for place in sorted(range(len(words)), key=wanted.__getitem__):
        column = table.columns[place]
        column.overflow = "fold"
        if room >= 0:
            given = min(room, wanted[place])
            column.width, room = words[place] + given, room - given


def _fits(table: rich.table.Table, console: rich.console.Console) -> bool:
    unlimited = console.options.update(width=10 * console.width)
    return console.measure(table, options=unlimited).maximum <= console.width


def _without(table: rich.table.Table, dropped: rich.table.Column) -> rich.table.Table:
    """Returns a table without a column."""
    columns = [column for column in table.columns if column is not dropped]
    rest = rich.table.Table(title=table.title, caption=table.caption)
    for column in columns:
        rest.add_column(column.header, justify=column.justify)
    for row in zip(*(column.cells for column in columns)):
        rest.add_row(*row)
    return rest
