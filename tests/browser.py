"""A headless Chromium without network, for tests of HTML pages."""

from __future__ import annotations

import html
import os
import pathlib
import re
import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_chromium():
    """Returns the path in ``CHROMIUM_PATH``, or that of the first Chromium on the PATH; None if there is none."""
    return os.environ.get("CHROMIUM_PATH") or next(filter(None, map(shutil.which, NAMES)), None)


def widths_of(chromium, page: pathlib.Path, folder: pathlib.Path, *, windows):
    """Returns how wide a page is in windows of some widths, pixels, and the other lines of the console.

    The page is shown in frames, because the window of a Chromium has a smallest width.
    """
    source = html.escape(page.read_text(encoding="utf-8"))
    measure = "console.log('width ' + this.width + ' ' + this.contentDocument.documentElement.scrollWidth)"
    frames = (
        f'<iframe width="{width}" height="900" style="border: 0" srcdoc="{source}" onload="{measure}"></iframe>'
        for width in windows
    )
    frame = folder / "frame.html"
    frame.write_text("<!DOCTYPE html>" + "".join(frames), encoding="utf-8")
    lines = open_page(chromium, frame, folder / "frame.png", size=(1500, 2000))
    measured = [re.search(r'"width (\d+) (\d+)"', line) for line in lines]
    shown = {int(match[1]): int(match[2]) for match in measured if match}
    return shown, [line for line, match in zip(lines, measured) if not match]


def open_page(chromium, page: pathlib.Path, screenshot: pathlib.Path, *, size=(1280, 2900)):
    """Opens a page, writes a screenshot of it, and returns the lines of its console."""
    options = (
        "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--enable-logging=stderr",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9",
        f"--user-data-dir={screenshot.parent / 'profile'}", f"--window-size={size[0]},{size[1]}",
        f"--screenshot={screenshot}", *(["--no-sandbox"] if os.geteuid() == 0 else []),
    )  # fmt: skip
    process = subprocess.run(
        [chromium, *options, page.as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    return [line for line in process.stderr.splitlines() if ":CONSOLE:" in line]
