"""`svac-backend models`: list models that are here or can be downloaded; download, verify, try and remove them."""

from __future__ import annotations

import resource
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import typer
from rich.markup import escape
from rich.table import Table

from svac_backend.cli.terminal import answer, bar, console, rows_of
from svac_backend.errors import SvacError
from svac_backend.settings import Settings
from svac_backend.svac.files import hub
from svac_backend.svac.files.catalogue import (
    PUBLISHED,
    SOURCES,
    HubFacts,
    PublishedModel,
    ask_hub_about,
    cpu_bytes,
    gpu_bytes,
)
from svac_backend.svac.files.weights import (
    ALLOWED,
    EMBEDDED,
    locate,
    model_version,
    preset_of,
    split_hub_name,
    weight_files,
)
from svac_backend.synthetic.layout import SceneConfig
from svac_backend.synthetic.scene import DEMO_SEEDS, make_scene

GB = 1e9
# Size and length of the clip that `models check` makes.
CHECK_FRAMES = 12


def _size(size: float) -> str:
    return f"{size / GB:.1f} GB" if size >= 0.1 * GB else f"{size / 1e6:.1f} MB"


def show(settings: Settings, *, as_json: bool = False) -> None:
    """Print a table of embedded, downloaded and published models; the one in use has a star.

    The hub is asked about those that are not here; if it does not answer, only what is known without it is shown.
    """
    table = Table("", "model", "preset", "parameters", "size", "licence", box=None, pad_edge=False)
    for title in ("memory to run", "to fine-tune", "J&F MeViS / DAVIS", "fits here", "where"):
        table.add_column(title)
    device = _device()

    def row(
        names: tuple[str, ...],
        preset: str,
        size: str,
        where: str,
        known: PublishedModel | None = None,
        facts: HubFacts | None = None,
    ) -> None:
        parameters = (facts and facts.parameters) or (known.parameters if known else None)
        table.add_row(
            "*" if settings.model in names else "",
            escape(names[0]),
            escape(preset),
            f"{parameters / 1e9:.1f} B" if parameters else "",
            size,
            escape(facts.licence) if facts else "",
            f"{device.needed(parameters) / GB:.0f} GB" if parameters else "",
            f"{known.fine_tuning / GB:.0f} GB" if known and known.fine_tuning else "",
            _figures(known),
            device.fits(parameters) if parameters else "",
            escape(where),
        )

    for name, folder in EMBEDDED.items():
        row((name,), preset_of(folder), _size(_bytes(folder)), "embedded")
    published = {known.name: known for known in PUBLISHED}
    here = hub.downloaded()
    for one in here:
        refs = one.refs or (one.commit[:12],)
        aliases = tuple(f"{one.repository}@{ref}" for ref in (*one.refs, one.commit))
        name = one.repository if "main" in one.refs else f"{one.repository}@{refs[0]}"
        where = f"downloaded, {one.commit[:12]}"
        row((name, *aliases), _preset(one.folder), _size(one.size), where, published.get(one.repository))
    missing = [known for known in PUBLISHED if known.name not in {one.repository for one in here}]
    facts, error = ask_hub_about([known.name for known in missing])
    for known in missing:
        pinned = (settings.model,) if settings.model.startswith(f"{known.name}@") else ()
        said = facts.get(known.name)
        size = _size(said.download) + _dtypes(said) if said else ""
        row((known.name, *pinned), known.preset, size, "not downloaded", known, said)
    if split_hub_name(settings.model) is None and settings.model not in EMBEDDED:
        folder = locate(settings.model)
        row((settings.model,), preset_of(folder), _size(_bytes(folder)), "folder")
    answer(rows_of(table), table, as_json=as_json)
    console.print(
        f"Here: {device.described}. Memory is computed from the number of parameters, not measured."
    )
    for key, source in SOURCES.items():
        console.print(escape(f"[{key}] {source}"))
    if error is not None:
        console.print(
            f"Only the hub knows sizes and licences of models that are not here. {escape(str(error))}"
        )


def _figures(known: PublishedModel | None) -> str:
    """Return the published scores, such as `47.0 / 69.5 [a]`."""
    if known is None or known.mevis is None:
        return ""
    return escape(f"{known.mevis:.1f} / {f'{known.davis:.1f}' if known.davis else '-'} [{known.source}]")


def _dtypes(facts: HubFacts) -> str:
    """Return the dtypes in the files, such as ` F32, BF16`: they explain downloads twice as large as the memory."""
    largest = sorted(facts.dtypes, key=lambda kind: -facts.dtypes[kind])
    return f" {', '.join(largest)}" if largest else ""


@dataclass(frozen=True)
class _Device:
    """The device that a model would run on here, with its memory in bytes: a GPU's or the machine's."""

    described: str
    free: int
    gpu: bool

    def needed(self, parameters: int) -> float:
        return gpu_bytes(parameters) if self.gpu else cpu_bytes(parameters)

    def fits(self, parameters: int) -> str:
        return "yes" if self.needed(parameters) <= self.free else "no"


def _device() -> _Device:
    # Imported here, since it is slow to import.
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return _Device(f"{name}, {free / GB:.0f} of {total / GB:.0f} GB free, in bf16", free, True)
    memory = psutil.virtual_memory()
    room = f"{memory.available / GB:.0f} of {memory.total / GB:.0f} GB of memory free"
    return _Device(f"no GPU that torch can use, {room}, in f32", memory.available, False)


def _preset(folder: Path) -> str:
    """Return a downloaded model's preset; the hub's cache may hold models that can't run here."""
    try:
        return preset_of(folder)
    except SvacError:
        return "can't run here"


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in weight_files(folder))


