"""A checkout that answers questions and keeps its collection current, for long-running programs.

Until its collection has been filled once, questions are answered by words from memory; after that from the collection,
as by `c2llm search`. Questions may come from any thread.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from c2llm_integrations._utils.files import real_path
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.path_filter import escaped, from_root, literal
from c2llm_integrations.code.repository import find_root, iter_chunks, open_tree
from c2llm_integrations.errors import C2LLMError, CheckpointError, InputError, RepositoryError, ServerError, StoreError
from c2llm_integrations.indexing.claims import claim_of, index_of, parts_of, require_known_model
from c2llm_integrations.indexing.staleness import Staleness, stale
from c2llm_integrations.model.checkpoint import lasting_name
from c2llm_integrations.model.options import remember_model
from c2llm_integrations.retrieval.lexical_index import FolderIndex
from c2llm_integrations.retrieval.options import SearchOptions
from c2llm_integrations.retrieval.search import Answer, answer, unmatched
from c2llm_integrations.retrieval.store_handles import STORE_WAIT_SECONDS
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.records import Hit
from c2llm_integrations.stores.vector_store import VectorStore

if TYPE_CHECKING:
    from c2llm_integrations.model.embedder import C2LLMEmbedder
    from c2llm_integrations.model.shared_model import SharedModel

# How old the last look at the tree may be when a question is answered.
LOOK_SECONDS = 2.0
# How long a question waits for the files to be read before it is answered from those that are.
READ_SECONDS = 2.0

NOTHING_INDEXED = "nothing is indexed yet"
_NOT_INDEXED = Staleness(unknown=NOTHING_INDEXED)
WORDS_ALONE = "found by words alone: there are no vectors"


@dataclass(frozen=True, kw_only=True)
class LiveIndexConfig:
    """The folder that questions are answered from, a repository or a folder in one, and its collection.

    `store`: URL, by default the repository's own index; `model`: the model of a new collection, by default nano.
    """

    folder: Path
    store: str | None = None
    collection: str = "code"
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class _State:
    """What is known by now: replaced as a whole under the lock, so that every reader sees one moment.

    `name`: of the repository in the collection, None before a run has completed it; `parts`: the folders that a run
    reads, () before the first; `looked`, `used`: when the tree was looked at and the index asked, by the monotonic
    clock; `progress`: of a run under way, files done and files; `problem`: what went wrong with the last run.
    """

    name: str | None = None
    parts: tuple[str, ...] = ()
    staleness: Staleness | None = _NOT_INDEXED
    looked: float = -LOOK_SECONDS
    used: float = 0.0
    progress: tuple[int, int | None] | None = None
    problem: str = ""


class LiveIndex:
    """One folder of a repository, its collection, and the model that the collection was made with."""

    def __init__(self, config: LiveIndexConfig) -> None:
        """Raise RepositoryError if the folder cannot be listed."""
        model = config.model
        if model is not None:
            model = lasting_name(model)  # for the collection may be searched from anywhere
            remember_model(model)
        self.config = replace(config, folder=real_path(config.folder), model=model)
        self.folder = self.config.folder
        self.root, self._tree_notes = find_root(self.folder)
        self.prefix = "" if self.folder == self.root else self.folder.relative_to(self.root).as_posix()
        self.url = config.store or index_of(self.root)
        # Called when a question finds the collection out of date.
        self.on_stale: Callable[[], None] = lambda: None
        self.state = _State(used=time.monotonic())
        self._lock = threading.Lock()  # over changes of the state, and over all that follows
        self._store: VectorStore | None = None
        self._model: SharedModel | None = None
        self._words: FolderIndex | None = None

    def update(self, **changes: Any) -> None:
        """Change fields of the state; any thread may."""
        with self._lock:
            self.state = replace(self.state, **changes)

    # ---- questions

    def search(self, question: str, limit: int = 10, path: str | None = None, **options: Any) -> Answer:
        """Answer a question.

        Args:
            question: Words, a name, an error message or code.
            limit: How many hits.
            path: Only files of this path or pattern, relative to the folder.
            options: Further `SearchOptions`.

        Raises:
            InputError: For a question that cannot be answered.
            RepositoryError: If the folder is gone.

        """
        self.update(used=time.monotonic())
        asked = SearchOptions(limit=limit, path=self._in_repository(path), **options)
        notes = self._look_and_note()
        if (name := self.state.name) is not None:
            named = replace(asked, repository=name)
            try:
                found = self._search_collection(question, named)
                return replace(found, notes=[*notes, *found.notes])
            except (StoreError, CheckpointError, ServerError) as error:
                notes += [str(error), WORDS_ALONE]
        words = self._word_index()
        hits = words.search(question, asked)
        notes += words.notes()
        return Answer(hits, notes, "" if hits else unmatched(words.index, asked))

    def chunk_at(self, path: str, line: int, or_path: str | None = None) -> CodeChunk:
        """Return the chunk of a file that holds a line (1-based); `path` is relative to the folder.

        `or_path`: what is meant where `path` is not an indexed file. Raises InputError unless the file is one that is
        indexed and has that line.
        """
        self._require_folder()
        tree = open_tree(self.folder, expected_root=self.root)
        inner = self._indexed_path(path, tree.files)
        if inner is None and or_path is not None:
            path, inner = or_path, self._indexed_path(or_path, tree.files)
        if inner is None:
            raise InputError(f"{path!r} is not an indexed file of {self.folder}; give a path as search_code shows it")
        tree.files = [inner]
        chunks = list(iter_chunks(tree))
        for chunk in chunks:
            if chunk.start_line <= line <= chunk.end_line:
                return chunk
        last = chunks[-1].end_line if chunks else 0
        raise InputError(f"{path!r} has {last} lines that are indexed, asked for line {line}")

    def path_in_folder(self, hit: Hit) -> str:
        """Return the hit's path relative to the folder."""
        return hit.chunk.path.removeprefix(f"{self.prefix}/") if self.prefix else hit.chunk.path

    def status(self) -> dict[str, Any]:
        """Return what there is to know, as JSON would hold it; raises RepositoryError if the folder is gone."""
        notes = self._look_and_note()
        rows, name = None, self.state.name
        if name is not None:
            try:
                rows = self.store.count(source=name)
            except C2LLMError as error:
                notes.append(str(error))
        return {
            "folder": str(self.folder),
            "store": self.url,
            "answers_from": "words alone" if name is None else "vectors and words",
            "rows": rows,
            "notes": notes,
        }

    @property
    def embedder(self) -> C2LLMEmbedder:
        """The collection's model, else the wanted one; loaded on first use and again after `release`."""
        from c2llm_integrations.model.fingerprint import options_of
        from c2llm_integrations.model.options import ModelOptions
        from c2llm_integrations.model.shared_model import shared_model

        spec = self.store.spec
        require_known_model(self.store)
        options = ModelOptions(name=self.config.model or "nano") if spec is None else options_of(spec.fingerprint)
        with self._lock:
            model = self._model
            if model is None or model.options != options:  # somebody has replaced the collection
                model = self._model = shared_model(options)
        return model.embedder

    @property
    def store(self) -> VectorStore:
        """The collection, shared with other processes; raises StoreError or SpecMismatch if it cannot be read."""
        with self._lock:
            if self._store is None:
                self._store = open_store(self.url, self.config.collection, wait=STORE_WAIT_SECONDS)
            return self._store

    # ---- keeping current

    def look(self) -> Staleness | None:
        """Compare the tree with the collection and return what a run would have to do, None if nothing.

        Raises StoreError if the collection cannot be read, RepositoryError if the folder is gone.
        """
        if self.state.progress is not None:  # the run looks for itself
            self.update(looked=time.monotonic())
            return self.state.staleness
        claimed = claim_of(self.root, self.store)
        parts = parts_of(claimed[1], self.root, self.prefix) if claimed else ()
        staleness = stale(self.root, self.store) if parts else _NOT_INDEXED
        if parts and staleness is not None and self.prefix:
            staleness = staleness.within(f"{self.prefix}/")
        with self._lock:
            name = self.state.name
            if claimed is not None and (staleness is None or not staleness.unknown):
                name = claimed[0]  # the collection was complete once, so it is searched also while a run changes it
                self._words = None
            self.state = replace(self.state, name=name, parts=parts, staleness=staleness, looked=time.monotonic())
        return staleness

    def warm(self) -> None:
        """Do now what the next question would wait for: load the model or, without vectors, read the words."""
        if self.state.name is None:
            self._word_index()
        else:
            with suppress(C2LLMError):  # which the next question says
                _ = self.embedder

    def refresh(self, show: Callable[[int, int | None], None]) -> str:
        """Bring the collection up to date and return what went wrong all the same, or "".

        `show(files done, files)` is called before each file. Raises what `look` and `ingest` raise.
        """
        from c2llm_integrations.indexing.ingest import ingest_with
        from c2llm_integrations.indexing.options import IngestOptions
        from c2llm_integrations.indexing.vector_reuse import Worktrees

        self._require_folder()
        find_root(self.folder, self.root)
        staleness = self.look()
        if staleness is None:
            return ""
        with Worktrees(self.root, self.config.collection, self.embedder) as others:
            options = IngestOptions(
                progress=lambda done, total, _path: show(done, total),
                only=None if staleness.unknown else staleness.paths,
                expected_root=self.root,
                vectors_from=others.vectors if self.config.store is None else None,
            )
            parts = self.state.parts or (self.prefix,)
            reports = [ingest_with(self.root / part, self.embedder, self.store, options) for part in parts]
        self.look()
        refused = sum(report.refused_count for report in reports)
        return f"{refused} chunks were refused; run: c2llm index" if refused else ""

    def close(self) -> None:
        """Close the collection; asking afterwards opens it again."""
        with self._lock:
            store, self._store = self._store, None
        if store is not None:
            with suppress(StoreError):  # it vanished with its folder: what it acknowledged is on disk or nowhere
                store.close()

    def release(self) -> None:
        """Unload the model and the words, until the next question; the collection closes by itself."""
        with self._lock:
            loaded = self._model is not None or self._words is not None
            self._model = self._words = None
        if loaded:
            gc.collect()  # a model's threads refer to it in circles

    def _search_collection(self, question: str, options: SearchOptions) -> Answer:
        """Search the collection; raises StoreError or CheckpointError where its vectors cannot be used."""
        try:
            embedder = self.embedder
        except InputError as error:  # its model or projection is not where it was
            raise CheckpointError(str(error)) from error
        return answer(question, embedder, self.store, options)

    def _look_and_note(self) -> list[str]:
        """Look at the tree, unless somebody just did, and return what to say about the collection."""
        self._require_folder()
        state = self.state
        notes = [*self._tree_notes, *([state.problem] if state.problem else [])]
        if time.monotonic() > state.looked + LOOK_SECONDS:
            try:
                if self.look() is not None or state.problem:
                    self.on_stale()
            except RepositoryError:
                raise
            except C2LLMError as error:
                self.update(name=None)
                notes.append(str(error))
        state = self.state
        if state.name is None:
            notes.append(WORDS_ALONE)
        if state.progress is not None:
            done, total = state.progress
            notes.append(f"indexing: {done:,} of {total:,} files done" if total else "indexing has begun")
        elif state.staleness is not None:
            notes.append(state.staleness.reason)
        return notes

    def _word_index(self) -> FolderIndex:
        """Return the index of words, as far as they could be read by now; reading goes on in a thread of its own."""
        with self._lock:
            if self._words is None or self._words.is_old():
                self._words = FolderIndex(self.folder, self.root)
            words = self._words
        words.read.wait(READ_SECONDS)
        return words

    def _indexed_path(self, path: str, files: Sequence[str]) -> str | None:
        inner = (from_root(path, self.folder, self.folder) or path).removeprefix("./").removeprefix("/")
        return literal(f"{self.prefix}/{inner}" if self.prefix else inner, files)

    def _in_repository(self, path: str | None) -> str | None:
        """Return a path or pattern from the folder as one from the root; None for all."""
        if path is not None:
            path = from_root(path, self.folder, self.folder) or path
        prefix = f"/{escaped(self.prefix)}" if self.prefix else ""
        if path is None or path == "/":
            return f"{prefix}/" if prefix else None
        if not prefix:
            return path
        path = path.removeprefix("./")
        is_anchored = "/" in path.rstrip("/")
        return f"{prefix}/{path.removeprefix('/')}" if is_anchored else f"{prefix}/**/{path}"

    def _require_folder(self) -> None:
        if not self.folder.is_dir():
            raise RepositoryError(f"{self.folder} is gone; bring it back, or start again with another folder")
