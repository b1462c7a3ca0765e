"""What a database implements of the contract: each method may trust what it gets.

`vector_store.VectorStore` checks arguments and the store's state before it calls any of these; unless a method says
otherwise, the collection exists by then.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from c2llm_integrations._utils.fork import watched
from c2llm_integrations.errors import C2LLMError, InputError, StoreError
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.ids import RecordId
from c2llm_integrations.stores.records import AnyRecord, Candidates, RecordIterator, Vector
from c2llm_integrations.stores.row_checks import require
from c2llm_integrations.stores.row_fields import BATCH_BYTES, Stored
from c2llm_integrations.stores.spec import Capabilities, CollectionSpec

if TYPE_CHECKING:
    from c2llm_integrations.stores import Location
    from c2llm_integrations.stores.vector_store import VectorStore

# Awaited calls that are under way at once where a store is for many threads: they mostly wait for the network.
AWAITED_CALLS = 32

Terms = Sequence[Sequence[str]] | None  # one list per row, None where the spec has no analyzer
Gone = Sequence[Sequence[str]]  # one list per row: names of the metadata to remove

_T = TypeVar("_T")


_opened: WeakSet[Backend] = watched(lambda one: one._after_fork())


class Backend(ABC):
    """One collection of one database."""

    capabilities: Capabilities = Capabilities()
    # What one call of `_upsert` or `_update` takes at most, unless a single row has more; see `row_fields.batch_bytes`.
    _batch_bytes: int = BATCH_BYTES

    def __init__(self, url: str, collection: str) -> None:
        """`url` names the database without credentials; `collection` one named set of rows in it."""
        self.url = url
        self.collection = collection
        self.changes = 0  # grows with each change made through this object
        # The database's own client, which `client` gives out; a store sets it here or when it first connects.
        self._client: Any = None
        # Whether no row can hold what others have added. Then rows are written without a look at what is there. A store
        # may set it that made the collection where nobody else can write to it (Edge under its lock, Qdrant's client in
        # memory); `bulk` sets it for an empty collection, and `client` takes it back.
        self._has_only_our_fields = False
        self._is_successor = False
        self._closed = False
        self._executor: ThreadPoolExecutor | None = None
        # Held by the thread that makes, opens, replaces or drops the collection, or writes a claim.
        self._making = threading.RLock()
        _opened.add(self)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy takes along: a lock stays here."""
        return {**self.__dict__, "_making": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._making = threading.RLock()
        _opened.add(self)

    def _after_fork(self) -> None:
        """Forget, in a forked process, what belongs to the one that it was forked from."""
        self._executor = None  # its threads stayed there
        self._making = threading.RLock()

    @classmethod
    @abstractmethod
    def open(cls, at: Location) -> VectorStore:
        """Return the store that a URL names; see `stores.open_store`."""

    @classmethod
    @abstractmethod
    def list_collections(cls, at: Location) -> list[str]:
        """Return the names of the collections that this package made in the database, without their successors."""

    @abstractmethod
    def _read_spec(self) -> CollectionSpec | None:
        """Return the spec, or None while the collection does not exist; called often, so cheap."""

    @abstractmethod
    def _create(self, spec: CollectionSpec) -> None:
        """Create a missing collection with its spec, in one step that a crash cannot halve."""

    @abstractmethod
    def _claims(self) -> Mapping[str, str]:
        """Return repository or source → its claim, the strings that `_claim` was given."""

    @abstractmethod
    def _claim(self, repository: str, checkout: str) -> None:
        """Keep a claim, any two strings, with the collection, in place of the repository's former one."""

    @abstractmethod
    def _optimize(self) -> None:
        """Build what makes searching fast, and wait for it; nothing to do where there is no such thing."""

    @abstractmethod
    def _drop(self) -> None:
        """Delete the collection, which may be missing, and the successor that a former run has begun, if any."""

    @abstractmethod
    def _successor(self) -> VectorStore:
        """Return a store on this collection's successor, the same one after a restart; never called on a successor.

        Its name is up to the store: one that no other collection can have, and that `list_collections` does not return.
        """

    @abstractmethod
    def _replace(self) -> None:
        """Put the filled, closed successor in place."""

    @abstractmethod
    def _close(self) -> None:
        """Release everything, called once."""

    # All ids below are those of rows: UUIDs in lower case and integers.

    def _known(self, ids: Sequence[RecordId]) -> Iterable[RecordId]:
        """Return those of `ids` that are in the collection."""
        return self._written_fields(ids)

    @abstractmethod
    def _written_fields(self, ids: Sequence[RecordId]) -> Mapping[RecordId, Sequence[str]]:
        """Return id → names of the metadata that we wrote, for the `ids` that are there; of rows of others, none.

        `_update` is told which of these to remove. A chunk's may be left out, for every chunk has the same.
        """

    @abstractmethod
    def _upsert(self, records: Sequence[AnyRecord], vectors: Vector, terms: Terms) -> None:
        """Write one batch of new rows; `vectors`: (len(records), width) float32, unit length.

        Each record is a `CodeChunk` or a `PreparedRecord`; store the `digest` of the latter beside it, for `_scan`.
        Keep copies, metadata included: the caller may go on to change its own. Lexical search is BM25 over `terms`.
        Raise BatchRefused where the database refuses what is in the rows: they are then written in halves.
        """

    @abstractmethod
    def _update(self, records: Sequence[AnyRecord], vectors: Vector | None, terms: Terms, gone: Gone) -> None:
        """Overwrite our fields of rows that exist, and their vectors if given; `gone`: the fields to remove of each.

        Fields of the metadata that another program has added to a row stay. Records are those of `_upsert`. A row that
        another program wrote is ours from now on.
        """

    @abstractmethod
    def _delete(self, ids: Sequence[RecordId]) -> None:
        """Delete rows, whoever wrote them; some may be gone already."""

    @abstractmethod
    def _get(self, ids: Sequence[RecordId]) -> Iterable[AnyRecord]:
        """Return the records of those of `ids` that are in the collection, whoever wrote them.

        Here and below, a record is a `CodeChunk` or a plain `Record`, as `row_fields.made_of` tells, which the caller
        may change without changing the row.
        """

    @abstractmethod
    def _vectors(self, ids: Sequence[RecordId]) -> Mapping[RecordId, Vector]:
        """Return the vectors of those of `ids` that have one, whoever wrote them, as they are stored.

        The caller brings them to unit length, which those of others and rounded ones may not have.
        """

    # The next three read the rows of this package that match the filter: those of one source, or of all with None. Rows
    # that another program wrote, and that `_update` never overwrote, must not be among them.

    @abstractmethod
    def _count(self, where: Filter, source: str | None) -> int:
        """Count them exactly."""

    @abstractmethod
    def _scan(self, where: Filter, source: str | None) -> Iterator[Stored]:
        """Yield what `row_fields.stored_of` makes of each row's id and metadata, with the digest stored beside it.

        That of a chunk (`records.is_chunk`) is "".
        """

    @abstractmethod
    def _rows(self, where: Filter, source: str | None, *, vectors: bool = False) -> RecordIterator:
        """Yield their records, in any order, with the vectors that `_vectors` gives if asked for."""

    @abstractmethod
    def _total(self) -> int:
        """Count all rows, those of other programs too."""

    @abstractmethod
    def _candidates(self, vector: Vector | None, terms: Sequence[str], limit: int, where: Filter) -> Candidates:
        """Return the `limit` best by cosine to a unit vector of the right width, and the `limit` best by BM25 of terms.

        Either may be missing, terms always where the spec has no analyzer: that list is then empty. Rows that another
        program wrote are found too. Rows that share no term are not in the lexical list.
        """

    def _lexical_scores(self, terms: Sequence[str], ids: Sequence[RecordId]) -> Mapping[RecordId, float]:
        """Return id → what lexical search scores it, for those of `ids` that share a term."""
        return {}  # of a store without lexical search

    def _defer(self) -> None:  # noqa: B027 (most stores have nothing to put off)
        """Put off index building; nothing to do where the index is only built by `_optimize`."""

    def _restore(self) -> None:  # noqa: B027
        """Undo `_defer`, also that of a run that was killed."""

    def _reason(self, error: BaseException) -> str:
        """Return in one line what one of the database's own errors says."""
        return (str(error).strip().splitlines() or [type(error).__name__])[0]

    def _translate(self, error: BaseException) -> StoreError:
        """Return the error to raise for one of the database's own."""
        if isinstance(error, FileExistsError | NotADirectoryError):
            return StoreError(f"{error.filename} is a file or in one, but {self.url} needs a folder; name another")
        return StoreError(f"collection {self.collection!r} of {self.url} failed: {self._reason(error)}")

    @contextmanager
    def _open(self) -> Iterator[None]:
        self._require_open()
        with self._errors():
            yield

    def _require_open(self) -> None:
        if self._closed:
            raise StoreError(f"the store {self.url} is closed; open it again")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except C2LLMError:
            raise
        except Exception as error:
            raise self._translate(error) from error
        except BaseException as error:
            # What a database written in Rust raises where it would have crashed; it has no importable name.
            if type(error).__name__ != "PanicException":
                raise
            raise self._translate(error) from error

    async def _in_thread(self, call: Callable[..., _T], *args: Any, **named: Any) -> _T:
        # Calls that wait for a thread are answered in the order in which they came.
        self._require_open()
        if self._executor is None:
            threads = 1 if self.capabilities.uploads == 1 else AWAITED_CALLS
            self._executor = ThreadPoolExecutor(threads, "c2llm-store")
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(call, *args, **named))

    def _existing(self) -> CollectionSpec:
        spec = self._read_spec()
        if spec is None:
            raise StoreError(f"{self.url} has no collection {self.collection!r}; index a repository into it first")
        return spec


def require_parts(embedder: object, store: object) -> None:
    """Raise InputError unless a user gave an embedder (or None) and an open store, rather than what names them."""
    require(store, Backend, "an open store, such as open_store(URL, COLLECTION)")
    if embedder is not None and not hasattr(embedder, "encode_documents"):
        what = f"{embedder!r:.60} ({type(embedder).__name__})"
        raise InputError(f"expected a C2LLMEmbedder (a framework's C2LLM embedding has it as .embedder), got {what}")
