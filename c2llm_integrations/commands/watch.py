"""What `c2llm index` does besides one run: copy what another worktree has, and go on for as long as it is watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from c2llm_integrations import terminal

if TYPE_CHECKING:
    from c2llm_integrations.embedder import C2LLMEmbedder
    from c2llm_integrations.ingest import IngestReport, VectorsFrom
    from c2llm_integrations.stores.base import VectorStore

# Seconds that a run may take to find out which files have really changed.
PATIENCE = 10.0


@contextmanager
def known_vectors(
    own_store: bool, path: Path, collection: str, embedder: C2LLMEmbedder, datatype: str
) -> Iterator[VectorsFrom | None]:
    """Yield what gives vectors of the repository's other worktrees, and say afterwards what came from there."""
    from c2llm_integrations.code.repository import root_of
    from c2llm_integrations.keeping.worktrees import Worktrees

    if not own_store:
        yield None
        return
    with Worktrees(root_of(path), collection, embedder, datatype) as others:
        yield others.vectors
    for note in others.notes:
        terminal.say(note)
    if others.copied:
        terminal.say(f"{others.copied:,} vectors were copied from other worktrees")


def keep_current(path: Path, store: VectorStore, run: Callable[..., IngestReport]) -> None:
    """Call `run(only=paths)` whenever files under `path` differ from what `store` holds, until Ctrl-C."""
    from c2llm_integrations.code.repository import root_of
    from c2llm_integrations.keeping.freshness import stale
    from c2llm_integrations.keeping.watching import watch

    folder = path.resolve()
    root = root_of(folder)
    below = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"

    def work() -> None:
        found = stale(root, store, PATIENCE)
        if found is None:
            return
        paths = {one for one in found.paths if one.startswith(below)}
        if not found.unknown and not paths:
            return
        report = run(only=None if found.unknown else paths)
        terminal.say(
            f"{report.repository}: {report.files:,} files, written {report.written:,}, moved {report.moved:,}, "
            f"deleted {report.deleted:,}, refused {len(report.refused):,} in {report.seconds:.1f} s"
        )

    terminal.say(f"watching {folder} until you press Ctrl-C")
    with suppress(KeyboardInterrupt):
        watch(folder, work, terminal.say)