def download(name: str) -> None:
    """Download a model with a progress bar; a model that is here is looked up again, since a branch may have moved.

    Raises:
        SvacError: it is not a hub repository, or can't be downloaded.
    """
    wanted = split_hub_name(name)
    if wanted is None:
        locate(name)  # raises an error if there is no such model
        console.print(f"{escape(name)} is not a hub repository: there is nothing to download.")
        return
    with bar(f"downloading {name}") as progress:
        folder = hub.download(*wanted, progress=lambda done, total: progress(done / max(total, 1)))
    model_version.cache_clear()
    console.print(f"{escape(name)} is in {escape(str(folder))}, version {model_version(name)}.")


def verify(name: str) -> None:
    """Check a model that is here: hashes as far as the hub gave them, headers, and that its parts fit together.

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
                    f"{path} is not the hub's file: its hash differs.",
                    f"Remove it with `svac-backend models remove {name}`, then download it again.",
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
    """Check headers, configuration and tokenizer against each other, on the meta device; return the number of
    tensors."""  # Imported here, since it imports torch.
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


def check(settings: Settings, name: str) -> None:
    """Load a model that is here, let it segment a generated clip, and print what it ran on and how long it took.

    Raises:
        SvacError: it is not here or damaged, the device is missing, memory ran out, or its output is not finite.
    """
    locate(name)  # reports a mistake before torch is imported
    # Imported here, since they import torch.
    import torch

    from svac_backend.svac.astc import plan
    from svac_backend.svac.model import Svac
    from svac_backend.video.reader import as_video

    _explain_missing_cuda(torch.version.cuda)
    scene = make_scene(DEMO_SEEDS.start, SceneConfig(frames=CHECK_FRAMES))
    asked = next(one for one in scene.expressions if len(one.targets) == 1)
    truth = scene.masks[asked.targets[0]]
    started = time.monotonic()
    try:
        model = Svac.from_pretrained(name, device=settings.device, dtype=settings.dtype)
        loaded = time.monotonic()
        on_gpu = model.device.type == "cuda"
        if on_gpu:  # the first run includes the start of CUDA
            list(model.segment(scene.frames, [asked.text]))
            torch.cuda.synchronize()
        begun = time.monotonic()
        with as_video(scene.frames) as video:
            model.seg_embeddings(video, plan(len(video), model.config.method), [asked.text])
        understood = time.monotonic()
        frames = list(model.segment(scene.frames, [asked.text]))
        done = time.monotonic()
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise SvacError(
            f"Memory ran out while {name} ran on {settings.device}.",
            "Choose a smaller model (svac-backend models list shows what fits), or stop what else uses the memory.",
        ) from error
    masks, scores = np.stack([frame.masks[0] for frame in frames]), np.stack([f.scores for f in frames])
    if not np.isfinite(scores).all():
        raise SvacError(
            f"{name} computes NaN or infinity in {settings.dtype} on {model.device}.",
            "Try SVAC_DTYPE=float32 or bfloat16; svac-backend models verify tells whether its files are whole.",
        )
    union = (masks | truth).sum((1, 2))
    overlap = np.where(union > 0, (masks & truth).sum((1, 2)) / np.maximum(union, 1), 1.0)
    thinking, whole = understood - begun, done - understood
    kind = str(next(model.parameters()).dtype).removeprefix("torch.")
    console.print(f"{escape(name)} runs: preset {model.config.preset}, {kind} on {model.device}.")
    if on_gpu:
        held, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
        console.print(
            f"CUDA {torch.version.cuda} was used: {torch.cuda.get_device_name(model.device)} holds {held / GB:.2f} GB "
            f"of weights; peak {peak / GB:.2f} GB."
        )
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        console.print(f"No GPU was used; peak {peak / GB:.2f} GB of memory.")
    console.print(
        f"Loading {loaded - started:.1f} s; seeing the clip and understanding the sentence {thinking:.2f} s; masks of "
        f"{len(frames)} frames of {scene.frames.shape[2]}x{scene.frames.shape[1]} {max(whole - thinking, 0.0):.2f} s."
    )
    console.print(
        f"{escape(repr(asked.text))}: a mask on {int(masks.any((1, 2)).sum())} of {len(frames)} frames, mean IoU with "
        f"the truth {overlap.mean():.2f} (a generated clip of coloured shapes)."
    )


def _explain_missing_cuda(built_for: str | None) -> None:
    """Explain why torch does not see a GPU that the driver sees."""
    import torch

    if torch.cuda.is_available() or shutil.which("nvidia-smi") is None:
        return
    if built_for is None:
        console.print(
            "This machine has NVIDIA's driver, and this torch is a build for CPUs. Install again without "
            "--torch-index, or with PyTorch's index of CUDA wheels: ./scripts/setup.sh --torch-index URL",
            style="yellow",
        )
    else:
        console.print(
            f"This machine has NVIDIA's driver, and torch, built for CUDA {built_for}, can't use it. Run nvidia-smi: "
            "if it shows a GPU and an older CUDA version, update the driver.",
            style="yellow",
        )


def remove(name: str, *, yes: bool = False) -> None:
    """Delete a downloaded model, `owner/name[@revision]`, from the hub's cache, after asking unless `yes`.

    Raises:
        SvacError: it is embedded, a folder, or not there; only downloaded models are deleted.
    """
    wanted = split_hub_name(name)
    if wanted is None:
        raise SvacError(
            f"{name} was not downloaded from the hub, so it cannot be removed.",
            "Delete the folder yourself if you do not need it; embedded models belong to the package.",
        )
    if not yes and not typer.confirm(f"Delete {name} from the hub's cache?"):
        console.print("Nothing was removed.")
        return
    freed = hub.remove(*wanted)
    console.print(f"{escape(name)} is removed; {_size(freed)} are free again.")
