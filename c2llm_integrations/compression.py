"""Fewer dimensions than a checkpoint was trained to give, fewer bits a dimension, and what a vector costs.

A projection is fitted on the user's own vectors: uncentred SVD keeps the dot products among them best, and a random
rotation after it spreads the variance evenly, without which quantization loses most of the recall (measured on
31,500 code vectors, binary codes: recall@10 0.479 without, 0.931 with).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from c2llm_integrations.checkpoint import save_tensors
from c2llm_integrations.errors import CheckpointError, InputError

Matrix = NDArray[np.float32]
_FORMAT = "c2llm-projection-1"

# Datatype → bits a dimension of the full vectors.
DATATYPES = {"float32": 32, "float16": 16}
# Quantization → bits a dimension of the codes that are searched first.
QUANTIZATIONS = {"int8": 8.0, "turbo": 4.0, "product": 2.0, "binary": 1.0, "rabitq": 1.0}
# Quantization → how many times `limit` candidates are taken by their codes and compared again by full vectors.
OVERSAMPLING = {"int8": 2.0, "turbo": 3.0, "product": 10.0, "binary": 10.0, "rabitq": 10.0}


@dataclass(frozen=True)
class CompactPlan:
    """What is stored of a vector: its width, the bits of each dimension, and codes that are searched before it.

    `rescore`: how many times the asked number of candidates is taken by the codes and then compared by the full
    vectors (which lie on disk); 0 compares codes alone; None takes the quantization's own figure (`OVERSAMPLING`).
    Raises InputError for what no store knows; what one store cannot honour, it refuses itself.
    """

    output_dim: int
    datatype: str = "float32"
    quantization: str | None = None
    rescore: float | None = None

    def __post_init__(self) -> None:
        if self.output_dim < 1:
            raise InputError(f"output_dim is {self.output_dim}, must be at least 1")
        if self.datatype not in DATATYPES:
            raise InputError(f"datatype {self.datatype!r} is not known, only {', '.join(DATATYPES)}")
        if self.quantization is not None and self.quantization not in QUANTIZATIONS:
            raise InputError(f"quantization {self.quantization!r} is not known, only {', '.join(QUANTIZATIONS)}")
        if self.rescore is None:
            object.__setattr__(self, "rescore", OVERSAMPLING.get(self.quantization or "", 0.0))
        elif self.quantization is None and self.rescore:
            raise InputError(f"rescore is {self.rescore} without a quantization; there are no codes to rescore")
        elif self.rescore and not self.rescore >= 1:
            raise InputError(f"rescore is {self.rescore}; say 0 for codes alone, or at least 1")

    @property
    def code_bytes(self) -> float:
        """What the searched codes of one vector take, in bytes; 0 without a quantization."""
        return self.output_dim * QUANTIZATIONS.get(self.quantization or "", 0.0) / 8

    @property
    def bytes_per_vector(self) -> float:
        """What one vector takes in all, in bytes: the full one and its codes."""
        return self.output_dim * DATATYPES[self.datatype] / 8 + self.code_bytes


@dataclass(frozen=True)
class Projection:
    """A linear map of vectors: `vectors @ matrix`, with `matrix` (input width, output width) float32.

    `weights` is the digest of the checkpoint whose vectors it was fitted on (`fingerprint["weights"]`).
    """

    matrix: Matrix
    weights: str

    @property
    def digest(self) -> str:
        """What stands for this map in a fingerprint: 32 hexadecimal digits of its SHA-256."""
        return hashlib.sha256(np.ascontiguousarray(self.matrix).tobytes()).hexdigest()[:32]

    def save(self, path: str | Path) -> None:
        """Write the map as safetensors, beside its place first, so that a good file is never half overwritten."""
        import torch

        matrix = torch.from_numpy(np.ascontiguousarray(self.matrix))
        save_tensors({"matrix": matrix}, Path(path), {"format": _FORMAT, "weights": self.weights})

    @classmethod
    def load(cls, path: str | Path) -> Projection:
        """Read what `save` wrote; raises CheckpointError for any other file."""
        try:
            with safe_open(path, framework="numpy") as opened:
                metadata = opened.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise CheckpointError(f"{path} has format {metadata.get('format')!r}, expected {_FORMAT!r}")
                return cls(opened.get_tensor("matrix"), metadata["weights"])
        except (OSError, SafetensorError, KeyError) as error:
            raise CheckpointError(f"{path} is no projection: {error}; make one with fit_projection") from error


def fit_projection(vectors: NDArray[np.floating], output_dim: int, weights: str, *, seed: int = 0) -> Projection:
    """Fit the map to `output_dim` dimensions that keeps the dot products among `vectors` (n, width) best.

    `weights`: the embedder's `fingerprint["weights"]`. Raises InputError where the vectors cannot decide that many
    directions, or hold NaN or infinity.
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
