"""Mined pairs in files that travel well to a machine with a GPU, and there as token ids.

python -m benchmarks.nano_recipe.shards write PAIRS.jsonl --out FOLDER       # 16 files, 75 MB for 358,000 pairs
python -m benchmarks.nano_recipe.shards tokens SHARD... --base MINILM --out FOLDER
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.nano_recipe.data import read_pairs
from benchmarks.nano_recipe.pieces import Table, join, tabulate, texts_of
from c2llm_integrations.model.checkpoint import NANO

SHARDS = 16
SIDES = ("own", "other")  # nano's tokens, and those of the base model
NAMES = [field.name for field in fields(Table)]


@dataclass(frozen=True)
class Corpus:
    """All pairs by both tokenizers; (n,) each pair's package and name as numbers, and whether it is Python."""

    own: Table
    other: Table
    packages: np.ndarray
    names: np.ndarray
    python: np.ndarray


def write_shard(job: tuple[int, list[dict[str, Any]], Path]) -> None:
    """Write pairs, the first of which has this number, to a file."""
    first, pairs, file = job
    with lzma.open(file, "wt", encoding="utf-8", preset=5) as out:
        for place, pair in enumerate(pairs):
            out.write(json.dumps(texts_of(pair, first + place), ensure_ascii=False) + "\n")


def tokenize_shard(job: tuple[Path, Path, Path]) -> None:
    """Write a shard's token ids, by nano's tokenizer and that of the model in `base`, to a file in `out`."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    shard, base, out = job
    with lzma.open(shard, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    arrays: dict[str, Any] = {name: np.array([row[name] for row in rows]) for name in ("package", "name")}
    arrays["python"] = np.array([row["language"] == "python" for row in rows])
    for side, folder, least in zip(SIDES, (NANO, base), (None, 1), strict=True):
        table = tabulate(folder / "tokenizer.json", rows, *([] if least is None else [least]))
        arrays |= {f"{side}_{name}": getattr(table, name) for name in NAMES}
    partial = out / f"{shard.name}.partial"
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    partial.replace(out / f"{shard.name}.npz")


def load_corpus(folder: Path) -> Corpus:
    """Read what `tokenize_shard` wrote of all shards."""
    found = [np.load(file) for file in sorted(folder.glob("*.npz"))]
    own, other = (join([Table(*(one[f"{side}_{name}"] for name in NAMES)) for one in found]) for side in SIDES)
    packages, names = (
        np.unique(np.concatenate([one[key] for one in found]), return_inverse=True)[1] for key in ("package", "name")
    )
    return Corpus(own, other, packages, names, np.concatenate([one["python"] for one in found]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    write, tokens = verbs.add_parser("write"), verbs.add_parser("tokens")
    write.add_argument("pairs", type=Path)
    tokens.add_argument("shards", type=Path, nargs="+")
    tokens.add_argument("--base", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    for verb in (write, tokens):
        verb.add_argument("--out", type=Path, required=True)
        verb.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    work: Callable[[Any], None]
    if options.verb == "tokens":
        work, jobs = tokenize_shard, [(shard, options.base, options.out) for shard in options.shards]
    else:
        pairs = read_pairs(options.pairs)
        ends = [len(pairs) * number // SHARDS for number in range(SHARDS + 1)]
        files = (options.out / f"pairs-{number:02d}.jsonl.xz" for number in range(SHARDS))
        work, jobs = (
            write_shard,
            [(begin, pairs[begin:end], file) for (begin, end), file in zip(pairwise(ends), files, strict=True)],
        )
    with Pool(options.processes) as workers:
        workers.map(work, jobs, chunksize=1)


if __name__ == "__main__":
    main()
