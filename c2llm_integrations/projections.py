"""Projections and heads kept on this machine under their digest: a collection made with one needs it named once.

A copy can only save asking: what stands under a digest is compared with it again whenever it is used.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from c2llm_integrations.compression import Projection
from c2llm_integrations.heads import Head
from c2llm_integrations.user_cache import user_cache

FOLDER = "projections"

_DIGEST = re.compile(r"[0-9a-f]{32}")


def remember(made: Projection | Head) -> None:
    """Keep a copy; where this user has no writable cache folder, nothing is kept."""
    file = user_cache() / FOLDER / f"{made.digest}.safetensors"
    with suppress(OSError):
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            made.save(file)


def remembered(digest: str) -> Path | None:
    """Return the file kept under a digest, which comes from a collection and may be any text; None if there is none."""
    file = user_cache() / FOLDER / f"{digest}.safetensors"
    return file if _DIGEST.fullmatch(digest) and file.is_file() else None
