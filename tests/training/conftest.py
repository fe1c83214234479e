from __future__ import annotations

import signal

import pytest

from tests.images import write_classes
from tests.short_runs import tiny_config, train_tiny


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """24 training and 13 evaluation images of three classes."""
    root = tmp_path_factory.mktemp("images")
    write_classes(root / "train", {"red": 8, "green": 8, "blue": 8})
    write_classes(root / "val", {"red": 5, "green": 4, "blue": 4}, seed=1)
    return root


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """The folder of an uninterrupted run on arrays."""
    from tests.training.test_loop import array_splits

    folder = tmp_path_factory.mktemp("plain") / "run"
    train_tiny(tiny_config(), folder, splits=array_splits(), draw=True)
    return folder


@pytest.fixture
def interruptible():
    """Python's own handler of SIGINT, which is not there where the suite was started in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
