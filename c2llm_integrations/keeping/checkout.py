"""A checkout that answers questions and keeps its collection current, for programs that run as long as an agent does.

Until a run has completed its collection it answers from a lexical index in this process, then as the command line
does. Questions may come from any thread.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from c2llm_integrations.checkpoint import lasting_name
from c2llm_integrations.claims import name_of
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.repository import iter_sources, open_tree, root_of
from c2llm_integrations.errors import C2LLMError, CheckpointError, InputError, RepositoryError, StoreError
from c2llm_integrations.keeping.freshness import Staleness, stale
from c2llm_integrations.search import search
from c2llm_integrations.stores import open_store, own_index
from c2llm_integrations.stores.base import Hit, VectorStore
from c2llm_integrations.words import Words

if TYPE_CHECKING:
    from c2llm_integrations.embedder import C2LLMEmbedder
    from c2llm_integrations.shared_model import SharedModel

# How long a question, and a run that writes, wait for a collection that others use.
WAIT_SECONDS = 30.0
# How old the last look at the tree may be when a question is answered.
LOOK_SECONDS = 2.0
# How long a question waits for the files to be read before it is answered from those that are.
READ_SECONDS = 2.0

NOTHING_INDEXED = "nothing is indexed yet"
WORDS_ALONE = "found by words alone: there are no vectors to compare meanings by"


@dataclass(frozen=True)
class Answer:
    """Hits, best first, and lines that the asker should read with them."""

    hits: list[Hit]
    notes: list[str]


class Checkout:
    """One folder of a repository, its collection, and the model that the collection was made with."""

    def __init__(
        self, folder: Path, store: str | None = None, collection: str = "code", model: str | None = None
    ) -> None:
        """`store`: a URL, by default the repository's own index; `model`: that of a collection yet to be made.

        Raises RepositoryError if the folder cannot be listed.
        """
        self.folder = folder.resolve()
        self.root = root_of(self.folder)
        self.prefix = "" if self.folder == self.root else self.folder.relative_to(self.root).as_posix()
        if model is not None:
            model = lasting_name(model)  # for the collection may be searched from anywhere
        self.url = store or own_index(self.root)
        self.collection = collection
        self.used = time.monotonic()
        self.progress: tuple[int, int | None] | None = None  # of a run under way: files done, files
        self.problem = ""
        self.on_stale: Callable[[], None] = lambda: None  # called when a question finds the collection out of date
        self.options = {"folder": str(self.folder), "store": store, "collection": collection, "model": model}
        self._own_store = store is None
        self._wanted_model = model
        self._store: VectorStore | None = None
        self._model: SharedModel | None = None
        self._words: Words | None = None
        self._name: str | None = None
        self._staleness: Staleness | None = Staleness(unknown=NOTHING_INDEXED)
        self._looked = -LOOK_SECONDS
        self._lock = threading.Lock()

    @classmethod
    def of(cls, options: dict[str, Any]) -> Checkout:
        """Return what has these `options`."""
        return cls(Path(options["folder"]), options["store"], options["collection"], options["model"])

    # ---- questions

    def search(self, question: str, limit: int = 10, path: str | None = None, **options: Any) -> Answer:
        """Answer a question; `options` are those of `search`, `path` is relative to the folder.

        Raises RepositoryError if the folder is gone, InputError for a question that cannot be answered.
        """
        self.used = time.monotonic()
        path = _below(self.prefix, path)
        notes = self._notes()
        if self._name is not None:
            try:
                return Answer(self._compare(question, limit=limit, path=path, **options), notes)
            except (StoreError, CheckpointError) as error:
                notes = [*notes, str(error), WORDS_ALONE]
        words = self._read()
        return Answer(words.search(question, limit, path, **options), [*notes, *words.notes()])

    def chunk_at(self, path: str, line: int) -> CodeChunk:
        """Return the chunk of a file that holds a line (1-based); `path` is relative to the folder.

        Raises InputError unless the file is one that is indexed and has that line.
        """
        self._require_folder()
        tree = open_tree(self.folder)
        inner = "/".join(part for part in (self.prefix, path.replace("\\", "/").removeprefix("./")) if part)
        if inner not in tree.files:
            raise InputError(f"{path!r} is no indexed file of {self.folder}; give a path as search_code shows it")
        tree.files = [inner]
        chunks = [chunk for source in iter_sources(tree) for chunk in chunk_source(tree.name, inner, source.text)]
        for chunk in chunks:
            if chunk.start_line <= line <= chunk.end_line:
                return chunk
        last = chunks[-1].end_line if chunks else 0
        raise InputError(f"{path!r} has {last} lines that are indexed, asked for line {line}")

    def inside(self, hit: Hit) -> str:
        """Return the hit's path relative to the folder."""
        return hit.chunk.path.removeprefix(f"{self.prefix}/") if self.prefix else hit.chunk.path

    def status(self) -> dict[str, Any]:
        """Return what there is to know, as JSON would hold it; raises RepositoryError if the folder is gone."""
        notes = self._notes()
        rows = None
        if self._name is not None:
            try:
                rows = self.store.count(self._name)
            except C2LLMError as error:
                notes = [*notes, str(error)]
        return {
            "folder": str(self.folder),
            "store": self.url,
            "answers_from": "words alone" if self._name is None else "vectors and words",
            "rows": rows,
            "notes": notes,
        }

    @property
    def embedder(self) -> C2LLMEmbedder:
        """The collection's model, else the wanted one; loaded on first use and again after `release`."""
        from c2llm_integrations.embedder import options_of
        from c2llm_integrations.shared_model import Settings, shared_model

        spec, model = self.store.spec, self._model
        made_with = options_of(spec.fingerprint) if spec is not None else {"name": self._wanted_model or "nano"}
        settings = Settings(**made_with)
        if model is None or model.settings != settings:  # somebody has replaced the collection
            model = self._model = shared_model(settings)
        return model.embedder

    @property
    def store(self) -> VectorStore:
        """The collection, shared with other processes; raises StoreError or SpecMismatch if it cannot be read."""
        with self._lock:
            if self._store is None:
                self._store = open_store(self.url, self.collection, wait=WAIT_SECONDS)
            return self._store

    # ---- keeping current

    def look(self) -> Staleness | None:
        """Compare the tree with the collection and return what a run would have to do, None if nothing.

        Raises StoreError if the collection cannot be read, RepositoryError if the folder is gone.
        """
        if self.progress is None:
            name = name_of(self.root, self.store)
            found = stale(self.root, self.store) if name is not None else Staleness(unknown=NOTHING_INDEXED)
            if found is None or not found.unknown:
                self._name = name  # a run has completed it; the next one does not make it worse
                self._words = None
            self._staleness = found
        self._looked = time.monotonic()
        return self._staleness

    def warm(self) -> None:
        """Do now what the next question would wait for: load the model or, without vectors, read the words."""
        if self._name is None:
            self._read()
        else:
            with suppress(C2LLMError):  # which the next question says
                _ = self.embedder

    def refresh(self, show: Callable[[int, int | None], None]) -> str:
        """Bring the collection up to date and return what went wrong all the same, or "".

        `show(files done, files)` is called before each file. Raises what `look` and `ingest` raise.
        """
        from c2llm_integrations.ingest import ingest
        from c2llm_integrations.keeping.worktrees import Worktrees

        self._require_folder()
        found = self.look()
        if found is None:
            return ""
        with Worktrees(self.root, self.collection, self.embedder) as others:
            report = ingest(
                self.folder,
                self.embedder,
                self.store,
                own_store=self._own_store,
                progress=lambda done, total, _path: show(done, total),
                only=None if found.unknown else found.paths,
                vectors_from=others.vectors if self._own_store else None,
            )
        self.look()
        return f"{len(report.refused)} chunks were refused; run: c2llm index" if report.refused else ""

    def close(self) -> None:
        """Close the collection; asking afterwards opens it again."""
        with self._lock:
            store, self._store = self._store, None
        if store is not None:
            with suppress(StoreError):  # it vanished with its folder: what it acknowledged is on disk or nowhere
                store.close()

    def release(self) -> None:
        """Let go of the model and the words, until the next question; the collection lets go of itself."""
        if self._model is not None or self._words is not None:
            self._model = self._words = None
            gc.collect()  # a model's threads refer to it in circles

    def _compare(self, question: str, **options: Any) -> list[Hit]:
        """Search the collection; raises StoreError or CheckpointError where its vectors cannot be used."""
        try:
            embedder = self.embedder
        except InputError as error:  # its model or projection is not where it was
            raise CheckpointError(str(error)) from error
        return search(question, embedder, self.store, repository=self._name, **options)

    def _notes(self) -> list[str]:
        """Look at the tree, unless somebody just did, and return what to say about the collection."""
        self._require_folder()
        notes = [self.problem] if self.problem else []
        if time.monotonic() > self._looked + LOOK_SECONDS:
            try:
                if self.look() is not None or self.problem:
                    self.on_stale()
            except RepositoryError:
                raise
            except C2LLMError as error:
                self._name = None
                notes.append(str(error))
        if self._name is None:
            notes.append(WORDS_ALONE)
        if self.progress is not None:
            done, total = self.progress
            notes.append(f"indexing: {done:,} of {total:,} files done" if total else "indexing has begun")
        elif self._staleness is not None:
            notes.append(self._staleness.reason)
        return notes

    def _read(self) -> Words:
        """Return the words, as far as they could be read by now; reading goes on in a thread of its own."""
        with self._lock:
            if self._words is None or self._words.is_old():
                self._words = Words(self.folder)
            words = self._words
        words.read.wait(READ_SECONDS)
        return words

    def _require_folder(self) -> None:
        if not self.folder.is_dir():
            raise RepositoryError(f"{self.folder} is gone; bring it back, or start again with another folder")


def _below(prefix: str, pattern: str | None) -> str | None:
    """Return a path pattern for the whole repository that matches what `pattern` does in the folder `prefix`."""
    if not prefix:
        return pattern
    if pattern is None:
        return f"/{prefix}/"
    pattern = pattern.removeprefix("./")
    is_anchored = "/" in pattern.rstrip("/")
    return f"/{prefix}/{pattern.removeprefix('/')}" if is_anchored else f"/{prefix}/**/{pattern}"
