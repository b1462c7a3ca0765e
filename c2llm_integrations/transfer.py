"""A collection → one Parquet file → a collection of any store, with no text embedded again."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

from c2llm_integrations.code.commit import Claim
from c2llm_integrations.code.terms import ANALYSER
from c2llm_integrations.comparing import Change, Held
from c2llm_integrations.compression import CompactPlan
from c2llm_integrations.errors import InputError, RepositoryError, StoreError
from c2llm_integrations.loading import load
from c2llm_integrations.parquet import Contents, contents_of, read_rows, write_rows
from c2llm_integrations.progress import Progress
from c2llm_integrations.stores.base import CollectionSpec, Row, VectorStore

# Rows between two calls of `progress`.
TELL = 1000


def export(
    store: VectorStore, file: Path, *, repository: str | None = None, progress: Progress | None = None
) -> Contents:
    """Write a collection's rows (of one repository) to a Parquet file, a batch at a time.

    The file takes its name once it is complete. Raises StoreError if the rows changed while they were read, InputError
    if `file` is a folder, OSError if it cannot be written.
    """
    spec = store.spec
    if spec is None:
        raise StoreError(f"{store.url} holds no collection {store.collection!r}; there is nothing to export")
    if file.is_dir():
        raise InputError(f"{file} is a folder; name a file in it")
    claims = {name: by for name, by in store.claims().items() if repository in (None, name)}
    contents = Contents(spec, claims, store.count(repository))
    partial = file.with_name(f"{file.name}.partial")
    try:
        with open(partial, "wb") as stream:
            written = write_rows(stream, contents, _told(store.rows(repository), contents.rows, progress))
            stream.flush()
            os.fsync(stream.fileno())
        if written != contents.rows:
            raise StoreError(f"{contents.rows} rows were counted, {written} read: another run is writing; export again")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return contents


def _told(rows: Iterator[Row], total: int, progress: Progress | None) -> Iterator[Row]:
    for done, row in enumerate(rows):
        if progress is not None and done % TELL == 0:
            progress(done, total, row.chunk.path)
        yield row


@dataclass
class ImportReport:
    """What became of a file's rows: written, or there before (`held`); the rest as `loading.LoadReport` has it."""

    rows: int
    held: int = 0
    written: int = 0
    cut: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def import_rows(
    file: Path,
    store: VectorStore,
    *,
    compact: CompactPlan | None = None,
    lexical: bool | None = None,
    long_text: str | None = None,
    refused: Path | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Add the rows of a file that the collection does not hold, and verify them; repeating it adds nothing.

    A missing collection is created with the file's spec, unless `compact` says otherwise how vectors are stored,
    `lexical` whether terms are, or `long_text` what becomes of a text over the store's byte limit; one that exists
    keeps its own. `refused` is that of `load`.
    Raises SpecMismatch if the collection was made with another model or otherwise than asked, RepositoryError if
    another checkout fills one of the repositories, InputError for a file that `export` did not write or that is
    damaged, StoreError for what the store cannot do.
    """
    begin = perf_counter()
    contents = contents_of(file)
    _require_unclaimed(contents, store)
    spec = store.spec
    if spec is not None:
        spec.require_model(contents.spec.width, contents.spec.fingerprint)
    store.create(_adapted(spec or contents.spec, compact, lexical, long_text))
    for name in contents.claims.keys() - store.claims().keys():
        store.claim(name, Claim.parse(contents.claims[name]).checkout)
    report, held = ImportReport(contents.rows), Held(store.scan())
    seen: Counter[str] = Counter()

    def missing() -> Iterator[list[Row]]:
        for rows in read_rows(file):
            if progress is not None:
                progress(seen.total(), contents.rows, rows[0].chunk.path)
            seen.update(row.chunk.repository for row in rows)
            yield [row for row in rows if held.take(row.chunk) is Change.NEW]

    with store.bulk():
        loaded = load(missing(), store, refused=refused)
    _carry_commits(contents, store, seen)
    report.written, report.cut, report.refused = loaded.written, loaded.cut, loaded.refused
    report.held = contents.rows - loaded.written - len(loaded.refused)
    report.seconds = perf_counter() - begin
    return report


def _adapted(
    spec: CollectionSpec, compact: CompactPlan | None, lexical: bool | None, long_text: str | None
) -> CollectionSpec:
    if compact is not None:
        spec = replace(
            spec, datatype=compact.datatype, quantization=compact.quantization, rescore=compact.rescore or 0.0
        )
    if lexical is not None:
        spec = replace(spec, analyser=ANALYSER if lexical else None)
    return spec if long_text is None else replace(spec, long_text=long_text)


def _require_unclaimed(contents: Contents, store: VectorStore) -> None:
    claims = store.claims()
    for name, text in contents.claims.items():
        here, there = (Claim.parse(one).checkout for one in (claims.get(name, text), text))
        if here != there:
            raise RepositoryError(
                f"repository {name!r} in this collection was filled from checkout {here}, in the file from {there}; "
                "import into another --collection"
            )


def _carry_commits(contents: Contents, store: VectorStore, rows: Mapping[str, int]) -> None:
    """A repository is as it was at a commit only if its rows here are the file's and no others."""
    claims = store.claims()
    for name, text in contents.claims.items():
        whole = store.count(name) == rows[name]
        claim = text if whole else Claim.parse(text).checkout
        if claims.get(name) != claim:
            store.claim(name, claim)
