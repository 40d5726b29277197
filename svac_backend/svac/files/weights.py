"""Where a model's files are and what its version is called. Free of torch: the web process asks too."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.settings import Settings
from svac_backend.svac.families import registry
from svac_backend.svac.families.family import Family, Folder

EMBEDDED = {"svac-tiny": Path(__file__).parents[2] / "weights" / "svac-tiny"}
INDEX = "model.safetensors.index.json"
# The largest header that safetensors itself takes.
_HEADER_BYTES = 100_000_000

# Weights as safetensors, configuration and tokenizer, at the top of the repository. Never pickle (.bin, .pt), never
# code (.py): neither is needed, and both would run what their authors like.
ALLOWED = ("*.safetensors", "*.json", "tokenizer.model", "merges.txt")
IGNORED = ("*/*",)
# owner/name, and the revision that may follow; the hub's own rules for names.
_HUB_NAME = re.compile(r"^(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?$")


def split_hub_name(name: str) -> tuple[str, str | None] | None:
    """Return (`owner/name`, revision or None) of `owner/name` or `owner/name@revision`, or None if it is neither.

    A folder that is there, and a path that begins with a dot or a slash, is a folder and no repository.
    """
    match = _HUB_NAME.match(name)
    if match is None or name.startswith((".", "~")) or Path(name).is_dir():
        return None
    return match["repository"], match["revision"]


def snapshot(repository: str, revision: str | None = None) -> Path | None:
    """Return the folder of a downloaded repository, or None where it is not, or not wholly, here. No network.

    Args:
        repository: `owner/name`.
        revision: branch, tag or commit; None is `main` as it was when it was downloaded.
    """
    # Here, so that a folder needs no client of the hub.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(ALLOWED),
                ignore_patterns=list(IGNORED),
                local_files_only=True,
            )
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return folder if (folder / "config.json").is_file() else None


def locate(name_or_folder: str) -> Path:
    """Return the folder of an embedded model's name, of a folder's path, or of a downloaded hub repository.

    Nothing is downloaded and the network is not asked.

    Args:
        name_or_folder: `svac-tiny`, a path, or `owner/name[@revision]`.

    Raises:
        SvacError: nothing of that name is here.
    """
    folder = EMBEDDED.get(name_or_folder, Path(name_or_folder))
    if (folder / "config.json").is_file():
        return folder
    if wanted := split_hub_name(name_or_folder):
        if found := snapshot(*wanted):
            return found
        raise SvacError(
            f"The model {name_or_folder} is not downloaded yet.",
            f"The worker downloads it when it starts; or run: svac-backend models download {name_or_folder}",
        )
    base, at, _ = name_or_folder.rpartition("@")
    if at and (base in EMBEDDED or Path(base).is_dir()):
        raise SvacError(
            f"{name_or_folder!r} has a revision, which only hub repositories have.",
            "Unset SVAC_MODEL_REVISION.",
        )
    raise SvacError(
        f"There is no model at {name_or_folder!r}.",
        f"Set SVAC_MODEL to one of {', '.join(EMBEDDED)}, to a folder that holds config.json and safetensors, or to a "
        "hub repository such as ByteDance/Sa2VA-4B.",
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        SvacError: it can't be read, or is something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SvacError(f"{path} can't be read ({error}).", "Download the model again.") from error
    if not isinstance(data, dict):
        raise SvacError(f"{path} holds no JSON object.", "Download the model again.")
    return data


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder, sorted by name: one, or the shards that the index names.

    Raises:
        SvacError: the folder has none, or a shard is missing.
    """
    if (folder / INDEX).is_file() and not (folder / "model.safetensors").is_file():
        shards = read_json(folder / INDEX).get("weight_map")
        names = sorted(set(shards.values())) if isinstance(shards, dict) else []
        # A name with a folder in it would reach outside of the model.
        files = [folder / name for name in names if isinstance(name, str) and Path(name).name == name]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise SvacError(
                f"{folder} lacks {len(missing)} of {len(files)} weight files, for example {missing[0]}.",
                "Download the model again; what is there is kept.",
            )
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise SvacError(f"{folder} holds no safetensors file.", "Download the model again.")
    return files


