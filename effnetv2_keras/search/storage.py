"""The storage that all processes of a search share: a journal file or a database (no TensorFlow)."""

from __future__ import annotations

import pathlib

import optuna
import sqlalchemy.exc

from effnetv2_keras.errors import UsageError

JOURNAL_FILE = "journal.log"


def open_storage(url: str | None, folder: pathlib.Path) -> optuna.storages.BaseStorage:
    """Opens the storage of a search.

    Args:
        url: URL of a database, such as ``postgresql://user:password@host/name``. None uses a journal file in
            ``folder``, which all processes with access to this file system can share.
        folder: folder of the search, which must exist.

    Raises:
        UsageError: if the journal is damaged, or the database cannot be reached or its driver is missing.
    """
    if url is None:
        journal, path = optuna.storages.journal, str(folder / JOURNAL_FILE)
        # Optuna's other lock, a link, is never recognized as stale if the path is relative or differs between machines.
        lock = journal.JournalFileOpenLock(path)
        try:
            return journal.JournalStorage(journal.JournalFileBackend(path, lock_obj=lock))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, AssertionError) as error:
            raise UsageError(
                f"{path} cannot be read: {str(error) or type(error).__name__}. Restore an intact copy "
                "of it, or choose another --model_dir for a new search."
            ) from error
    try:
        try:
            return optuna.storages.RDBStorage(url)
        except sqlalchemy.exc.OperationalError:  # for example when two processes create the tables at the same time
            return optuna.storages.RDBStorage(url)
    except Exception as error:  # SQLAlchemy and each driver raise exceptions of their own types
        raise UsageError(
            f"The search's storage {_without_password(url)} cannot be opened: {type(error).__name__}: "
            f"{str(error).splitlines()[0]}. Check search.storage (such as postgresql://user:password@host/name), the "
            "server, and that the driver is installed; or use search.storage=None for a journal file in --model_dir."
        ) from error


def _without_password(url: str) -> str:
    head, separator, tail = url.rpartition("@")
    return f"{head.split('://')[0]}://...@{tail}" if separator else url
