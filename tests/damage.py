"""What time and people do to files (a bit turned over, a file cut short, a file gone), and what is said of it.

`python -m tests.damage KIND FOLDER FIRST LAST` damages a copy of FOLDER/good once for each seed and prints a line for
each: what was damaged, and "same", "refused: …" or what went wrong. An engine that aborts ends it.
"""

import random
import shutil
import sys
from pathlib import Path

import numpy as np

from c2llm_integrations.errors import C2LLMError
from c2llm_integrations.indexing.export_import import export, import_rows
from c2llm_integrations.model.heads_and_projections import Head, Projection
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.filter import Filter
from tests.indexing.test_export_import import ROWS, fill

URLS = {"edge": "qdrant+edge://{}", "milvus": "milvus+lite://{}/rows.db"}


def damage(place: Path, seed: int) -> str:
    """Damage one file under `place`, at a byte that is not zero if it has any, and say how."""
    choice = random.Random(seed)
    file = choice.choice(sorted(file for file in place.rglob("*") if file.is_file() and file.stat().st_size))
    data = np.fromfile(file, np.uint8)
    what = choice.choice(("bit", "bit", "bit", "cut", "missing"))
    at = int(choice.choice(np.flatnonzero(data) if data.any() else range(len(data))))
    if what == "missing":
        file.unlink()
    elif what == "cut":
        with file.open("r+b") as opened:
            opened.truncate(at)
    else:
        with file.open("r+b") as opened:
            opened.seek(at)
            opened.write(bytes([data[at] ^ (1 << choice.randrange(8))]))
    return f"{file.relative_to(place)}: {what} at {at} of {len(data)}"


def make(kind: str, folder: Path) -> None:
    """Write what is to be damaged."""
    folder.mkdir(parents=True)
    if kind in URLS:
        with open_store(URLS[kind].format(folder)) as store:
            fill(store)
            store.optimize()
    elif kind == "parquet":
        with open_store("qdrant+memory://") as store:
            export(fill(store), folder / "rows.parquet")
    elif kind == "projection":
        Projection(np.random.default_rng(0).random((32, 8), np.float32), "a" * 32).save(folder / "it.safetensors")
    else:
        import torch

        torch.manual_seed(0)
        tensors = {"pma.S": torch.rand(1, 1, 8), "pma.mab.fc_q.weight": torch.rand(8, 16)}
        Head(tensors, 4, True, "some/model", "c" * 40, "b" * 32, "trained on rows").save(folder / "it.safetensors")


def answers(kind: str, folder: Path) -> object:
    """Return all that can be read from it."""
    if kind in URLS:
        with open_store(URLS[kind].format(folder)) as store:
            return _all(store)
    if kind == "parquet":
        with open_store("qdrant+memory://") as store:
            import_rows(folder / "rows.parquet", store)
            return _all(store)
    if kind == "projection":
        projection = Projection.load(folder / "it.safetensors")
        return projection.matrix.tolist(), projection.weights
    head = Head.load(folder / "it.safetensors")
    said = head.num_heads, head.layer_norm, head.base, head.revision, head.weights, head.training
    return {name: tensor.tolist() for name, tensor in head.tensors.items()}, said


def _all(store) -> object:
    query, where = ROWS[0].vector, Filter({"repository": "github.com/a/shop"})
    terms = ["f1"] if store.spec is None or store.spec.analyzer else []
    found = [store.candidates(query, terms, 10, one) for one in (None, where)]
    hits = [[(hit.chunk, round(hit.score, 5)) for hit in (*one.dense, *one.lexical)] for one in found]
    rows = sorted((row.chunk.id, repr(row.chunk), row.vector.round(5).tolist()) for row in store.rows())
    return store.spec, store.claims(), store.count(), sorted(map(repr, store.scan())), rows, hits


def outcome(kind: str, folder: Path, good: object) -> str:
    """Say what reading a damaged copy comes to."""
    try:
        found = answers(kind, folder)
    except (C2LLMError, FileNotFoundError) as error:  # the command says both in one line
        return f"refused: {error}" if len(str(error).splitlines()) == 1 else f"several lines: {error}"
    except Exception as error:
        return f"unexpected {type(error).__name__}: {error}"
    return "same" if found == good else "WRONG"


def main(kind: str, folder: str, first: str, last: str) -> None:
    """Damage, read, say; see above."""
    whole, copy = Path(folder, "good"), Path(folder, "copy")
    good = answers(kind, whole)
    for seed in range(int(first), int(last)):
        shutil.copytree(whole, copy)
        print(seed, damage(copy, seed), end=": ", flush=True)
        print(outcome(kind, copy, good), flush=True)
        shutil.rmtree(copy)


if __name__ == "__main__":
    main(*sys.argv[1:])
