"""Real code vectors for the store benchmarks: `nano` over the packages installed beside it, made once and kept.

    python -m benchmarks.code_vectors [--rows 100000]    about 10 minutes on two cores

Queries are the 1,000 held-out docstrings of `docstring_retrieval`, embedded as questions.
"""

from __future__ import annotations

import argparse
import json
import random
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.docstring_retrieval import load as load_pairs
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.chunking import chunk_source

CACHE = Path(__file__).parents[1] / ".work" / "code_vectors"
ROWS = 100_000
# Vectors are saved after so many chunks, so that a run that was ended goes on where it stopped.
PART = 5_000


def chunks_of(packages: Path) -> Iterator[CodeChunk]:
    """Yield the chunks of every Python file, no text twice."""
    seen: set[str] = set()
    for file in sorted(packages.rglob("*.py")):
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        path = file.relative_to(packages).as_posix()
        for chunk in chunk_source(path.split("/")[0], path, text):
            if chunk.text not in seen:
                seen.add(chunk.text)
                yield chunk


def make(rows: int) -> None:
    """Embed what is not cached yet."""
    from c2llm_integrations.model.embedder import C2LLMEmbedder

    CACHE.mkdir(parents=True, exist_ok=True)
    listed = CACHE / "chunks.jsonl"
    if not listed.exists():
        found = list(chunks_of(Path(sysconfig.get_paths()["purelib"])))
        random.Random(0).shuffle(found)
        listed.write_text("".join(json.dumps(asdict(chunk)) + "\n" for chunk in found[:rows]))
    model = C2LLMEmbedder.from_pretrained("nano")
    queries = model.encode_queries([pair["doc"] for pair in load_pairs()])
    np.save(CACHE / "queries.npy", queries)
    chunks = read_chunks(rows)
    for start in range(0, len(chunks), PART):
        part = CACHE / f"part-{start:07d}.npy"
        if not part.exists():
            np.save(part, model.encode_documents([chunk.text for chunk in chunks[start : start + PART]]))
            print(start + PART, flush=True)


def read_chunks(rows: int) -> list[CodeChunk]:
    """The first `rows` of the cached chunks."""
    with open(CACHE / "chunks.jsonl", encoding="utf-8") as lines:
        return [CodeChunk(**json.loads(line)) for _, line in zip(range(rows), lines, strict=False)]


def load(rows: int) -> tuple[list[CodeChunk], NDArray[np.float32], NDArray[np.float32]]:
    """Return chunks, their vectors (rows, 256) and the queries (1000, 256), embedding what is missing."""
    if not (CACHE / f"part-{(rows - 1) // PART * PART:07d}.npy").exists():
        make(max(rows, ROWS))
    parts = [np.load(file) for file in sorted(CACHE.glob("part-*.npy"))]
    return read_chunks(rows), np.concatenate(parts)[:rows], np.load(CACHE / "queries.npy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    make(parser.parse_args().rows)


if __name__ == "__main__":
    main()
