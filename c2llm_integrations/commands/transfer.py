"""`c2llm export` and `import`: a collection → a file → a collection of any store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from c2llm_integrations import terminal
from c2llm_integrations.commands.opening import indexed_store, opened, store_of
from c2llm_integrations.commands.options import (
    REFUSED,
    Collection,
    Datatype,
    LongText,
    Quantization,
    Refused,
    Rescore,
    Store,
    plan_of,
)
from c2llm_integrations.commands.reports import say_problems, size
from c2llm_integrations.errors import InputError
from c2llm_integrations.suggesting import did_you_mean


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE.parquet", help="The file to write.")],
    store: Store = None,
    collection: Collection = "code",
    repository: Annotated[str | None, typer.Option(metavar="NAME", help="Only this repository.")] = None,
) -> int:
    """Write a collection to a Parquet file, vectors included: for any other store, without embedding again."""
    from c2llm_integrations import transfer

    with opened(store or indexed_store(), collection) as held, terminal.progress_bar() as progress:
        known = held.claims()
        if repository is not None and repository not in known:
            raise InputError(f"nothing is indexed as {repository!r}{did_you_mean(repository, known)}")
        done = transfer.export(held, file, repository=repository, progress=progress)
    terminal.say(f"exported {done.rows:,} rows of {done.spec.width} dimensions to {file}, {size(file.stat().st_size)}")
    return 0


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE.parquet", help="What c2llm export wrote.")],
    store: Store = None,
    collection: Collection = "code",
    datatype: Datatype = None,
    quantization: Quantization = None,
    rescore: Rescore = None,
    lexical: Annotated[
        bool | None, typer.Option("--lexical/--no-lexical", help="Whether words are searched too.")
    ] = None,
    long_text: LongText = None,
    refused: Refused = REFUSED,
) -> int:
    """Add the rows of a file to a collection that has the same model, or make one as the exported one was.

    Options say what a new collection is to have instead. Rows that are there already are left as they are, so an
    interrupted import is completed by running it again.
    """
    from c2llm_integrations import transfer
    from c2llm_integrations.parquet import contents_of

    with opened(store or store_of(Path()), collection) as held, terminal.progress_bar() as progress:
        made = held.spec or contents_of(file).spec
        compact = plan_of(made.width, made, datatype=datatype, quantization=quantization, rescore=rescore)
        report = transfer.import_rows(
            file, held, compact=compact, lexical=lexical, long_text=long_text, refused=refused, progress=progress
        )
    terminal.say(
        f"imported {report.written:,} of {report.rows:,} rows, {report.held:,} were there, in {report.seconds:.1f} s"
    )
    return 1 if say_problems(report.refused, refused) else 0
