"""A head: a PMA of another width for a checkpoint whose backbone stays as it is, in a small file of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from c2llm_integrations.checkpoint import save_tensors
from c2llm_integrations.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

_FORMAT = "c2llm-head-1"


@dataclass(frozen=True)
class Head:
    """The weights of a PMA under a checkpoint's short names, `pma.S`, `pma.mab.fc_q.weight` and so on, float32.

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
        """What stands for this head in a fingerprint: 32 hexadecimal digits of the SHA-256 of all that it computes."""
        total = hashlib.sha256(json.dumps([self.num_heads, self.layer_norm]).encode())
        for name, tensor in sorted(self.tensors.items()):
            total.update(name.encode() + tensor.float().contiguous().numpy().tobytes())
        return total.hexdigest()[:32]

    def save(self, path: str | Path) -> None:
        """Write it as safetensors, beside its place first, so that a good file is never half overwritten."""
        about = {"base": self.base, "revision": self.revision or "", "weights": self.weights, "training": self.training}
        about |= {"num_heads": str(self.num_heads), "layer_norm": str(int(self.layer_norm)), "format": _FORMAT}
        save_tensors({name: tensor.float().contiguous() for name, tensor in self.tensors.items()}, Path(path), about)

    @classmethod
    def load(cls, path: str | Path) -> Head:
        """Read what `save` wrote; raises CheckpointError for any other file."""
        try:
            with safe_open(path, framework="pt") as opened:
                about = opened.metadata() or {}
                if about.get("format") != _FORMAT:
                    raise CheckpointError(f"{path} has format {about.get('format')!r}, expected {_FORMAT!r}")
                head = cls(
                    {name: opened.get_tensor(name) for name in opened.keys()},  # noqa: SIM118 (no mapping)
                    int(about["num_heads"]),
                    about["layer_norm"] == "1",
                    about["base"],
                    about["revision"] or None,
                    about["weights"],
                    about["training"],
                )
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{path} is no head: {error}; make one with c2llm train-head") from error
        if "pma.S" not in head.tensors or head.num_heads < 1 or head.output_dim % head.num_heads:
            raise CheckpointError(f"{path} is no whole head; make one with c2llm train-head")
        return head
