"""Files of the Hugging Face hub, such as the weights of timm, in the hub's own cache folder. Needs no TensorFlow."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import pathlib
import re
import time
from typing import Any

import pooch
from absl import logging

from effnetv2_keras.basics.packages import need
from effnetv2_keras.weights import download
from effnetv2_keras.weights.download import DownloadError, Progress

DEFAULT_FILE = "model.safetensors"
"""The file of a repository if the name has none."""

_SECONDS = {"HF_HUB_ETAG_TIMEOUT": "60", "HF_HUB_DOWNLOAD_TIMEOUT": "180"}
"""Time limits of ``huggingface_hub``, seconds, which otherwise waits 10 s; it reads them when it is imported."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch(repository: str, file: str, cache_dir: pathlib.Path | None) -> pathlib.Path:
    """Returns the path of a file of a repository; downloads it if it is not in the cache folder.

    ``config.json`` of the repository is put beside it if there is one, because it says what the network computes.

    Args:
        repository: ``"OWNER/NAME"``.
        file: path of the file in the repository.
        cache_dir: the cache folder; None for the hub's own, which other programs use too.

    Raises:
        DownloadError: if the repository or the file does not exist, the hub cannot be reached, or the file has another
            checksum twice.
    """
    hub = _import()
    cached = hub.try_to_load_from_cache(repository, file, cache_dir=cache_dir)
    if isinstance(cached, str):
        return pathlib.Path(cached)
    Progress(file, address(repository, file)).say(f"Downloading {file} from {address(repository, file)}")
    for again in (False, True):
        path = _download(hub, repository, file, cache_dir, again)
        expected = path.resolve().name  # the name of large files in the cache is their checksum
        found = pooch.file_hash(str(path), "sha256") if _SHA256.fullmatch(expected) else expected
        if expected == found:
            with contextlib.suppress(Exception):  # most repositories have one, and none needs it
                hub.hf_hub_download(repository, "config.json", cache_dir=cache_dir, endpoint=_endpoint())
            return path
    path.resolve().unlink()
    raise DownloadError(
        f"The file at {address(repository, file)} is damaged, also after a second download: its SHA-256 is {found}, "
        f"but should be {expected}."
    )


def address(repository: str, file: str) -> str:
    """Returns the address of a file, on the server that ``HF_ENDPOINT`` names if it is set."""
    return f"{_endpoint()}/{repository}/resolve/main/{file}"


def cache_folder() -> pathlib.Path:
    """Returns the hub's own cache folder."""
    return pathlib.Path(_import().constants.HF_HUB_CACHE)


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _import() -> Any:
    for variable, value in _SECONDS.items():
        os.environ.setdefault(variable, value)
    hub = need("huggingface_hub", "A download from the Hugging Face hub")
    importlib.import_module("huggingface_hub.constants")
    return hub


def _download(hub: Any, repository: str, file: str, cache_dir: pathlib.Path | None, again: bool) -> pathlib.Path:
    """Returns the path of a file, downloaded even if it is there with ``again``; tries again if that may help."""
    from huggingface_hub import errors

    for attempt in itertools.count(1):
        try:
            return _try(hub, repository, file, cache_dir, again)
        except DownloadError:
            raise
        except Exception as error:  # the HTTP library, and so its errors, differ between versions of huggingface_hub
            if attempt == download.ATTEMPTS or not _may_pass(error, errors.LocalEntryNotFoundError):
                reason = str(_root(error)).strip().partition("\n")[0] or type(_root(error)).__name__
                raise DownloadError(f"Cannot download {address(repository, file)}: {reason}") from error
            wait = download.FIRST_PAUSE * 2 ** (attempt - 1)
            logging.warning("%s: %s; trying again in %g s", file, _root(error), wait)
            time.sleep(wait)
    raise AssertionError("unreachable")


def _try(hub: Any, repository: str, file: str, cache_dir: pathlib.Path | None, again: bool) -> pathlib.Path:
    from huggingface_hub import errors

    try:
        return pathlib.Path(
            hub.hf_hub_download(repository, file, cache_dir=cache_dir, endpoint=_endpoint(), force_download=again)
        )
    except errors.GatedRepoError as error:
        reason = f"{repository} asks you to accept its terms at {_endpoint()}/{repository}, and then to log in"
        raise DownloadError(f"{reason} with 'hf auth login' or HF_TOKEN.") from error
    except errors.RepositoryNotFoundError as error:
        raise DownloadError(
            f"There is no repository {repository} on the Hugging Face hub, or it is private (then set HF_TOKEN)."
        ) from error
    except errors.LocalEntryNotFoundError:  # also an EntryNotFoundError
        raise
    except errors.EntryNotFoundError as error:
        raise DownloadError(f"{repository} has no file {file}.{_listed(hub, repository)}") from error


def _may_pass(error: Exception, lost: type[Exception]) -> bool:
    """Returns whether another attempt can help; ``lost`` is the error of a connection that cannot be opened."""
    status = getattr(getattr(_root(error), "response", None), "status_code", None)
    if status is not None:
        return status in download.AGAIN
    if isinstance(error, lost):  # newer versions of huggingface_hub have tried again, and it takes long
        return False
    return not isinstance(error, ValueError) and getattr(error, "errno", None) is None  # such as no space on the disk


def _listed(hub: Any, repository: str) -> str:
    """Returns a sentence with the files of a repository; empty if the hub does not tell."""
    try:
        files = hub.HfApi(_endpoint()).list_repo_files(repository)
    except Exception:  # see _download
        return ""
    weights = [name for name in files if name.endswith((".safetensors", ".h5", ".keras", ".pth", ".bin", ".tgz"))]
    return f" Its files of weights are {', '.join(weights)}." if weights else " It has no file of weights."


def _root(error: BaseException) -> BaseException:
    """Returns the error that caused the others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
