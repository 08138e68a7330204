"""Models as named tensors, wherever they come from: modules, state dicts, safetensors files; and back to a file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# What a state dict of plain tensors does not say: these floating-point tensors are no parameters.
_STATISTICS = ("running_mean", "running_var")
_ADAPTER = re.compile(r"^(?:base_model\.model\.)?(?P<path>.+)\.lora_(?P<side>[AB])(?:\.[^.]+)?\.weight$")
_ADAPTER_PART = re.compile(r"\.(lora_|hada_|lokr_|ia3_|oft_|vera_)")


@dataclass(frozen=True)
class Checkpoint:
    """A model's tensors: `parameters` by name, each tied group once, `buffers`, and `aliases` {other name: name} of tied ones.

    `module` is the model itself where one was given, `order` all names in the order of its state dict.
    """

    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    aliases: dict[str, str]
    order: tuple[str, ...]
    module: nn.Module | None = None


def is_statistic(name: str) -> bool:
    """Whether a tensor of this name is a running statistic of a normalisation layer."""
    return name.rsplit(".", 1)[-1] in _STATISTICS


def read_checkpoint(source: Any, name: str) -> Checkpoint:
    """A module, a mapping from names to tensors, a safetensors file, or a folder of its shards, as a `Checkpoint`.

    Tensors keep their storage: nothing is copied. Raises TypeError for anything else, for an adapter that is not merged into its
    model, and for complex tensors; ValueError for a model without a floating-point parameter.
    """
    module = source if isinstance(source, nn.Module) else None
    if module is not None:
        tensors: Mapping[str, Any] = module.state_dict(keep_vars=False)
    elif isinstance(source, str | os.PathLike):
        tensors = _read_file(Path(source), name)
    elif isinstance(source, Mapping):
        tensors = source
    else:
        raise TypeError(f"{name} must be an nn.Module, a state dict or a .safetensors file, got {type(source).__name__}")
    _require_tensors(tensors, name)
    known = None if module is None else {n for n, _ in module.named_parameters(remove_duplicate=False)}
    parameters: dict[str, Tensor] = {}
    buffers: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for key, tensor in tensors.items():
        is_parameter = tensor.is_floating_point() and (key in known if known is not None else not is_statistic(key))
        if not is_parameter:
            buffers[key] = tensor.detach()
            continue
        place = _place(tensor)
        if place is not None and place in seen:
            aliases[key] = seen[place]
            continue
        if place is not None:
            seen[place] = key
        parameters[key] = tensor.detach()
    if not parameters:
        raise ValueError(f"{name} has no floating-point parameter: there is nothing to merge")
    return Checkpoint(parameters, buffers, aliases, tuple(tensors), module)


def _place(tensor: Tensor) -> tuple[Any, ...] | None:
    """What two tied tensors share: storage, offset, shape and strides; None where there is no storage to share."""
    if tensor.numel() == 0 or tensor.device.type == "meta":
        return None
    return (
        tensor.untyped_storage().data_ptr(),
        tensor.storage_offset(),
        tuple(tensor.shape),
        tensor.stride(),
        str(tensor.device),
    )


def _require_tensors(tensors: Mapping[str, Any], name: str) -> None:
    for key, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            hint = f': the tensors may be in {name}["{key}"]' if isinstance(tensor, Mapping) else ""
            raise TypeError(f"{name} must map names to tensors, got {type(tensor).__name__} for {key!r}{hint}")
        if tensor.device.type == "meta":
            raise ValueError(f"{name}: {key!r} is on the meta device, which holds shapes and no values")
        if tensor.is_complex():
            raise TypeError(f"{name}: {key!r} is complex; merging is defined for real parameters")
        if _ADAPTER_PART.search(key):
            raise TypeError(
                f"{name} is an adapter or a model with one ({key!r}): merge it into its model first "
                "(PeftModel.merge_and_unload()), or pass adapted(base, adapter, scale=alpha / rank)"
            )


def _read_file(path: Path, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of all of them in a folder (shards)."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or any(file.suffix != ".safetensors" for file in files):
        raise TypeError(
            f"{name}: {path} is no .safetensors file and no folder with one: load other formats yourself and pass the state dict"
        )
    try:
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('reading .safetensors needs safetensors: pip install "discrepancy[scale]"') from error
    tensors: dict[str, Tensor] = {}
    for file in files:
        if not file.is_file():
            raise ValueError(f"{name}: there is no file {file}")
        tensors |= load_file(file)
    return tensors


def write_safetensors(tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> Path:
    """Write tensors to `path`: beside it first, then renamed, so that a file of that name is always whole.

    Raises ValueError for a name that does not end in .safetensors.
    """
    file = Path(path)
    if file.suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, got {str(path)!r}")
    try:
        from safetensors.torch import save_file
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('writing .safetensors needs safetensors: pip install "discrepancy[scale]"') from error
    beside = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        # A contiguous copy each: the format knows neither strides nor shared storage.
        save_file({k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()}, beside, metadata={"format": "pt"})
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)
    return file


def adapted(base: Any, adapter: Any, *, scale: float = 1.0, transposed: bool = False) -> dict[str, Tensor]:
    """The state dict of `base` with a low-rank adapter merged in: W + scale B A for each pair lora_A (r, in), lora_B (out, r).

    base: a module, state dict or file; adapter: a mapping or file with PEFT's names (`base_model.model.` in front or not). scale
    is PEFT's alpha / r. `transposed` adds (B A)^T, for layers that store (in, out) as GPT-2's do. The products are taken in
    float32 (float64 where the base is). Raises ValueError where a layer, a partner or a shape does not fit.
    """
    checkpoint = read_checkpoint(base, "base")
    tensors = _read_file(Path(adapter), "adapter") if isinstance(adapter, str | os.PathLike) else adapter
    if not isinstance(tensors, Mapping):
        raise TypeError(f"adapter must map names to tensors, got {type(tensors).__name__}")
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _ADAPTER.match(key)
        if match is None:
            raise ValueError(f"adapter has {key!r}, which is neither a lora_A nor a lora_B weight: merge it with its own library")
        pairs.setdefault(match["path"], {})[match["side"]] = tensor
    if not pairs:
        raise ValueError("adapter is empty")
    state = dict(checkpoint.parameters)
    for path, sides in pairs.items():
        key = checkpoint.aliases.get(f"{path}.weight", f"{path}.weight")
        if key not in state:
            raise ValueError(f"adapter changes {path!r}, which the base does not have; its first layer is {next(iter(state))!r}")
        if set(sides) != {"A", "B"}:
            raise ValueError(f"adapter has lora_{next(iter(sides))} of {path!r} and not its partner")
        weight = state[key]
        wide = torch.promote_types(weight.dtype, torch.float32)
        product = sides["B"].to(wide) @ sides["A"].to(wide)
        product = product.mT if transposed else product
        if product.shape != weight.shape:
            raise ValueError(
                f"adapter changes {path!r} by a matrix {tuple(product.shape)}, and its weight is {tuple(weight.shape)}"
                + ("" if transposed or product.mT.shape != weight.shape else ": it is stored (in, out), pass transposed=True")
            )
        state[key] = (weight.to(wide) + scale * product.to(weight.device)).to(weight.dtype)
    return state | checkpoint.buffers


__all__ = ["Checkpoint", "adapted", "is_statistic", "read_checkpoint", "write_safetensors"]
