"""Folders of package archives → pairs.jsonl and the record of what was in them."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from multiprocessing import Pool
from pathlib import Path

from benchmarks.nano_recipe.corpus import EXTENSIONS, HELD_OUT, allowed, package_of, read_archive
from benchmarks.nano_recipe.metadata import licence_of, permissive, source_of
from c2llm_integrations.training.docstring_pairs import DocumentedCode, definitions, fingerprint

PER_PACKAGE = {"python": 4000}
PER_PACKAGE_OTHERS = 2500
"""Pairs at most from one package and language, so that no project's habits fill the batches."""


def mine(archives: Iterable[Path], out: Path, held_out: Iterable[Path], seed: int = 0, processes: int = 2) -> None:
    """Write `out`/pairs.jsonl and `out`/corpus.tsv: where each archive comes from, licence, number of pairs.

    Drops archives without a permissive licence, code that or docs that also stand in `held_out`, and repeated ones.
    """
    out.mkdir(parents=True, exist_ok=True)
    held = [definition for archive in held_out for definition in read_definitions(archive, held=True)]
    seen, docs = {fingerprint(d.bare) for d in held}, {d.doc.lower() for d in held}
    with Pool(processes) as pool, (out / "pairs.jsonl").open("w") as pairs, (out / "corpus.tsv").open("w") as table:
        rows = csv.writer(table, delimiter="\t", lineterminator="\n")
        rows.writerow(["source", "licence", "pairs"])
        for archive, licence, found in pool.imap(_mine_one, [(a, seed) for a in sorted(archives)]):
            kept = 0
            for definition in found:
                key = fingerprint(definition.bare)
                if key not in seen and definition.doc.lower() not in docs:
                    seen.add(key)
                    docs.add(definition.doc.lower())
                    kept += 1
                    pairs.write(json.dumps({"package": package_of(archive), **asdict(definition)}) + "\n")
            rows.writerow([source_of(archive), licence, kept if permissive(licence) else "refused"])


def _mine_one(job: tuple[Path, int]) -> tuple[Path, str, list[DocumentedCode]]:
    archive, seed = job
    licence = licence_of(archive)
    if not permissive(licence) or package_of(archive) in HELD_OUT:
        return archive, licence, []
    rng = random.Random(f"{seed} {archive.name}")
    found = list(read_definitions(archive))
    rng.shuffle(found)
    kept: list[DocumentedCode] = []
    for language in sorted(set(EXTENSIONS.values())):
        named = [d for d in found if d.language == language and d.name]
        fragments = [d for d in found if d.language == language and not d.name]
        named = named[: PER_PACKAGE.get(language, PER_PACKAGE_OTHERS)]
        kept += named + fragments[: len(named) // 4]
    return archive, licence, kept


def read_definitions(archive: Path, held: bool = False) -> Iterator[DocumentedCode]:
    """The documented definitions of an archive or folder; without `held` none that must never be trained on."""
    package = package_of(archive)
    for path, text in read_archive(archive):
        if held or allowed(package, path):
            yield from definitions(text, EXTENSIONS[Path(path).suffix])


def sample(archives: Iterable[Path], each: int, skip: int = 0, seed: int = 0) -> list[dict[str, str]]:
    """`each` documented functions of every archive, drawn by `seed` after `skip` others: package, name, doc, bare.

    No two have the same code or the same documentation, so that each query has exactly one right answer.
    """
    rows: list[dict[str, str]] = []
    seen: set[str] = set()
    for archive in sorted(archives):
        functions = [d for d in read_definitions(archive, held=True) if d.bare.startswith(("def ", "async def "))]
        random.Random(f"{seed} {package_of(archive)}").shuffle(functions)
        unique = []
        for function in functions:
            keys = {fingerprint(function.bare), function.doc.lower()}
            if not keys & seen:
                seen |= keys
                unique.append(
                    {"package": package_of(archive), "name": function.name, "doc": function.doc, "bare": function.bare}
                )
        rows += unique[skip : skip + each]
    return rows