def described(folder: Path) -> Folder:
    """Return what a model's folder says of itself, without reading its weights.

    Raises:
        SvacError: config.json, the index of the weights or a file's header can't be read.
    """
    # A hub snapshot is <models--owner--name>/snapshots/<commit>.
    name = folder.parent.parent.name if folder.parent.name == "snapshots" else folder.name
    return Folder(read_json(folder / "config.json"), tensor_names(folder), name)


def tensor_names(folder: Path) -> frozenset[str]:
    """Return the names of a folder's tensors, from the index or the headers of its files; none without weights.

    Raises:
        SvacError: the index, or a header, can't be read.
    """
    if (folder / INDEX).is_file() and not (folder / "model.safetensors").is_file():
        return frozenset(read_json(folder / INDEX).get("weight_map") or ())
    names: set[str] = set()
    for path in folder.glob("*.safetensors"):
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(size, _HEADER_BYTES)))
            names.update(header)
        except (OSError, ValueError, TypeError) as error:
            raise SvacError(f"{path} is damaged ({error}).", "Download the model again.") from error
    return frozenset(names - {"__metadata__"})


def family_in(folder: Path) -> Family:
    """Return the family of a model's folder, in our layout or in a published one.

    Raises:
        SvacError: it is of none that runs here, or config.json can't be read.
    """
    data = read_json(folder / "config.json")
    if data.get("format") == "svac-backend":
        return registry.named(str(data.get("family", registry.Ours.name)))
    return registry.recognise(described(folder))


def preset_of(folder: Path) -> str:
    """Return the preset that a model runs with: what our config.json says, or what the authors' model is.

    Raises:
        SvacError: config.json can't be read, or the model is of no family that runs here.
    """
    data = read_json(folder / "config.json")
    return str(data["preset"]) if "preset" in data else family_in(folder).preset


@lru_cache(maxsize=8)
def model_version(
    name_or_folder: str,
    preset: str | None = None,
    generate: bool = False,
    original_sam: Path | None = None,
) -> str:
    """Return `<preset>-<first 8 hex digits of the weights' hash>`, e.g. `svac-3fa9c1d2`; see `version_of` for the rest.

    Raises:
        SvacError: the model is not here.
    """
    folder = locate(name_or_folder)
    parts = [preset or preset_of(folder)]
    if generate:
        parts.append("gen")
    if original_sam is not None:
        files = weight_files(original_sam) if original_sam.is_dir() else [original_sam]
        parts.append(f"sam{_fingerprint(files)}")
    return "-".join([*parts, _fingerprint(weight_files(folder))])


def version_of(settings: Settings) -> str:
    """Return the version of the model that the settings name, run as they say; without an adapter.

    It is `<preset>[-gen][-sam<8 hex digits>]-<8 hex digits>`: with `-gen` the model writes its answers, `-sam` names
    the original SAM-2 that propagates.

    Raises:
        SvacError: the model, or the original SAM-2, is not here.
    """
    return model_version(settings.model, settings.preset, settings.generate, settings.original_sam)


def _fingerprint(files: Sequence[Path]) -> str:
    """Return 8 hex digits of the SHA-256 over each file's name and size and its first and last megabyte.

    So a checkpoint of 50 GB is named in milliseconds.
    """
    digest = hashlib.sha256()
    chunk = 1 << 20
    for path in files:
        try:
            size = path.stat().st_size
            digest.update(f"{path.name}:{size}".encode())
            with path.open("rb") as file:
                digest.update(file.read(chunk))
                file.seek(max(0, size - chunk))
                digest.update(file.read(chunk))
        except OSError as error:
            raise SvacError(
                f"{path} can't be read ({error.strerror}).", "Check the path in the settings."
            ) from error
    return digest.hexdigest()[:8]
