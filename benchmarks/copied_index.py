"""An index that travels: a copy of its folder in a clone, with one file edited; and runs that find nothing changed.

    python -m benchmarks.copied_index [PACKAGE ...]      (default: large packages that are installed here)

The first index is filled with random vectors, since nothing later depends on them; the file that was edited is embedded
by nano. Processor time of whole commands, because reading a thousand files waits for the disk.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import process, report

PACKAGES = ("torch", "transformers", "sympy", "pandas", "scipy", "numpy", "networkx", "ray")


def copied(names: list[str], root: Path) -> None:
    """Copy the source files of installed packages into a new repository."""
    for name in names:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        home = Path(spec.origin).parent
        for file in home.rglob("*.py"):
            target = root / name / file.relative_to(home)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    git("init", "--quiet", str(root))
    git("-C", str(root), "add", "--all")
    git("-C", str(root), "commit", "--quiet", "--message", "all")


def git(*words: str) -> None:
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *words], check=True)


def fill(root: Path) -> None:
    """Index a tree with random vectors."""
    from c2llm_integrations import C2LLMEmbedder, ingest, open_store

    random = np.random.default_rng(0)
    with open_store(f"qdrant+edge://{root}/.c2llm") as store:
        ingest(
            root,
            C2LLMEmbedder.from_pretrained("nano"),
            store,
            vectors_from=lambda chunks: list(random.standard_normal((len(chunks), 256), np.float32)),
        )


def timed(what: str, root: Path, *words: str) -> dict[str, Any]:
    """Time one command and keep what it says it did."""
    done = process(*words, cwd=root)
    row = {"what": what, "seconds": done["seconds"], "processor_seconds": done["processor_seconds"]}
    if words[-1] == "--json":
        said = json.loads(done["output"])
        row |= {name: said[name] for name in ("files", "chunks", "written", "unchanged", "tokens")}
    return row


def main() -> None:
    names = sys.argv[1:] or [name for name in PACKAGES if importlib.util.find_spec(name)]
    index = (sys.executable, "-I", "-m", "c2llm_integrations", "index", "--json")
    with tempfile.TemporaryDirectory() as folder:
        first, clone = Path(folder, "first"), Path(folder, "clone")
        first.mkdir()
        copied(names, first)
        fill(first)
        rows = [timed("nothing changed", first, *index)]
        git("clone", "--quiet", str(first), str(clone))
        rows.append(timed("the folder copied into a clone", clone, "cp", "-r", str(first / ".c2llm"), str(clone)))
        edited = next(clone.rglob("__init__.py"))
        edited.write_text(edited.read_text() + "\n\ndef zebra():\n    return 'quite new'\n")
        rows.append(timed("the copy brought up to date, one file edited", clone, *index))
        for file in (first / ".c2llm").glob("*.chunks"):
            file.unlink()
        rows.append(timed("nothing changed, the cache of chunks deleted", first, *index))
    report("copied_index", rows)


if __name__ == "__main__":
    main()
