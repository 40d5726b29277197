"""Models of the Hugging Face hub: what is here, and downloading what is not. Free of torch.

huggingface_hub does the work and is set by its own variables: HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CachedRepoInfo, constants, scan_cache_dir, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is that of its HTTP library
    CacheNotFound,
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm.std import tqdm

from svac_backend.errors import SvacError
from svac_backend.svac.files.weights import ALLOWED, IGNORED, locate, snapshot, split_hub_name

# Left free: the data folder needs room, too.
SPARE_BYTES = 1 << 30

Progress = Callable[[int, int], None]

_COPY = "Or copy the model's files to a folder and set SVAC_MODEL to it."

log = logging.getLogger(__name__)


def locate_or_download(name_or_folder: str, progress: Progress | None = None) -> Path:
    """Return a model's folder; a hub repository that is not here is downloaded first.

    Raises:
        SvacError: there is no such model, or it can't be downloaded.
    """
    wanted = split_hub_name(name_or_folder)
    if wanted and snapshot(*wanted) is None:
        return download(*wanted, progress=progress)
    return locate(name_or_folder)


def download(repository: str, revision: str | None = None, *, progress: Progress | None = None) -> Path:
    """Download a repository's weights, configuration and tokenizer into the hub's cache.

    A connection that breaks is resumed where it broke; when all tries fail, the files that are complete are kept.

    Args:
        repository: `owner/name`.
        revision: branch, tag or commit; None is `main`.
        progress: called with bytes done and bytes to do; by default a line is logged now and then.

    Returns:
        The folder.

    Raises:
        SvacError: the hub can't be reached or has no such model, access is not given, or the disk is too full.
    """
    name = f"{repository}@{revision}" if revision else repository
    arguments: dict[str, Any] = {
        "repo_id": repository,
        "revision": revision,
        "allow_patterns": list(ALLOWED),
        "ignore_patterns": list(IGNORED),
    }
    with explained(name):
        try:
            files = snapshot_download(**arguments, dry_run=True, tqdm_class=_bar(_silent, 0))
        except DryRunError as error:
            raise error.__cause__ or error from None
        if not any(file.filename.endswith(".safetensors") for file in files):
            raise SvacError(
                f"{name} has no weights in the safetensors format.",
                "Choose another revision or model: pickled weights (.bin) can run code and are never loaded.",
            )
        total = sum(file.file_size for file in files if file.will_download)
        _check_disk(name, total)
        log.info("downloading %s: %.2f GB to %s", name, total / 1e9, constants.HF_HUB_CACHE)
        report = progress or _logged(name)
        folder = Path(snapshot_download(**arguments, tqdm_class=_bar(report, total)))
        report(total, total)
    return folder


@dataclass(frozen=True)
class Downloaded:
    """A revision of a repository in the hub's cache.

    Attributes:
        repository: `owner/name`.
        refs: branches and tags that it was downloaded as.
        commit: 40 hex digits.
        folder: where its files are.
        size: bytes of its files.
    """

    repository: str
    refs: tuple[str, ...]
    commit: str
    folder: Path
    size: int


def downloaded() -> list[Downloaded]:
    """Return the revisions of models in the hub's cache that could be this project's, by name."""
    found = [
        Downloaded(
            repo.repo_id, tuple(sorted(rev.refs)), rev.commit_hash, rev.snapshot_path, rev.size_on_disk
        )
        for repo in _cached_models()
        for rev in repo.revisions
        if (rev.snapshot_path / "config.json").is_file() and any(rev.snapshot_path.glob("*.safetensors"))
    ]
    return sorted(found, key=lambda one: (one.repository, one.commit))


def remove(repository: str, revision: str | None = None) -> int:
    """Delete a repository from the hub's cache, or one revision of it; returns the bytes that became free.

    Args:
        repository: `owner/name`.
        revision: branch, tag or commit; None is all that was downloaded.

    Raises:
        SvacError: it is not there.
    """
    commits = [
        rev.commit_hash
        for repo in _cached_models()
        if repo.repo_id == repository
        for rev in repo.revisions
        if revision is None or revision in rev.refs or rev.commit_hash.startswith(revision)
    ]
    if not commits:
        raise SvacError(
            f"{repository}{f'@{revision}' if revision else ''} is not in {constants.HF_HUB_CACHE}.",
            "See what is there with: svac-backend models list",
        )
    plan = scan_cache_dir(constants.HF_HUB_CACHE).delete_revisions(*commits)
    plan.execute()
    return plan.expected_freed_size


def _cached_models() -> list[CachedRepoInfo]:
    try:
        return [repo for repo in scan_cache_dir(constants.HF_HUB_CACHE).repos if repo.repo_type == "model"]
    except CacheNotFound:
        return []


def is_intact(path: Path) -> bool | None:
    """Return whether a downloaded file has the hash that the hub gave it, or None where that is not known.

    The cache keeps a file under its hash: SHA-256 for large files (LFS), git's own SHA-1 for others.
    """
    name = path.resolve().name
    if not path.is_symlink() or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name):
        return None
    digest = hashlib.sha256() if len(name) == 64 else hashlib.sha1(usedforsecurity=False)
    if len(name) == 40:
        digest.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest() == name


def _check_disk(name: str, needed: int) -> None:
    """Refuse before the first byte rather than after the last free one."""
    cache = Path(constants.HF_HUB_CACHE).expanduser()
    there = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if needed and free < needed + SPARE_BYTES:
        raise SvacError(
            f"{name} needs {needed / 1e9:.1f} GB, and {there} has {free / 1e9:.1f} GB free.",
            "Free some space, or set HF_HOME to a folder on a larger disk.",
        )


@contextmanager
def explained(name: str, *, looking: bool = False) -> Iterator[None]:
    """Turn what huggingface_hub raises into what a user can do; `looking`: nothing is downloaded."""
    try:
        yield
    except GatedRepoError as error:
        raise SvacError(
            f"{name} is only open to those who asked for access.",
            f"Ask for it at {constants.ENDPOINT}/{name.partition('@')[0]}, create a token, and set HF_TOKEN.",
        ) from error
    except RevisionNotFoundError as error:
        raise SvacError(
            f"{name.partition('@')[0]} has no revision {name.partition('@')[2]!r}.",
            "Set SVAC_MODEL_REVISION to a branch, tag or commit that the repository has, or unset it.",
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise SvacError(
            f"There is no model {name} on {constants.ENDPOINT}, or it is private.",
            "Correct SVAC_MODEL; for a private model set HF_TOKEN; a folder of that name is not here either.",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, HTTPError, OSError) as error:
        if constants.is_offline_mode():
            reason, hint = "HF_HUB_OFFLINE is set", "Unset HF_HUB_OFFLINE"
        else:
            reason, hint = (
                _reason(error),
                f"Check that this machine reaches {constants.ENDPOINT} and try again",
            )
        raise SvacError(
            f"{name} can't be {'looked up' if looking else 'downloaded'}: {reason}.",
            f"{hint}." if looking else f"{hint}; what is here already is kept. {_COPY}",
        ) from error


def _reason(error: BaseException) -> str:
    """Return the first line of the deepest cause: huggingface_hub wraps a refused connection several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")


def _silent(done: int, total: int) -> None:
    """Report nothing."""


def _logged(name: str, every_s: float = 15.0) -> Progress:
    """Return a progress that logs a line every few seconds."""
    begun = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if total and (now - last >= every_s or done == total):
            last = now
            speed = done / 1e6 / max(now - begun, 1e-3)
            log.info(
                "downloading %s: %.0f %% of %.2f GB, %.1f MB/s", name, 100 * done / total, total / 1e9, speed
            )

    return report


def _bar(report: Progress, total: int) -> type[tqdm]:
    """Return a bar class for huggingface_hub that draws nothing and reports the bytes instead."""

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # huggingface_hub makes bars of bytes and one of files.
            self.counts_bytes = kwargs.get("unit") == "B"
            super().__init__(
                *args,
                **(kwargs | {"file": io.StringIO(), "leave": False, "mininterval": 0.5, "disable": False}),
            )

        def display(self, msg: str | None = None, pos: int | None = None) -> bool:
            if self.counts_bytes and self.n:
                report(min(int(self.n), total), total)
            return True

    return Bar
