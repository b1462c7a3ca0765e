"""The fingerprint of a collection's vectors, and the model options that give such vectors. Imports no torch."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from c2llm_integrations.errors import InputError
from c2llm_integrations.model.options import ModelOptions, is_known_model, is_url

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Everything that decides a vector, as a collection keeps it.
Fingerprint = Mapping[str, str | int | bool | None]


class DocumentEmbedder(Protocol):
    """The part of a `C2LLMEmbedder` that filling a collection needs; `RayEmbedder` has it too."""

    output_dim: int
    tokens_seen: int
    texts_cut: int

    @property
    def fingerprint(self) -> Fingerprint:
        """Everything that decides what a vector means."""

    def encode_documents(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Return (len(texts), output_dim) vectors; raises InputError for a text that cannot be embedded."""


# A probe identifies a server's weights: its prefix, the numbers of each text, and the least cosine of equal ones.
PROBE, _PROBED, _SAME_PROBE = "probe:", 32, 0.98

# Earlier releases wrote plain truncation and a head in the place of a projection's digest, with these prefixes.
_OLD_TRUNCATION, _OLD_HEAD = "first ", "head "


def probe_of(vectors: NDArray[np.float32]) -> str:
    """Return a probe of a server's weights: some numbers of the vectors (texts, width) of texts that never change.

    Several texts, because their mean is subtracted.
    """
    import numpy as np

    some = (vectors - vectors.mean(0))[:, :_PROBED]
    return PROBE + base64.b64encode(np.round(some * (127 / max(1e-9, np.abs(some).max()))).astype("i1")).decode()


def is_same_probe(one: object, other: object) -> bool:
    """Return whether two results of `probe_of` are of the same weights, computed in any precision."""
    import numpy as np

    if not (isinstance(one, str) and isinstance(other, str) and one.startswith(PROBE) and other.startswith(PROBE)):
        return False
    try:
        a, b = (np.frombuffer(base64.b64decode(text[len(PROBE) :]), "i1").astype(float) for text in (one, other))
    except ValueError:
        return False
    return a.shape == b.shape and float(a @ b) > _SAME_PROBE * float(np.linalg.norm(a) * np.linalg.norm(b))


def current_fingerprint(stored: Fingerprint) -> dict[str, str | int | bool | None]:
    """Return a stored fingerprint as this release writes it.

    The dimensions come from at most one of "head" (a digest), "projection" (a digest) and "truncate_dim" (a number).
    Earlier releases wrote all three into "projection".
    """
    found = dict(stored)
    old = found.get("projection")
    if isinstance(old, str) and old.startswith(_OLD_HEAD):
        found |= {"projection": None, "head": old.removeprefix(_OLD_HEAD)}
    elif isinstance(old, str) and old.startswith(_OLD_TRUNCATION) and old.removeprefix(_OLD_TRUNCATION).isdecimal():
        found |= {"projection": None, "truncate_dim": int(old.removeprefix(_OLD_TRUNCATION))}
    return found


def options_of(
    fingerprint: Fingerprint,
    projection: str | os.PathLike[str] | None = None,
    head: str | os.PathLike[str] | None = None,
    is_named: bool = False,
) -> ModelOptions:
    """Return the options that give the vectors which a fingerprint describes.

    Args:
        fingerprint: That of a collection's spec.
        projection: The file of its projection, if that was never used on this machine.
        head: The file of its head, if that was never used on this machine and is not bundled with the model.
        is_named: The user names the model, so the name in the fingerprint is not used.

    Raises:
        InputError: Such a file must be named, no embedder wrote the fingerprint, the server is unknown, or a folder
            here is called like the model: an index may come with a folder that poses as a model of the hub.

    """
    from c2llm_integrations.model.heads_and_projections import bundled_head

    found = current_fingerprint(fingerprint)
    if not is_named:
        _require_no_folder_called(str(found.get("model")))
    try:
        options = ModelOptions(
            name=str(found["model"]), max_length=int(found["max_length"] or 0), normalize=bool(found["normalize"])
        )
        if str(found.get("projection")).startswith(_OLD_TRUNCATION):
            raise ValueError(found["projection"])
        width = int(found.get("output_dim") or 0)
        if (truncate_dim := found.get("truncate_dim")) is not None:
            options = replace(options, truncate_dim=int(truncate_dim))
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise InputError(f"the collection's fingerprint is damaged ({error!r}); index again with --replace") from error
    if is_url(options.name):
        _require_known_server(options.name)
        return replace(options, output_dim=width)
    if options.truncate_dim is not None:
        return options
    if digest := str(found.get("head") or ""):
        if head is None and bundled_head(options.name, width, digest):
            return replace(options, output_dim=width)
        return replace(options, head=_file_of("head", digest, head))
    if digest := str(found.get("projection") or ""):
        return replace(options, projection=_file_of("projection", digest, projection))
    return options


def _require_no_folder_called(model: str) -> None:
    """Raise InputError if a model of the hub, as a collection names it, is also a folder in the current one."""
    if model != "nano" and not os.path.isabs(model) and os.path.isdir(model):
        raise InputError(
            f"the collection names the model {model!r}, and {os.path.abspath(model)} may be another one; "
            f"if it is that model, name it with --model ./{model}"
        )


def _file_of(kind: str, digest: str, file: str | os.PathLike[str] | None) -> str:
    """Return the file of a head or projection: the one given, else the one that this machine remembers."""
    from c2llm_integrations.model.heads_and_projections import remembered

    found = file or remembered(digest)
    if found is None:
        raise InputError(
            f"the collection was made with {kind} {digest}, never used on this machine; "
            f"name its file with --{kind} FILE, from Python with {kind}=FILE"
        )
    return os.fspath(found)


def _require_known_server(url: str) -> None:
    """Raise InputError for a server that only a collection names: it would get texts and the key."""
    if not is_known_model(url):
        raise InputError(
            f"the collection's vectors come from {url}, which you never used on this machine; "
            f"if you trust that server, name it once with --model {url}"
        )
