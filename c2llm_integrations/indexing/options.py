"""The options of an indexing run, declared once and passed on as one object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from c2llm_integrations._utils.option_field import option
from c2llm_integrations.code.exclude import REFUSED_FILE

if TYPE_CHECKING:  # importing options alone loads no store
    from collections.abc import Callable, Collection, Mapping, Sequence

    from c2llm_integrations._utils.progress import Progress
    from c2llm_integrations.code.chunk import CodeChunk
    from c2llm_integrations.stores.records import Vector
    from c2llm_integrations.stores.spec import CompactPlan
    from c2llm_integrations.stores.vector_store import VectorStore

    VectorsFrom = Callable[[Sequence[CodeChunk]], Sequence[Vector | None]]
    Transform = Callable[[Any], Any]

Vectors = str | Iterable[Any]


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """Options of writing rows, of any source; `ingest` explains each one."""

    compact: CompactPlan | None = None
    long_text: str | None = option(None, "Cut or refuse a text that is too long for the store.", metavar="cut|refuse")
    refused: Path | None = option(
        None,
        "File for refused rows and their reasons.",
        metavar="FILE",
        cli_default=Path(REFUSED_FILE),
    )
    progress: Progress | None = None


@dataclass(frozen=True, kw_only=True)
class FillOptions(WriteOptions):
    """Options of a run that reads a whole source, so that it can fill a collection anew."""

    replace: bool = option(False, "Fill a new collection; the old one serves until it is complete.")


@dataclass(frozen=True, kw_only=True)
class IngestOptions(FillOptions):
    """The options of `ingest`, which explains them."""

    repository: str | None = option(None, "Name of the repository.  [default: its origin URL]", metavar="NAME")
    force: bool = option(False, "Take over a name that another checkout fills.")
    include_secrets: bool = option(False, "Also store what looks like a secret; needed in each run.")
    only: Collection[str] | None = None
    expected_root: Path | None = None
    vectors_from: VectorStore | VectorsFrom | None = None


@dataclass(frozen=True, kw_only=True)
class RecordOptions(FillOptions):
    """The options of `ingest_records`, which explains them."""

    text: str = option("text", "Field to embed.", metavar="FIELD")
    id: str | None = option(
        "id", "Field with the record id; if missing, the id follows from the text.", metavar="FIELD"
    )
    vectors: Vectors | None = option(None, "Field with a vector made elsewhere; nothing is embedded.", metavar="FIELD")
    delete_missing: bool = option(False, "Delete the rows of this source that are not in the file.")
    fields: Mapping[str, str] | None = None
    batch_size: int | None = None
    transform: Transform | None = None
