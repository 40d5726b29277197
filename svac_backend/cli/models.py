"""`svac-backend models`: which models are here, downloading, verifying and removing them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer
from rich.markup import escape
from rich.table import Table

from svac_backend.cli.terminal import bar, console, show_table
from svac_backend.errors import SvacError
from svac_backend.settings import Settings
from svac_backend.svac.files import hub
from svac_backend.svac.files.weights import (
    ALLOWED,
    EMBEDDED,
    locate,
    model_version,
    preset_of,
    split_hub_name,
    weight_files,
)

GB = 1e9


@dataclass(frozen=True)
class Published:
    """A model that the authors of the method published.

    Attributes:
        name: its repository.
        preset: how it is run.
        size: bytes of its weights in bfloat16; files that hold a part in f32 are larger.
    """

    name: str
    preset: str
    size: float


PUBLISHED = (
    Published("ByteDance/Sa2VA-1B", "sa2va", 2.3 * GB),
    Published("ByteDance/Sa2VA-4B", "sa2va", 7.9 * GB),
    Published("ByteDance/Sa2VA-8B", "sa2va", 16.6 * GB),
    Published("ByteDance/Sa2VA-26B", "sa2va", 51.6 * GB),
    Published("QuanzhuNiu/SaSaSa2VA-4B", "sasasa2va", 7.9 * GB),
    Published("QuanzhuNiu/SaSaSa2VA-26B", "sasasa2va", 51.6 * GB),
)


def _size(size: float) -> str:
    return f"{size / GB:.1f} GB" if size >= 0.1 * GB else f"{size / 1e6:.1f} MB"


def show(settings: Settings) -> None:
    """Print a table of embedded, downloaded and published models; the one in use has a star."""
    table = Table("", "model", "preset", "size", "where", box=None, pad_edge=False)

    def row(name: str, preset: str, size: str, where: str, aliases: tuple[str, ...] = ()) -> None:
        used = settings.model in (name, *aliases)
        table.add_row("*" if used else "", escape(name), escape(preset), size, escape(where))

    for name, folder in EMBEDDED.items():
        row(name, preset_of(folder), _size(_bytes(folder)), "embedded")
    here = hub.downloaded()
    for one in here:
        refs = one.refs or (one.commit[:12],)
        aliases = tuple(f"{one.repository}@{ref}" for ref in (*one.refs, one.commit))
        name = one.repository if "main" in one.refs else f"{one.repository}@{refs[0]}"
        row(name, preset_of(one.folder), _size(one.size), f"downloaded, {one.commit[:12]}", aliases)
    for known in PUBLISHED:
        if known.name not in {one.repository for one in here}:
            pinned = (settings.model,) if settings.model.startswith(f"{known.name}@") else ()
            row(known.name, known.preset, f"about {_size(known.size)}", "not downloaded", pinned)
    if split_hub_name(settings.model) is None and settings.model not in EMBEDDED:
        folder = locate(settings.model)
        row(settings.model, preset_of(folder), _size(_bytes(folder)), "folder")
    show_table(table)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in weight_files(folder))


def download(name: str) -> None:
    """Download a model with a progress bar; one that is here is looked up again, for a branch may have moved.

    Raises:
        SvacError: it is not a hub repository, or can't be downloaded.
    """
    wanted = split_hub_name(name)
    if wanted is None:
        locate(name)  # says so if it is nowhere
        console.print(f"{escape(name)} is not a hub repository: there is nothing to download.")
        return
    with bar(f"downloading {name}") as progress:
        folder = hub.download(*wanted, progress=lambda done, total: progress(done / max(total, 1)))
    model_version.cache_clear()
    console.print(f"{escape(name)} is in {escape(str(folder))}, version {model_version(name)}.")


def verify(name: str) -> None:
    """Check a model that is here: hashes where the hub gave them, headers, and that its parts fit together.

    Raises:
        SvacError: something is wrong with it; the message says what.
    """
    folder = locate(name)
    files = sorted(path for pattern in ALLOWED for path in folder.glob(pattern))
    known = 0
    with bar("reading") as progress:
        done, total = 0, sum(path.stat().st_size for path in files)
        for path in files:
            intact = hub.is_intact(path)
            if intact is False:
                raise SvacError(
                    f"{path} is not what the hub has: its hash differs.",
                    f"Remove it with: svac-backend models remove {name}; and download it again.",
                )
            known += intact is True
            done += path.stat().st_size
            progress(done / max(total, 1))
    tensors = _check_parts(folder)
    hashes = (
        f"{known} of {len(files)} files have the hub's hash" if known else "the hub's hashes are not known"
    )
    console.print(
        f"{escape(name)} is whole: {tensors} tensors, {_size(_bytes(folder))}, fit config.json and tokenizer; "
        f"{hashes}. Version {model_version(name)}."
    )


def _check_parts(folder: Path) -> int:
    """Check headers, configuration and tokenizer against each other, on the meta device; returns the tensors."""
    # Here, since it imports torch.
    from accelerate import init_empty_weights

    from svac_backend.svac.files import checkpoints
    from svac_backend.svac.language.tokenizer import tokenizer_file
    from svac_backend.svac.model import Svac

    shapes = checkpoints.tensor_shapes(folder)
    config = checkpoints.read_config(folder)
    with init_empty_weights():
        model = Svac(config, tokenizer_file(folder))
    checkpoints.check(model, shapes, config if checkpoints.is_published(folder) else None)
    return len(shapes)


def remove(name: str, *, yes: bool = False) -> None:
    """Delete a downloaded model, `owner/name[@revision]`, from the hub's cache, after asking unless `yes`.

    Raises:
        SvacError: it is embedded, a folder, or not there; only what was downloaded is deleted.
    """
    wanted = split_hub_name(name)
    if wanted is None:
        raise SvacError(
            f"{name} was not downloaded from the hub, so it is not removed.",
            "Delete the folder yourself if you do not need it; embedded models belong to the package.",
        )
    if not yes and not typer.confirm(f"Delete {name} from the hub's cache?"):
        console.print("Nothing was removed.")
        return
    freed = hub.remove(*wanted)
    console.print(f"{escape(name)} is removed; {_size(freed)} are free again.")
