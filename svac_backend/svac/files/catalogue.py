"""The published models that run here: what is known of each, and what the hub says about it now. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch

from huggingface_hub import HfApi, constants

from svac_backend.errors import SvacError
from svac_backend.svac.files import hub
from svac_backend.svac.files.weights import ALLOWED

# Seconds that the hub has for an answer about a model: a list that waits longer helps nobody.
HUB_TIMEOUT_S = 8.0
# What CUDA takes for itself, and the share that is lost between blocks.
CUDA_BYTES, FRAGMENTATION = 1e9, 1.2
# What Python, the libraries and a window of frames take beside the weights on a CPU.
CPU_BYTES = 2e9

SOURCES = {
    "a": "Sa2VA-i's report, arXiv 2509.19082: MeViS valid, Ref-DAVIS17",
    "b": "model cards of ByteDance/Sa2VA-*: MeViS valid_u (another split), DAVIS",
}


@dataclass(frozen=True)
class PublishedModel:
    """A model that the authors of a method published.

    Attributes:
        name: its repository.
        preset: how it is run.
        parameters: how many values its weights have, counted over its published keys; where these were not seen
            (InternVL3-8B and -14B, Qwen2.5-VL-7B) computed from its base model's public sizes.
        fine_tuning: bytes that fine-tuning needs on a GPU, computed (docs/learn.md); None where it was not computed.
        mevis: J&F that was reported on MeViS, or None.
        davis: J&F that was reported on Ref-DAVIS17, or None.
        source: key in `SOURCES` of the two figures.
    """

    name: str
    preset: str
    parameters: int | None = None
    fine_tuning: float | None = None
    mevis: float | None = None
    davis: float | None = None
    source: str = ""


_1B, _4B, _8B, _26B = 1_163_665_714, 3_941_809_714, 8_317_666_866, 25_778_005_938
_DECODER = 4_215_109  # Sa2VA-i's files hold a second mask decoder
PUBLISHED = (
    PublishedModel("ByteDance/Sa2VA-1B", "sa2va", _1B, 5e9, 47.0, 69.5, "a"),
    PublishedModel("ByteDance/Sa2VA-4B", "sa2va", _4B, 13e9, 46.4, 73.7, "a"),
    PublishedModel("ByteDance/Sa2VA-8B", "sa2va", _8B, 24e9, 51.5, 75.9, "a"),
    PublishedModel("ByteDance/Sa2VA-26B", "sa2va", _26B, 67e9),
    PublishedModel("ByteDance/Sa2VA-Qwen3-VL-2B", "sa2va", 2_666_775_090, 10e9),
    PublishedModel("ByteDance/Sa2VA-Qwen3-VL-4B", "sa2va", 5_057_072_690, 17e9, 57.1, 75.9, "b"),
    PublishedModel("ByteDance/Sa2VA-Qwen2_5-VL-3B", "sa2va", 4_293_849_650, 15e9, 51.6, 73.4, "b"),
    PublishedModel("ByteDance/Sa2VA-Qwen2_5-VL-7B", "sa2va", 8_527_539_250, 27e9, 56.4, 79.4, "b"),
    PublishedModel("ByteDance/Sa2VA-InternVL3-2B", "sa2va", 2_316_157_490, 8e9, 53.9, 74.5, "b"),
    PublishedModel("ByteDance/Sa2VA-InternVL3-8B", "sa2va", 8_182_606_386, 24e9, 56.4, 76.3, "b"),
    PublishedModel("ByteDance/Sa2VA-InternVL3-14B", "sa2va", 15_369_268_786, 43e9, 59.2, 76.6, "b"),
    PublishedModel("kumuji/Sa2VA-i-1B", "sa2va-i", _1B + _DECODER, 5e9, 52.6, 73.6, "a"),
    PublishedModel("kumuji/Sa2VA-i-4B", "sa2va-i", _4B + _DECODER, 13e9, 56.6, 78.6, "a"),
    PublishedModel("kumuji/Sa2VA-i-8B", "sa2va-i", _8B + _DECODER, 24e9, 59.5, None, "a"),
    PublishedModel("kumuji/Sa2VA-i-26B", "sa2va-i", _26B + _DECODER, 67e9, 63.2, None, "a"),
    PublishedModel("QuanzhuNiu/SaSaSa2VA-4B", "sasasa2va", _4B, 15e9),
    PublishedModel("QuanzhuNiu/SaSaSa2VA-26B", "sasasa2va", _26B),
)


@dataclass(frozen=True)
class HubFacts:
    """What the hub says about a repository now.

    Attributes:
        download: bytes of the files that are taken.
        parameters: values of its weights, or None where the hub did not count them.
        dtypes: how many values of each dtype, as the files have them, such as `{"F32": ..., "BF16": ...}`.
        licence: as its card says, or empty.
    """

    download: int
    parameters: int | None
    dtypes: Mapping[str, int]
    licence: str


def ask_hub(name: str) -> HubFacts:
    """Ask the hub about a repository.

    Raises:
        SvacError: the hub can't be reached, or has no such model.
    """
    with hub.explained(name, looking=True):
        info = HfApi(endpoint=constants.ENDPOINT).model_info(name, files_metadata=True, timeout=HUB_TIMEOUT_S)
    files = [file for file in info.siblings or () if "/" not in file.rfilename]
    taken = [file for file in files if any(fnmatch(file.rfilename, pattern) for pattern in ALLOWED)]
    weights = info.safetensors
    return HubFacts(
        sum(file.size or 0 for file in taken),
        weights.total if weights else None,
        dict(weights.parameters) if weights else {},
        str(info.card_data.get("license") or "") if info.card_data else "",
    )


def ask_hub_about(names: Sequence[str]) -> tuple[dict[str, HubFacts], SvacError | None]:
    """Ask the hub about several repositories at once.

    Returns:
        What it said of those that it knows, and the first error where it said nothing of any.
    """
    found: dict[str, HubFacts] = {}
    first: SvacError | None = None
    with ThreadPoolExecutor(max_workers=8) as pool:
        for name, answer in zip(names, pool.map(_asked, names), strict=True):
            if isinstance(answer, HubFacts):
                found[name] = answer
            else:
                first = first or answer
    return found, None if found else first


def _asked(name: str) -> HubFacts | SvacError:
    try:
        return ask_hub(name)
    except SvacError as error:
        return error


def gpu_bytes(parameters: int) -> float:
    """Return what a model needs on a GPU at least: bf16 weights, CUDA, fragmentation. Computed, not measured."""
    return parameters * 2 * FRAGMENTATION + CUDA_BYTES


def cpu_bytes(parameters: int) -> float:
    """Return what a model needs on a CPU at least: f32 weights and what runs beside them."""
    return parameters * 4 + CPU_BYTES
