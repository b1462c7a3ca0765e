"""Give vectors another width than the checkpoint's own: by a trained head, a fitted projection, or truncation.

A head is a PMA of another width in the place of the checkpoint's own, whose backbone stays as it is. A projection is
fitted on the user's own vectors: uncentered SVD keeps the dot products among them best, and a random rotation after it
spreads the variance evenly, without which binary codes lose half of their recall.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations._utils.files import user_cache
from c2llm_integrations.errors import C2LLMError, CheckpointError, InputError
from c2llm_integrations.model.checkpoint import HEAD_FILE, Checkpoint, load_checkpoint
from c2llm_integrations.model.options import ModelOptions
from c2llm_integrations.model.safetensors_files import read_sealed, write_sealed

if TYPE_CHECKING:
    from torch import Tensor

Matrix = NDArray[np.float32]
_HEAD_FORMAT, _PROJECTION_FORMAT = "c2llm-head-1", "c2llm-projection-1"
_DIGEST = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Head:
    """The weights of a PMA under a checkpoint's short names, `pma.S`, `pma.mab.fc_q.weight` and so on.

    `base`, `revision` and `weights` say whose token states it reads: the checkpoint's name, the commit it was fetched
    at if it was, and the digest of its weights (`fingerprint["weights"]`), which alone decides whether it fits.
    `training` tells how it was made.
    """

    tensors: Mapping[str, Tensor]
    num_heads: int
    layer_norm: bool
    base: str
    revision: str | None
    weights: str
    training: str = ""

    @property
    def output_dim(self) -> int:
        """Width of the vectors."""
        return int(self.tensors["pma.S"].shape[-1])

    @property
    def digest(self) -> str:
        """Its name in a fingerprint: 32 hexadecimal digits of the SHA-256 of everything it computes with."""
        total = hashlib.sha256(json.dumps([self.num_heads, self.layer_norm]).encode())
        for name, tensor in sorted(self.tensors.items()):
            total.update(name.encode() + tensor.float().contiguous().numpy().tobytes())
        return total.hexdigest()[:32]

    def save(self, path: str | Path) -> None:
        """Write it as safetensors, beside its place first, so that a good file is never half overwritten."""
        about = {"base": self.base, "revision": self.revision or "", "weights": self.weights, "training": self.training}
        about |= {"num_heads": str(self.num_heads), "layer_norm": str(int(self.layer_norm))}
        write_sealed(self.tensors, path, _HEAD_FORMAT, about)

    @classmethod
    def load(cls, path: str | Path) -> Head:
        """Read what `save` wrote; raises CheckpointError for any other file."""
        remedy = "make a head with c2llm train-head"
        tensors, about = read_sealed(path, _HEAD_FORMAT, remedy)
        try:
            heads, layer_norm = int(about["num_heads"]), about["layer_norm"] == "1"
            own = about["base"], about["revision"] or None, about["weights"], about["training"]
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{path} is not a head ({error!r}); {remedy}") from error
        head = cls(tensors, heads, layer_norm, *own)
        if "pma.S" not in tensors or heads < 1 or head.output_dim % heads:
            raise CheckpointError(f"{path} is not a complete head; {remedy}")
        if others := sorted(name for name in tensors if not name.startswith("pma.")):
            raise CheckpointError(f"{path} is not a head alone, but holds {others[0][:80]!r}, too; {remedy}")
        return head


@dataclass(frozen=True)
class Projection:
    """A linear map of vectors: `vectors @ matrix`, with `matrix` (input width, output width) float32.

    `weights` is the digest of the checkpoint whose vectors it was fitted on (`fingerprint["weights"]`).
    """

    matrix: Matrix
    weights: str

    @property
    def digest(self) -> str:
        """Its name in a fingerprint: 32 hexadecimal digits of its SHA-256."""
        return hashlib.sha256(np.ascontiguousarray(self.matrix).tobytes()).hexdigest()[:32]

    def save(self, path: str | Path) -> None:
        """Write the map as safetensors, beside its place first, so that a good file is never half overwritten."""
        import torch

        matrix = torch.from_numpy(np.ascontiguousarray(self.matrix))
        write_sealed({"matrix": matrix}, path, _PROJECTION_FORMAT, {"weights": self.weights})

    @classmethod
    def load(cls, path: str | Path) -> Projection:
        """Read what `save` wrote; raises CheckpointError for any other file."""
        remedy = "make a projection with c2llm fit-projection"
        tensors, about = read_sealed(path, _PROJECTION_FORMAT, remedy)
        if "matrix" not in tensors or "weights" not in about or tensors["matrix"].dim() != 2:
            raise CheckpointError(f"{path} is not a projection; {remedy}")
        matrix = tensors["matrix"].float().numpy()
        if not np.isfinite(matrix).all():
            raise CheckpointError(f"{path} is not a projection: it holds NaN or infinity; {remedy}")
        return cls(matrix, about["weights"])


def fit_projection(vectors: NDArray[np.floating], output_dim: int, weights: str, *, seed: int = 0) -> Projection:
    """Fit the map to `output_dim` dimensions that keeps the dot products among `vectors` best.

    Args:
        vectors: (n, width), at least `output_dim` of them.
        output_dim: Fewer than `width`.
        weights: The embedder's `fingerprint["weights"]`.
        seed: Decides the rotation.

    Raises:
        InputError: Where the vectors cannot decide that many directions, or hold NaN or infinity.

    """
    if vectors.ndim != 2 or not 1 <= output_dim < vectors.shape[1] or len(vectors) < output_dim:
        raise InputError(
            f"cannot fit {output_dim} dimensions on vectors of shape {vectors.shape}; "
            "ask for fewer than their width and give at least as many vectors"
        )
    if not np.isfinite(vectors).all():
        raise InputError("the vectors hold NaN or infinity; embed those texts again")
    exact = vectors.astype(np.float64)
    _, directions = np.linalg.eigh(exact.T @ exact)  # ascending: the last ones carry most
    rotation, triangle = np.linalg.qr(np.random.default_rng(seed).standard_normal((output_dim, output_dim)))
    rotation *= np.sign(np.diag(triangle))  # the sign QR leaves open, fixed so that all rotations are equally likely
    return Projection((directions[:, -output_dim:] @ rotation).astype(np.float32), weights)


def of_width(checkpoint: Checkpoint, options: ModelOptions, projection: Projection | None) -> Checkpoint:
    """Return the checkpoint with the head that the options ask for.

    Args:
        checkpoint: As it was trained.
        options: Name a width, a head, a projection or a truncation.
        projection: The loaded one, where the options name a projection.

    Raises:
        CheckpointError: For a head or projection of other weights.
        InputError: For a width that the checkpoint cannot give, naming the ways to get it.

    """
    trained, wanted = checkpoint.output_dim, options.output_dim
    if options.head is not None:
        checkpoint = checkpoint.with_head(Head.load(options.head))
        given = checkpoint.output_dim
    elif projection is not None:
        if (projection.weights, projection.matrix.shape[0]) != (checkpoint.digest(), trained):
            raise CheckpointError(
                f"the projection was fitted on {projection.matrix.shape[0]} dimensions of weights "
                f"{projection.weights}, {checkpoint.name} gives {trained} of {checkpoint.digest()}; "
                "fit one on this model's vectors"
            )
        given = projection.matrix.shape[1]
    elif options.truncate_dim is not None:
        if options.truncate_dim >= trained:
            raise InputError(f"truncate_dim is {options.truncate_dim}, must be less than the trained {trained}")
        given = options.truncate_dim
    elif wanted in checkpoint.bundled_widths() and wanted != trained:
        return checkpoint.with_head(Head.load(checkpoint.folder / HEAD_FILE.format(wanted)))
    else:
        given = trained
    if wanted not in (None, given):
        raise InputError(_how_to_get(checkpoint, given, wanted))
    return checkpoint


def _how_to_get(checkpoint: Checkpoint, given: int, wanted: int | None) -> str:
    name, widths = checkpoint.name, checkpoint.bundled_widths()
    bundled = f"; heads of {', '.join(map(str, widths))} are bundled" if widths else ""
    return (
        f"{name} gives {given} dimensions, asked for {wanted}{bundled}. Three ways to get {wanted}, best first: "
        f"train a head with 'c2llm train-head {name} FOLDER --output-dim {wanted}' and give its file as head=FILE; "
        f"fit a projection with 'c2llm fit-projection FOLDER --model {name} --output-dim {wanted}' and give "
        f"projection=FILE; or truncate_dim={wanted} (lowest quality)"
    )


def bundled_head(name: str, output_dim: int, digest: str) -> bool:
    """Return whether the checkpoint of this name has a bundled head of this width and digest."""
    with suppress(C2LLMError):
        file = load_checkpoint(name).folder / HEAD_FILE.format(output_dim)
        return file.is_file() and Head.load(file).digest == digest
    return False


def remember(made: Projection | Head) -> None:
    """Keep a copy on this machine under its digest, so that a collection made with it needs it named only once.

    The copy is not trusted: its digest is checked whenever it is used. Without a writable cache folder nothing is
    kept.
    """
    file = user_cache() / "projections" / f"{made.digest}.safetensors"
    with suppress(OSError):
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            made.save(file)


def remembered(digest: str) -> Path | None:
    """Return the file kept under a digest, or None; the digest comes from a collection and may be any text."""
    file = user_cache() / "projections" / f"{digest}.safetensors"
    return file if _DIGEST.fullmatch(digest) and file.is_file() else None
