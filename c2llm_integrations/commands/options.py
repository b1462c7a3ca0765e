"""Options that several commands have."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from c2llm_integrations.code.skipping import INDEX_FOLDER, REFUSED_FILE
from c2llm_integrations.errors import InputError

if TYPE_CHECKING:
    from c2llm_integrations.compression import CompactPlan
    from c2llm_integrations.stores.spec import CollectionSpec

# Where what is refused is kept, for whoever has to look into it.
REFUSED = Path(REFUSED_FILE)

Store = Annotated[
    str | None,
    typer.Option(metavar="URL", help=f"Where the rows are.  [default: {INDEX_FOLDER} at the repository's root]"),
]
Collection = Annotated[str, typer.Option(metavar="NAME", help="The set of rows inside the store.")]
Model = Annotated[str | None, typer.Option(metavar="ID", help="Where the collection's model is now, if it was moved.")]
Projection = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Where the collection's projection is, if it was made elsewhere.")
]
Head = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Where the collection's head is, if it was made elsewhere.")
]
# The same for a model whose vectors are yet to be made.
FittedProjection = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Fewer dimensions by what c2llm fit-projection wrote.")
]
TrainedHead = Annotated[Path | None, typer.Option(metavar="FILE", help="Another width by what c2llm train-head wrote.")]
Truncate = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Only the first N dimensions, which loses more.")
]
Datatype = Annotated[str | None, typer.Option(metavar="D", help="float32 or float16, of the full vectors.")]
Quantization = Annotated[
    str | None, typer.Option(metavar="Q", help="Search codes first: int8, turbo, product, binary, rabitq; or none.")
]
Rescore = Annotated[
    float | None,
    typer.Option(
        metavar="X", help="Compare X times --limit candidates by full vectors, 0 none.  [default: by quantization]"
    ),
]
LongText = Annotated[
    str | None, typer.Option(metavar="cut|refuse", help="What to do with a text that the store finds too long.")
]
Refused = Annotated[Path, typer.Option(metavar="FILE", help="Where refused rows go with their reasons, if any are.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def place_again(store: str | None, collection: str) -> str:
    """Return the options that name the same collection, to stand behind a command that is advised; "" by default."""
    options = [
        *([] if store is None else ["--store", store]),
        *([] if collection == "code" else ["--collection", collection]),
    ]
    return "".join(f" {shlex.quote(option)}" for option in options)


def plan_of(
    width: int,
    spec: CollectionSpec | None,
    *,
    datatype: str | None = None,
    quantization: str | None = None,
    rescore: float | None = None,
) -> CompactPlan | None:
    """Return how vectors are asked to be stored, what is left open as `spec` has it; None if nothing is asked."""
    from c2llm_integrations.compression import CompactPlan

    if datatype is None and quantization is None and rescore is None:
        return None
    own = CompactPlan(width) if spec is None else CompactPlan(width, spec.datatype, spec.quantization, spec.rescore)
    codes = own.quantization if quantization is None else None if quantization == "none" else quantization
    if rescore is None and codes == own.quantization:
        rescore = own.rescore
    return CompactPlan(width, datatype or own.datatype, codes, rescore)


def require_new(file: Path) -> None:
    """Raise InputError, before any work is done, for a --out that stands there already or has no folder."""
    if file.exists():
        raise InputError(f"{file} exists, and collections may need it; name another with --out")
    require_folder(file)


def require_folder(file: Path) -> None:
    """Raise InputError, before any work is done, for a --out that is a folder, or has none to be written to."""
    if file.is_dir():
        raise InputError(f"{file} is a folder; name a file in it")
    if not file.absolute().parent.is_dir():
        raise InputError(f"no folder {file.absolute().parent} to write {file.name} to; make it, or name another --out")
