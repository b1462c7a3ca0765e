"""The pinned archives of data/development_packages.tsv: download, check, and read their texts."""

from __future__ import annotations

import csv
import hashlib
import re
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.development_set.languages import LANGUAGES
from benchmarks.nano_recipe.fetch import command
from c2llm_integrations.code.generated import is_generated
from c2llm_integrations.code.languages import PROSE, language_of

PACKAGES = Path(__file__).parents[1] / "data" / "development_packages.tsv"
# Bytes of a file, bytes of an archive's files together, files of an archive.
MAX_FILE, MAX_TOTAL, MAX_MEMBERS = 400_000, 300_000_000, 50_000
# Other files are data, or written for tools; nothing is asked about them, and they would only make indexing slower.
_KEPT = LANGUAGES | PROSE | {"tsx", "makefile", "cmake", "sql", "proto", "vue", "objectivec", "groovy", "yacc", "lex"}
_LEFT_OUT = re.compile(
    r"(^|/)(_?vendor(ed)?|third[_-]?party|3rdparty|extern(als?)?|node_modules|locales?|translations?|i18n|generated|"
    r"_?(esm|cjs|types)|dist|\.[^/]+)/|\.min\.|\.d\.[mc]?ts$|[._-]bundle\.|(_pb2|\.pb)\.",
    re.IGNORECASE,
)
# Where npm packages ship their sources, these are what a compiler made of them.
_COMPILED = re.compile(r"^(lib|build|es|umd|commonjs|module)/")

Tree = dict[str, str]
"""Path → text of a package's code and documentation, without what was generated, vendored or compiled."""


@dataclass(frozen=True, slots=True)
class Package:
    """One line of the list: `source` is REGISTRY:NAME=VERSION, `language` what most of its code is written in."""

    source: str
    language: str
    file: str
    sha256: str

    @property
    def name(self) -> str:
        return self.source.partition(":")[2].partition("=")[0]


def listed(table: Path = PACKAGES) -> list[Package]:
    """Return the pinned packages."""
    with table.open(encoding="utf-8") as lines:
        return [Package(**row) for row in csv.DictReader(lines, delimiter="\t")]


def fetch(package: Package, work: Path) -> Path:
    """Return a package's archive in `work`/archives, downloaded if it is missing.

    Raises SystemExit where the registry does not have it, or has other bytes than those that are pinned.
    """
    folder = work.resolve() / "archives"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / package.file
    if not archive.exists():
        call = command(package.source, folder)
        if package.source.startswith("pypi:"):
            call += ["--no-binary=:all:"]
        elif package.source.startswith("debian-source:"):
            call += ["--tar-only", *_debian_sources(folder.parent / "apt")]
        subprocess.run(call, cwd=folder, stdout=subprocess.DEVNULL, check=False)
    if not archive.exists():
        raise SystemExit(f"{package.source} did not bring {package.file}; take it off {PACKAGES.name}, or pin another")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise SystemExit(f"{archive} has SHA-256 {found}, but {package.sha256} is pinned; delete it and fetch it again")
    return archive


def _debian_sources(folder: Path) -> list[str]:
    """Return options with which apt-get knows the source packages of the releases that this machine is set up for."""
    lists = folder / "lists"
    options = [f"Dir::Etc::sourcelist={folder}/sources.list", "Dir::Etc::sourceparts=-", f"Dir::State::lists={lists}"]
    options = [word for option in options for word in ("-o", option)]
    if not lists.exists():
        (lists / "partial").mkdir(parents=True)
        line = "deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)"
        targets = ["apt-get", "indextargets", "--format", line, "Created-By: Packages", "Origin: Debian"]
        found = subprocess.run(targets, capture_output=True, text=True, check=True).stdout
        (folder / "sources.list").write_text(found)
        subprocess.run(["apt-get", "update", "-qq", *options], check=True)
    return options


def read_tree(archive: Path) -> Tree:
    """Return the texts of an archive, whose top folder is taken off the paths."""
    with tarfile.open(archive) as tar:
        texts = {path: text for path, text in _texts(tar) if not is_generated(text, language_of(path) in PROSE)}
    has_sources = archive.suffix == ".tgz" and any(path.startswith("src/") for path in texts)
    return {path: text for path, text in sorted(texts.items()) if not (has_sources and _COMPILED.match(path))}


def _texts(tar: tarfile.TarFile) -> Iterator[tuple[str, str]]:
    total = 0
    for number, member in enumerate(tar):
        if not member.isfile():
            continue
        total += member.size
        if number > MAX_MEMBERS or total > MAX_TOTAL:
            raise SystemExit(f"{tar.name!r} is larger than {MAX_MEMBERS} files or {MAX_TOTAL} bytes; pin a smaller one")
        path = tarfile.data_filter(member, "/nowhere").name.partition("/")[2]
        # "" is a file beside the top folder.
        if not path or member.size > MAX_FILE or _LEFT_OUT.search(path) or language_of(path) not in _KEPT:
            continue
        file = tar.extractfile(member)
        assert file is not None
        try:
            yield path, file.read().decode().replace("\r\n", "\n")
        except UnicodeDecodeError:
            continue


def is_code(path: str) -> bool:
    """Return whether a file is code rather than running text."""
    return language_of(path) not in PROSE


def write_tree(tree: Tree, removed: Iterable[str], folder: Path) -> None:
    """Write a tree with the spans PATH:FIRST-LAST blanked, so that lines keep their numbers."""
    lines = {path: text.split("\n") for path, text in tree.items()}
    for span in removed:
        path, _, numbers = span.rpartition(":")
        first, last = map(int, numbers.split("-"))
        kept = re.match(r"\s*", lines[path][first - 1])
        # A Python function whose docstring was its whole body must stay one.
        left = f"{kept[0]}..." if path.endswith(".py") and kept else ""
        lines[path][first - 1 : last] = [left, *[""] * (last - first)]
    for path, text in lines.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("\n".join(text), encoding="utf-8")
