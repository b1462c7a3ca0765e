"""safetensors files: read with one kind of error, written beside their place first, small ones with a checksum."""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from c2llm_integrations.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

# The data types of stored weights.
FLOATS = frozenset({"torch.float16", "torch.bfloat16", "torch.float32", "torch.float64"})
# The weights of a pooling have up to three.
_MAX_DIMENSIONS = 4
_SHOWN_NAMES, _SHOWN_CHARS = 20, 160


def some_names(names: Collection[str]) -> str:
    """Return tensors' names for an error's line: a file may hold millions, of any length."""
    shown = [name[:_SHOWN_CHARS] for name in sorted(names)[:_SHOWN_NAMES]]
    return ", ".join([*shown, *([f"{len(names) - len(shown):,} more"] if len(names) > len(shown) else [])]) or "none"


def read_tensors(
    file: str | Path, *, skip: re.Pattern[str] | None = None, remedy: str = "fetch it again"
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file; tensors of names to `skip` are left in it.

    Raises CheckpointError, which advises the `remedy`, for a file that cannot be read or is not valid.
    """
    if (place := Path(file)).exists() and not place.is_file():  # a pipe would be waited for
        raise CheckpointError(f"{file} cannot be read: it is not a file; {remedy}")
    try:
        with safe_open(file, framework="pt") as opened:
            names = [name for name in opened.keys() if not (skip and skip.search(name))]  # noqa: SIM118 (no mapping)
            return {name: opened.get_tensor(name) for name in names}, opened.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(f"{file} is not a valid safetensors file: {error}; {remedy}") from error
    except OSError as error:  # may say nothing about the file: no right to read it, no memory to map it
        ways = {errno.EACCES: "make it readable", errno.ENOMEM: "free memory, or choose a smaller model"}
        raise CheckpointError(f"{file} cannot be read: {error}; {ways.get(error.errno or 0, remedy)}") from error


def read_sealed(file: str | Path, form: str, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return what `write_sealed` wrote; raises CheckpointError for another format, or changed or impossible content.

    Earlier releases wrote no checksum.
    """
    tensors, about = read_tensors(file, remedy=remedy)
    if about.get("format") != form:
        raise CheckpointError(f"{file} has format {about.get('format')!r}, expected {form!r}; {remedy}")
    for name, tensor in tensors.items():
        if str(tensor.dtype) not in FLOATS or not tensor.numel() or not 1 <= tensor.dim() <= _MAX_DIMENSIONS:
            what = f"{str(tensor.dtype).removeprefix('torch.')} of shape {list(tensor.shape)[:_MAX_DIMENSIONS]}"
            raise CheckpointError(f"{file} is not usable: {name[:80]!r} is {what}, expected numbers; {remedy}")
    if about.get("checksum") not in (None, found := _checksum(tensors, about)):
        raise CheckpointError(
            f"{file} is damaged: its checksum is {about['checksum']}, its content has {found}; "
            "restore a copy or make it again"
        )
    return tensors, about


def write_sealed(tensors: Mapping[str, Tensor], file: str | Path, form: str, about: Mapping[str, str]) -> None:
    """Write tensors with a format, metadata and a checksum of them all."""
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    sealed = {**about, "format": form}
    write_tensors(plain, Path(file), {**sealed, "checksum": _checksum(plain, sealed)})


def write_tensors(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
    """Write safetensors beside their place first, so that a good file is never half overwritten."""
    from safetensors.torch import save_file

    partial = Path(f"{file}.partial")
    try:
        save_file(tensors, partial, metadata)
        partial.chmod(0o644)  # the library writes it for its owner alone
        partial.replace(file)
    except SafetensorError as error:  # such as a full disk
        raise CheckpointError(f"{file} cannot be written: {error}; make room, or name another place") from error
    finally:
        partial.unlink(missing_ok=True)


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    total = hashlib.sha256(json.dumps({**metadata, "checksum": ""}, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        array = tensor.float().numpy()
        total.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return total.hexdigest()[:32]
