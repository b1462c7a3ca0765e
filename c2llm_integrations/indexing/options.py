"""The options of an indexing run, declared once and passed on as one object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from c2llm_integrations._utils.option_field import option
from c2llm_integrations.code.exclude import REFUSED_FILE

if TYPE_CHECKING:  # importing options alone loads no store
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from c2llm_integrations._utils.progress import Progress
    from c2llm_integrations.code.chunk import CodeChunk
    from c2llm_integrations.stores.records import Vector
    from c2llm_integrations.stores.spec import CompactPlan
    from c2llm_integrations.stores.vector_store import VectorStore

    VectorsFrom = Callable[[Sequence[CodeChunk]], Sequence[Vector | None]]
    Transform = Callable[[Any], Any]

Vectors = str | Iterable[Any]


class DocumentEmbedder(Protocol):
    """What loading records needs of a `C2LLMEmbedder`; `RayEmbedder` is another."""

    output_dim: int
    tokens_seen: int
    texts_cut: int

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """All that decides what a vector means."""

    def encode_documents(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Return (len(texts), output_dim) vectors; raises InputError for a text that cannot be embedded."""


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """How rows are written, whatever they are made from; `ingest` explains each option."""

    compact: CompactPlan | None = None
    long_text: str | None = option(None, "What to do with a text that the store finds too long.", metavar="cut|refuse")
    refused: Path | None = option(
        None,
        "Where refused rows go with their reasons, if any are.",
        metavar="FILE",
        cli_default=Path(REFUSED_FILE),
    )
    progress: Progress | None = None


@dataclass(frozen=True, kw_only=True)
class FillOptions(WriteOptions):
    """The same where a source is read whole, so that a collection can be filled anew."""

    replace: bool = option(False, "Fill a new collection; the old one serves until it is complete.")


@dataclass(frozen=True, kw_only=True)
class IngestOptions(FillOptions):
    """The options of `ingest`, which explains them."""

    repository: str | None = option(None, "What the repository is called.  [default: its origin URL]", metavar="NAME")
    force: bool = option(False, "Take over a name that another checkout fills.")
    include_secrets: bool = option(False, "Store what looks like a secret, too; needed in each run.")
    only: Collection[str] | None = None
    expected_root: Path | None = None
    vectors_from: VectorStore | VectorsFrom | None = None


@dataclass(frozen=True, kw_only=True)
class RecordOptions(FillOptions):
    """The options of `ingest_records`, which explains them."""

    text: str = option("text", "The field to embed.", metavar="FIELD")
    id: str | None = option("id", "The field that tells records apart; where it is missing, the text.", metavar="FIELD")
    vectors: Vectors | None = option(
        None, "The field of a vector made elsewhere; nothing is embedded.", metavar="FIELD"
    )
    delete_missing: bool = option(False, "Delete the rows of this source that are not in the file.")
    fields: Mapping[str, str] | None = None
    batch_size: int | None = None
    transform: Transform | None = None
