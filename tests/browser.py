"""A headless Chromium without network, for tests of HTML pages."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_chromium():
    """Returns the path in ``CHROMIUM_PATH``, or that of the first Chromium on the PATH; None if there is none."""
    return os.environ.get("CHROMIUM_PATH") or next(filter(None, map(shutil.which, NAMES)), None)


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
