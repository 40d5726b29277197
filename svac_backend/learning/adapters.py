"""Which parts of a model are trained, and adapters: LoRA on the language model plus new values of a few small parts.

As published: LoRA on all projections of the language model; `text_hidden_fcs`, SAM-2's mask decoder and, with InternVL,
`mlp1` are trained whole; each family says which (`Family.trained_whole`). Everything else stays frozen. LoRA is not
merged into the weights, so that taking it out again restores the old model bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import Parameter

from svac_backend.atomic import atomic_path
from svac_backend.errors import SvacError
from svac_backend.svac.files import checkpoints
from svac_backend.svac.files.adapters import WEIGHTS, AdapterInfo, verify_adapter, write_about
from svac_backend.svac.model import Svac

_LORA = ".lora_"
# Enough values to tell two models apart; dtypes round them, so they are compared with a tolerance.
_MARKS, _TOLERANCE = 16, 0.02


@dataclass(frozen=True)
class LoraOptions:
    """The size of LoRA.

    Attributes:
        rank: rank of the two factors; published: 128. Capped by the model's width.
        alpha: scale of their product, divided by the rank; published: 256.
        dropout: dropout on its input, in training; published: 0.05.
    """

    rank: int = 128
    alpha: int = 256
    dropout: float = 0.05

    def capped(self, hidden_size: int) -> LoraOptions:
        """Return the options for a language model of this width: rank at most a quarter of it, alpha in proportion."""
        rank = min(self.rank, max(1, hidden_size // 4))
        return LoraOptions(rank, max(1, self.alpha * rank // self.rank), self.dropout)


@dataclass
class _Loaded:
    """An adapter in a model, and what it replaced."""

    info: AdapterInfo
    replaced: dict[str, Tensor]


_loaded: WeakKeyDictionary[Svac, _Loaded] = WeakKeyDictionary()


def attach_lora(model: Svac, options: LoraOptions) -> None:
    """Put LoRA beside the projections of the language model; its output is 0 until it is trained.

    Raises:
        SvacError: the model has an adapter already.
    """
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise SvacError("The model has an adapter already.", "Unload it first.")
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=list(model.family.lora_targets),
        bias="none",
    )
    inject_adapter_in_model(config, model.mllm.language_model)


def detach_lora(model: Svac) -> None:
    """Take LoRA out again; it never changes the model's own weights."""
    language = model.mllm.language_model
    for name, module in list(language.named_modules()):
        if isinstance(module, BaseTunerLayer):
            parent, _, leaf = name.rpartition(".")
            setattr(language.get_submodule(parent), leaf, module.get_base_layer())
    if hasattr(language, "peft_config"):
        del language.peft_config
    for parameter in language.parameters():
        parameter.requires_grad_(False)


def trained_parameters(model: Svac) -> dict[str, Parameter]:
    """Return the parameters that an adapter holds, by name: LoRA and the parts that are trained whole."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if _LORA in name or name.startswith(model.family.trained_whole)
    }


def marks_of(model: Svac) -> dict[str, list[float]]:
    """Return values that identify a model, whatever its dtype."""
    found = {}
    for name in model.family.marks:
        tensor = model.get_parameter(name).detach().flatten()
        step = max(1, len(tensor) // _MARKS)
        found[name] = [round(float(value), 6) for value in tensor[::step][:_MARKS]]
    return found


def save_adapter(
    folder: Path,
    state: Mapping[str, Tensor],
    dtype: torch.dtype,
    *,
    lora: LoraOptions,
    marks: dict[str, list[float]],
    parent: str | None,
    steps: int,
) -> AdapterInfo:
    """Write an adapter, whole or not at all.

    Args:
        folder: where to write; made if absent.
        state: values of `trained_parameters`.
        dtype: the dtype that the model serves in.
        lora, marks, parent, steps: see `AdapterInfo`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / WEIGHTS) as part:
        checkpoints.write(part, state, dtype)
    return write_about(
        folder,
        rank=lora.rank,
        alpha=lora.alpha,
        dropout=lora.dropout,
        marks=marks,
        parent=parent,
        steps=steps,
    )


def read_state(folder: Path) -> tuple[AdapterInfo, dict[str, Tensor]]:
    """Read an adapter and verify every byte. Raises `SvacError` if it is damaged."""
    info = verify_adapter(folder)
    try:
        return info, load_file(str(folder / WEIGHTS))
    except (SafetensorError, OSError) as error:
        raise SvacError(
            f"The adapter in {folder} can't be read ({error}).", "Roll back to another version."
        ) from error


def load_adapter(model: Svac, folder: Path) -> AdapterInfo:
    """Put an adapter into the model, after taking out one that is loaded.

    Raises:
        SvacError: the adapter is missing, damaged, or belongs to another model. The model then stays as it was.
    """
    info, state = read_state(folder)
    check_fits(model, info, folder)
    unload_adapter(model)
    lora = LoraOptions(info.rank, info.alpha, info.dropout)
    attach_lora(model, lora)
    own = trained_parameters(model)
    wrong = sorted(own.keys() ^ state.keys()) or sorted(
        name for name in own if own[name].shape != state[name].shape
    )
    if wrong:
        detach_lora(model)
        raise SvacError(
            f"The adapter in {folder} does not fit the model: {wrong[0]} differs.", "Train it again."
        )
    replaced = {}
    for name, parameter in own.items():
        if _LORA not in name:
            replaced[name] = parameter.data
        parameter.data = state[name].to(model.device, model.get_parameter(name).dtype)
        parameter.requires_grad_(False)
    model.eval()
    _loaded[model] = _Loaded(info, replaced)
    return info


def unload_adapter(model: Svac) -> None:
    """Take out a loaded adapter, if any; the model is then what it was before, bit for bit."""
    found = _loaded.pop(model, None)
    if found is None:
        return
    for name, tensor in found.replaced.items():
        model.get_parameter(name).data = tensor
    detach_lora(model)


def loaded_adapter(model: Svac) -> AdapterInfo | None:
    """Return the adapter that a model serves with, if any."""
    found = _loaded.get(model)
    return found.info if found else None


def check_fits(model: Svac, info: AdapterInfo, folder: Path) -> None:
    """Raise `SvacError` if an adapter was trained on another model."""
    own = marks_of(model)
    same = own.keys() == info.marks.keys() and all(
        len(own[name]) == len(values)
        and all(
            abs(a - b) <= _TOLERANCE * max(abs(a), abs(b), 0.01)
            for a, b in zip(own[name], values, strict=True)
        )
        for name, values in info.marks.items()
    )
    if not same:
        raise SvacError(
            f"The adapter in {folder} was trained on another model.",
            "Set SVAC_MODEL to the model that it was trained on, or train it again.",
        )
