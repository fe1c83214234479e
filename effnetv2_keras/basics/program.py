"""The command with which the command line was started, to quote it in messages and to start it again."""

from __future__ import annotations

import pathlib
import sys

_PACKAGE = pathlib.Path(__file__).parents[1]


def program() -> tuple[str, ...]:
    """Returns the words that start the command line as the user started it.

    Returns:
        ``("effnetv2",)`` for the installed command, ``("python", "-m", "effnetv2_keras")`` for the module, and
        ``("python", "main.py")`` for the file in a checkout. Other programs that use the package get the last one in
        a checkout, and the installed command elsewhere.
    """
    if pathlib.Path(sys.argv[0]).name.partition(".")[0] in ("effnetv2", "effnetv2-script"):
        return ("effnetv2",)
    if is_module():
        return ("python", "-m", _PACKAGE.name)
    return ("python", "main.py") if (_PACKAGE.parent / "main.py").is_file() else ("effnetv2",)


def is_module() -> bool:
    """Returns whether this process runs ``python -m effnetv2_keras``."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name == f"{_PACKAGE.name}.__main__"
