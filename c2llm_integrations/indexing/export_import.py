"""Export a collection to one Parquet file, and import it into any store without embedding again."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from time import perf_counter

from c2llm_integrations._utils.files import naming, require_output
from c2llm_integrations._utils.progress import Progress
from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.errors import InputError, RepositoryError, StoreError
from c2llm_integrations.indexing.claims import Claim, portable
from c2llm_integrations.indexing.options import WriteOptions
from c2llm_integrations.stores.bulk_loader import LoadReport, load
from c2llm_integrations.stores.parquet import Contents, contents_of, read_rows, require_whole, write_rows
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore

# Rows between two calls of `progress`.
TELL = 1000


def export(
    store: VectorStore,
    file: Path,
    *,
    repository: str | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Contents:
    """Write a collection's rows to a Parquet file, which takes its name once it is complete.

    Args:
        store: The collection.
        file: The file to write.
        repository: Only rows of this repository.
        replace: Write over a file that exists.
        progress: Called with (rows done, rows, path) now and then.

    Raises:
        StoreError: There is no collection, or its rows changed while they were read.
        InputError: `file` is something else, has no folder, or exists and is not to be replaced.
        OSError: The file cannot be written.

    """
    require_target(file, replace)
    spec = store.spec
    if spec is None:
        raise StoreError(f"{store.url} holds no collection {store.collection!r}; there is nothing to export")
    claims = {name: portable(by, store) for name, by in store.claims().items() if repository in (None, name)}
    contents = Contents(spec, claims, store.count(source=repository))
    partial = file.with_name(f"{file.name}.partial")
    try:
        with naming(file), open(partial, "wb") as stream:
            written = write_rows(stream, contents, _told(store.rows(source=repository), contents.rows, progress))
            stream.flush()
            os.fsync(stream.fileno())
        if written != contents.rows:
            raise StoreError(f"{contents.rows} rows were counted, {written} read: another run is writing; export again")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return contents


def require_target(file: Path, replace: bool) -> None:
    """Raise InputError for a file that `export` would not write, such as one that exists."""
    require_output(file)
    if not replace and file.exists():
        raise InputError(f"{file} exists; name another file, or write over it with --replace")


def _told(rows: Iterator[Row], total: int, progress: Progress | None) -> Iterator[Row]:
    for done, row in enumerate(rows):
        if progress is not None and done % TELL == 0:
            progress(done, total, row.chunk.path)
        yield row


@dataclass(kw_only=True)
class ImportReport(LoadReport):
    """What became of a file's `rows`; `held`: were there before."""

    rows: int = 0
    held: int = 0


def import_rows(
    file: Path, store: VectorStore, options: WriteOptions | None = None, *, lexical: bool | None = None
) -> ImportReport:
    """Add the rows of a file that the collection does not hold, and verify them; repeating it adds nothing.

    Args:
        file: What `export` wrote.
        store: A missing collection is created with the file's spec, where the options do not say otherwise; one that
            exists keeps its own.
        options: How the rows are written.
        lexical: Whether terms are stored, too. None: as in the file.

    Raises:
        SpecMismatch: The collection was made with another model, or otherwise than asked.
        RepositoryError: Another checkout fills one of the repositories.
        InputError: The file was not written by `export`, or is damaged.
        StoreError: The store failed, or cannot do what is asked.

    """
    options = options or WriteOptions()
    begin = perf_counter()
    contents = contents_of(file)
    _require_unclaimed(contents, store)
    require_whole(file)  # before the first row is written: a damaged row would be found and trusted
    spec = store.spec
    if spec is not None:
        spec.require_model(contents.spec.width, contents.spec.fingerprint)
    if spec is None:  # what another database is told of its index may say nothing here
        known = store.capabilities.index
        index = {name: number for name, number in contents.spec.index.items() if name in known}
        spec = changed(contents.spec, index=index)
    store.create(_adapted(spec, options, lexical))
    for name in contents.claims.keys() - store.claims().keys():
        store.claim(name, Claim.parse(contents.claims[name]).checkout)
    is_empty, seen = store.total() == 0, Counter[str]()

    def missing() -> Iterator[list[Row]]:
        for rows in read_rows(file):
            if options.progress is not None:
                options.progress(seen.total(), contents.rows, rows[0].chunk.path)
            seen.update(row.record.source for row in rows)
            known = set() if is_empty else store.known(row.record.row_id for row in rows)
            yield [row for row in rows if row.record.row_id not in known]

    with store.bulk():
        loaded = load(missing(), store, refused=options.refused)
    _carry_commits(contents, store, seen)
    held = contents.rows - loaded.written - loaded.refused_count
    loaded.seconds = perf_counter() - begin
    return ImportReport(**vars(loaded), rows=contents.rows, held=held)


def _adapted(spec: CollectionSpec, options: WriteOptions, lexical: bool | None) -> CollectionSpec:
    if (compact := options.compact) is not None:
        spec = changed(
            spec, datatype=compact.datatype, quantization=compact.quantization, rescore=compact.rescore or 0.0
        )
    if lexical is not None:
        spec = changed(spec, analyzer=ANALYZER if lexical else None)
    return spec if options.long_text is None else changed(spec, long_text=options.long_text)


def _require_unclaimed(contents: Contents, store: VectorStore) -> None:
    claims = store.claims()
    for name, text in contents.claims.items():
        here, there = (Claim.parse(portable(one, store)).checkout for one in (claims.get(name, text), text))
        if here != there:
            raise RepositoryError(
                f"repository {name!r} in this collection was filled from checkout {here}, in the file from {there}; "
                "import into another --collection"
            )


def _carry_commits(contents: Contents, store: VectorStore, rows: Mapping[str, int]) -> None:
    """Claim the file's commits for the repositories whose rows here are exactly the file's."""
    claims = store.claims()
    for name, text in contents.claims.items():
        whole = store.count(source=name) == rows[name]
        claim = text if whole else Claim.parse(text).checkout
        if claims.get(name) != claim:
            store.claim(name, claim)
