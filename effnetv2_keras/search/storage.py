"""Opens the storage that all processes of a search share: a journal file or a database (no TensorFlow)."""

from __future__ import annotations

import pathlib

import optuna
import sqlalchemy.exc

from effnetv2_keras.errors import UsageError

JOURNAL_FILE = "journal.log"


def open_storage(url: str | None, folder: pathlib.Path) -> optuna.storages.BaseStorage:
    """Opens the storage of a search.

    Args:
        url: of a database, such as ``postgresql://user:password@host/name``; None takes a journal file in the folder,
            which processes share wherever they share the file system.
        folder: of the search; it exists.

    Raises:
        UsageError: if the database cannot be reached or its driver is missing.
    """
    if url is None:
        journal, path = optuna.storages.journal, str(folder / JOURNAL_FILE)
        # The other kind of lock, a link, is never found stale where the path is relative or another one elsewhere.
        return journal.JournalStorage(journal.JournalFileBackend(path, lock_obj=journal.JournalFileOpenLock(path)))
    try:
        try:
            return optuna.storages.RDBStorage(url)
        except sqlalchemy.exc.OperationalError:  # as when two processes make the tables at the same moment
            return optuna.storages.RDBStorage(url)
    except Exception as error:  # SQLAlchemy and each driver have their own
        raise UsageError(
            f"The search's storage {_without_password(url)} cannot be opened: {type(error).__name__}: "
            f"{str(error).splitlines()[0]}. Check search.storage (as in postgresql://user:password@host/name), the "
            "server, and that the driver is installed; search.storage=None takes a journal file in --model_dir."
        ) from error


def _without_password(url: str) -> str:
    head, separator, tail = url.rpartition("@")
    return f"{head.split('://')[0]}://...@{tail}" if separator else url
