"""Reading and writing model folders: safetensors only, a tensor at a time. No pickle, no remote code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_module_tensor_to_device
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from svac_backend.atomic import atomic_path
from svac_backend.errors import SvacError
from svac_backend.svac.config import SvacConfig
from svac_backend.svac.families.registry import family_of
from svac_backend.svac.files.weights import INDEX, family_in, read_json, weight_files

Shapes = dict[str, tuple[int, ...]]

_HEAD, _EMBEDDING = "mllm.language_model.lm_head.weight", "mllm.language_model.model.embed_tokens.weight"
_MEND = "Check that weights and config.json belong together, or download the model again."
SHARD_BYTES = 4_000_000_000


def is_published(folder: Path) -> bool:
    """Return whether a folder is in the published layout and not in ours.

    Raises:
        SvacError: its config.json can't be read.
    """
    return read_json(folder / "config.json").get("format") != "svac-backend"


def read_config(folder: Path) -> SvacConfig:
    """Read the configuration of a folder in our layout or in a published one.

    Raises:
        SvacError: it is damaged, or describes something else.
    """
    family = family_in(folder)
    if not is_published(folder):
        return family.load_config(folder / "config.json")
    config = family.read_config(read_json(folder / "config.json"))
    return family.with_vocabulary(config, tensor_shapes(folder))


def tensor_shapes(folder: Path) -> Shapes:
    """Read the header of every safetensors file of a folder; key -> shape. No weights are read.

    Raises:
        SvacError: a file is damaged, or too short for its header.
    """
    shapes: Shapes = {}
    for path in weight_files(folder):
        with _opened(path) as file:
            for key in file.keys():  # noqa: SIM118 (safe_open is no dict)
                shapes[key] = tuple(file.get_slice(key).get_shape())
    return shapes


def check(module: nn.Module, shapes: Mapping[str, tuple[int, ...]], config: SvacConfig | None = None) -> None:
    """Check that tensors of these names and shapes fill the module: none missing, none left over.

    Args:
        module: a `Svac`; on the meta device it costs nothing.
        shapes: key -> shape of the file's tensors.
        config: given for the published layout, whose keys are converted.

    Raises:
        SvacError: they do not.
    """
    given = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    if config is not None:
        given = family_of(config).convert_all(given.items(), config)
    own = module.state_dict()
    if _HEAD not in given and _EMBEDDING in given:
        given[_HEAD] = given[_EMBEDDING]
    missing, extra = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    wrong = sorted(k for k in own.keys() & given.keys() if own[k].shape != given[k].shape)
    for problem, keys in (("lacks", missing), ("has the unknown", extra), ("has another shape of", wrong)):
        if keys:
            raise SvacError(f"The checkpoint {problem} {len(keys)} tensor(s), for example {keys[0]}.", _MEND)


def load(
    module: nn.Module, folder: Path, config: SvacConfig, device: torch.device, dtype: torch.dtype
) -> None:
    """Fill a module that was built without memory (`accelerate.init_empty_weights`) from a folder.

    A tensor at a time goes from the file to the device: beside the model, never more than one is held. Files of mixed
    dtypes are cast: parameters to `dtype`; buffers keep theirs, since positions lose their meaning in half precision.
    A missing `lm_head` is the embedding, as is that of a model with tied weights.

    Raises:
        SvacError: the folder is damaged or belongs to another configuration.
    """
    family = family_of(config) if is_published(folder) else None
    check(module, tensor_shapes(folder), config if family else None)
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    tied, filled = config.language.tie_word_embeddings, set()
    for path in weight_files(folder):
        with _opened(path) as file:
            for key in file.keys():  # noqa: SIM118 (safe_open is no dict)
                tensor = file.get_tensor(key)
                parts = family.convert(key, tensor, config) if family else {key: tensor}
                for name, part in parts.items():
                    filled.add(name)
                    if tied and name == _HEAD:
                        continue
                    # A copy: what the file maps may change under us when it is written again.
                    set_module_tensor_to_device(
                        module, name, device, part.clone(), dtype if name in parameters else None
                    )
    if tied or _HEAD not in filled:
        embedding = module.get_submodule(_EMBEDDING.rpartition(".")[0])
        module.get_submodule(_HEAD.rpartition(".")[0]).weight = embedding.weight
    module.to(device)  # buffers that no file holds


def load_into(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy tensors that are in memory into a module, casting to its dtypes.

    Raises:
        SvacError: tensors are missing, too many, or of another shape.
    """
    check(module, {key: tuple(tensor.shape) for key, tensor in state.items()})
    with torch.no_grad():
        for key, target in module.state_dict().items():
            target.copy_(state[_EMBEDDING if key == _HEAD and key not in state else key])


def write_folder(folder: Path, state: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Write weights as `model.safetensors`, or as shards with an index beyond 4 GB.

    Files appear whole or not at all, and files of an earlier save that are not part of this one are removed. Beside
    the model, memory for one shard is needed.

    Args:
        folder: where.
        state: our keys; tied weights once.
        dtype: casts floating tensors; None keeps what they have, bit for bit.
    """
    plan = split_torch_state_dict_into_shards(
        dict(state), filename_pattern="model{suffix}.safetensors", max_shard_size=SHARD_BYTES
    )
    for name, keys in plan.filename_to_tensors.items():
        with atomic_path(folder / name) as part:
            write(part, {key: state[key] for key in keys}, dtype)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    else:
        (folder / INDEX).unlink(missing_ok=True)
    for old in set(folder.glob("model*.safetensors")) - {folder / name for name in plan.filename_to_tensors}:
        old.unlink()


def write(path: Path, state: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Write one safetensors file; `dtype` casts floating tensors."""
    tensors = {
        key: (t.to(dtype) if dtype is not None and t.is_floating_point() else t).contiguous().cpu().clone()
        for key, t in state.items()
    }
    save_file(tensors, str(path), metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes files that only their owner can read


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file. Raises `SvacError` if it is damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise SvacError(f"{path} is damaged ({error}).", "Download the model again.") from error
