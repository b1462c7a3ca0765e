"""The options of a model, declared once, and which models this user has chosen. Imports no torch."""

from __future__ import annotations

import hashlib
import ipaddress
import os
from contextlib import suppress
from dataclasses import dataclass, fields
from numbers import Integral
from pathlib import Path
from typing import Any, get_type_hints

from c2llm_integrations._utils.files import user_cache, write_atomically
from c2llm_integrations._utils.option_field import option
from c2llm_integrations.errors import InputError

# The environment variable with the key of an embedding server, for client and server.
KEY_VARIABLE = "C2LLM_API_KEY"


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The arguments of `C2LLMEmbedder.from_pretrained`, which explains them; equal options share one loaded model.

    Paths become strings, and several devices one string with commas, so that options can be compared and stored.

    Raises:
        InputError: For a number below 1, or more than one of `head`, `projection` and `truncate_dim`.

    """

    name: str = "nano"
    revision: str | None = None
    output_dim: int | None = option(
        None, "Width of the vectors; nano has bundled heads for 128, 64 and 32.", metavar="N", min=1
    )
    dtype: str = "auto"
    device: str = option("auto", "auto, cpu, cuda, cuda:N, or several: cuda:0,cuda:1.", metavar="D")
    max_length: int = 2048
    normalize: bool = True
    head: str | None = option(None, "Head file written by c2llm train-head.", metavar="FILE")
    projection: str | None = option(None, "Projection file written by c2llm fit-projection.", metavar="FILE")
    truncate_dim: int | None = option(None, "Keep only the first N dimensions (lowest quality).", metavar="N", min=1)
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        device: Any = self.device
        plain = {"name": str(self.name), "device": device if isinstance(device, str) else ",".join(map(str, device))}
        for name in ("head", "projection"):
            if (file := getattr(self, name)) is not None:
                plain[name] = os.fspath(file)
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        for name in ("max_length", "output_dim", "truncate_dim", "batch_tokens"):
            if (number := getattr(self, name)) is None:
                continue
            if isinstance(number, bool) or not isinstance(number, Integral):
                raise InputError(f"{name} is {number!r:.60} ({type(number).__name__}), must be a whole number")
            if number < 1:
                raise InputError(f"{name} is {number}, must be at least 1")
        given = [name for name in ("head", "projection", "truncate_dim") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} are given, and each alone decides the dimensions; choose one")

    @classmethod
    def as_fields(cls) -> dict[str, Any]:
        """Return name → (type, default) of the fields that a framework's object gets, all but the model's name."""
        types = get_type_hints(cls)
        return {one.name: (types[one.name], one.default) for one in fields(cls) if one.name != "name"}

    @classmethod
    def of(cls, adapter: Any) -> ModelOptions:
        """Return the options that a framework's object holds as fields of the same names, the name as `model_name`."""
        shared = (field.name for field in fields(cls) if field.name != "name")
        return cls(name=adapter.model_name, **{name: getattr(adapter, name) for name in shared})


def is_url(name: str) -> bool:
    """Return whether a model's name is a server's address."""
    return "://" in name


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def remember_model(name: str) -> None:
    """Note that this user has chosen a model, if the cache folder is writable."""
    file = _model_file(name)
    with suppress(OSError):
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, name)


def is_known_model(name: str) -> bool:
    """Return whether this user has chosen a model before."""
    return _model_file(name).exists()


def _model_file(name: str) -> Path:
    return user_cache() / "models" / hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:32]
