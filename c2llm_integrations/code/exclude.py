"""Decide which files an index leaves out, and why: secrets, and files not written by hand.

A reason is a short phrase; `Tree.skipped` lists the paths under each reason.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from c2llm_integrations.code.generated import is_generated
from c2llm_integrations.code.safe_open import MAX_PATH_BYTES
from c2llm_integrations.code.secret_names import any_of, is_secret_name
from c2llm_integrations.code.version_control import is_kept_by_another

SECRET = "secret"
# What version control keeps beside the sources, such as where they came from and with which password.
GIT, VERSION_CONTROL = "git's own files", "version control's own files"
# These files are indexed, with their secrets replaced.
REDACTED = "only the secrets in the text"
GENERATED = "generated"
MINIFIED = "minified"
DATA = "data"
POINTER = "pointer to a large file"
VENDORED = "vendored"
BINARY = "binary"
TOO_LARGE = "too large"
UNREADABLE = "unreadable"
GONE = "gone while indexing"
TOO_DEEP = "nested too deep"
# Guesses that a pattern with "!" in .c2llmignore overrides; secrets and binary files are not among them.
GUESSES = frozenset({GENERATED, MINIFIED, DATA, VENDORED, TOO_LARGE})

# Bytes. Larger sources are data or generated; GitHub's code search leaves out files over 350 KiB.
MAX_FILE_BYTES = 1 << 20
# The limit for a file that .c2llmignore takes back, and for a notebook with its outputs.
MAX_WANTED_BYTES = 1 << 26
# Folders in one another.
MAX_DEPTH = 128
# Parts of a path that is read from an index: a folder may be asked for that is as deep as what is left out below it.
MAX_PARTS = 2 * MAX_DEPTH
# Characters a line, on average. Hand-written code stays under 60; prose with one line a paragraph is exempt.
MAX_AVERAGE_LINE = 500
# Characters. A smaller file of long lines makes only a few chunks, so no guess is made.
_SMALL = 5_000
# A file is data if at least this share of its lines are numbers or rows, and it is at least this long.
# There is one way to match each text, so that an end that is not a number costs no backtracking.
_NUMBERS = re.compile(r"(?:[\d\s.,;:+eE(){}\[\]-]|(?<=0)[xX][\da-fA-F]+(?![\da-fA-F]))+")
_SEPARATORS = re.compile(r"[,;|\t]")
_TABLE_SEPARATORS = 4
# An entry of a list of words.
_WORD = re.compile(r"[A-Za-z][\w.@'-]{0,40}\s*")
# A line of a log, or of a dump that inserts row after row.
_ROW = re.compile(r"\s*(?:INSERT\s+INTO\b.*|\W?\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*)", re.I | re.S)
_INSERT, _INSERTED = re.compile(r"\bINSERT\s+INTO\b", re.I), re.compile(r"\s*\(.*\)\s*[,;]", re.S)
# A line of bytes written as letters, in base64 or in hexadecimal digits, also as one of many pieces of a string.
_ENCODED = re.compile(r"[\s\"'+(b]*[A-Za-z0-9+/_=-]{40,}[\s\"'+,;)\\]*")
_DATA_SHARE = 0.9
_DATA_CHARS = 20_000
# The share of words and spaces in running text; a long line with less is data.
_PROSE_SHARE = 0.8
_POINTER = re.compile(
    r"version https?://(?:git-lfs\.github\.com|hawser\.github\.com)/spec/|(?:(?:\.\./)*\.git)?/annex/objects/|"
    r"#\$# git-fat [\da-f]{40}"
)

# The file that a run writes into the current folder when rows are refused.
REFUSED_FILE = "c2llm-refused.jsonl"
# The index at a repository's root; commands find it from any folder below.
INDEX_FOLDER = ".c2llm"
# Never listed and never reported: version control and our own files.
INTERNAL_NAMES = frozenset(
    {".git", ".hg", ".svn", ".bzr", ".jj", "_darcs", ".pijul", ".fossil", "_FOSSIL_", ".fslckout"}
    | {INDEX_FOLDER, "__pycache__", REFUSED_FILE}
)
# Folder name → its reason, and the files of which one must be beside it; () if the name alone decides.
_FOLDERS: dict[str, tuple[str, tuple[str, ...]]] = {
    **dict.fromkeys(("node_modules", "bower_components", "site-packages", "dist-packages"), (VENDORED, ())),
    **dict.fromkeys(("third_party", "third-party", ".venv", ".eggs", ".tox", ".nox", ".terraform"), (VENDORED, ())),
    ".ipynb_checkpoints": (GENERATED, ()),
    "vendor": (VENDORED, ("go.mod", "composer.json", "Gemfile", "Cargo.toml", "package.json", ".git")),
    "Pods": (VENDORED, ("Podfile",)),
    ".gradle": (GENERATED, ()),
    "target": (GENERATED, ("Cargo.toml", "pom.xml")),
    ".next": (GENERATED, ("package.json",)),
}
# A file that marks its folder as a virtual environment, or as a cache (https://bford.info/cachedir/).
_FOLDER_MARKS = (("pyvenv.cfg", VENDORED), ("CACHEDIR.TAG", GENERATED))


_LOCK_FILES = (
    *("bun.lock", "cargo.lock", "composer.lock", "deno.lock", "flake.lock", "gemfile.lock", "go.sum"),
    *("go.work.sum", "gradle.lockfile", "mix.lock", "npm-shrinkwrap.json", "package-lock.json"),
    *("package.resolved", "packages.lock.json", "pdm.lock", "pipfile.lock", "pixi.lock"),
    *("pnpm-lock.yaml", "podfile.lock", "poetry.lock", "pubspec.lock", "uv.lock", "yarn.lock"),
)
_MINIFIED = any_of("*.min.js", "*.min.mjs", "*.min.cjs", "*.min.css", "*-min.js", "*.js.map", "*.css.map")
# A configuration of git, wherever it was copied to: it begins with one of git's sections, and says where git is or
# from where it fetches. One that begins with any other section, in any case, has one of git's with a name in quotes.
_GIT_CONFIG = re.compile(
    r"\s*(?:[#;][^\n]*\n\s*)*(?=\[)(?:\[(?:core|remote|branch|user|credential|url|include|submodule|extensions)\b"
    r"|(?=[^\0]*?^[ \t]*(?i:repositoryformatversion[ \t]*=|\[(?:remote|branch|url|submodule|http|credential)[ \t]+\"))"
    r"\[\w[\w.-]{0,40}[ \t\]])",
    re.MULTILINE,
)
_GIT_PLACE = re.compile(
    r"^[ \t]*(?:repositoryformatversion|url|pushurl|extraheader)[ \t]*=", re.MULTILINE | re.IGNORECASE
)


def within_limits(path: str) -> bool:
    """Return whether a path that was read from an index may be one of ours: others may have written it.

    Looking at each folder above a path takes the square of its length, so this comes first.
    """
    return len(path) <= MAX_PATH_BYTES and path.count("/") < MAX_PARTS


def why_skip_folder(folder: str | Path) -> str | None:
    """Return why a folder below the indexed one is left out with everything in it, or None."""
    if is_kept_by_another(folder):
        return VERSION_CONTROL
    above, name = os.path.split(folder)
    reason, beside = _FOLDERS.get(name, (None, ()))
    if reason and (not beside or any(os.path.lexists(f"{above}/{other}") for other in beside)):
        return reason
    return next((why for mark, why in _FOLDER_MARKS if os.path.isfile(f"{folder}/{mark}")), None)


def why_skip_name(path: str) -> str | None:
    """Return why a file is left out by its POSIX path alone, or None."""
    name = path.lower().rpartition("/")[2]
    if is_secret_name(path):
        return SECRET
    if name in _LOCK_FILES:
        return GENERATED
    return MINIFIED if _MINIFIED.match(name) else None


def max_bytes(path: str, wanted: bool) -> int:
    """Return the number of bytes that a file may have; `wanted`: .c2llmignore takes it back."""
    return MAX_WANTED_BYTES if wanted or path.lower().endswith(".ipynb") else MAX_FILE_BYTES


def why_skip_text(text: str, prose: bool, include_secrets: bool = False) -> str | None:
    """Return why a file is left out by its content, or None.

    `prose` may have long lines of words, and tables; with `include_secrets` a private key, or a configuration of git,
    is no reason.
    """
    # Compiling the patterns of secrets takes a while, and every command loads this module.
    from c2llm_integrations.code.secrets import has_private_key

    if not include_secrets and has_private_key(text):
        return SECRET
    if not include_secrets and not prose and _GIT_CONFIG.match(text) and _GIT_PLACE.search(text):
        return GIT
    if _POINTER.match(text):
        return POINTER
    if is_generated(text, prose):
        return GENERATED
    if len(text) <= _SMALL:
        return None
    lines = [line for line in text.split("\n") if line.strip()]
    if len(text) > MAX_AVERAGE_LINE * len(lines) and not (prose and _is_words(text)):
        return MINIFIED
    if len(text) > _DATA_CHARS:
        patterns = [_NUMBERS, _ENCODED]
        patterns += [_WORD] if prose else [_ROW, *([_INSERTED] if _INSERT.search(text) else [])]
        if sum(_is_row(line, patterns, prose) for line in lines) > _DATA_SHARE * len(lines):
            return DATA
    return None


def _is_row(line: str, patterns: list[re.Pattern[str]], prose: bool) -> bool:
    """Return whether a line is one of data: like one of the patterns or, outside running text, a row of a table."""
    is_table = not prose and len(_SEPARATORS.findall(line)) >= _TABLE_SEPARATORS
    return is_table or any(pattern.fullmatch(line) for pattern in patterns)


def _is_words(text: str) -> bool:
    words = sum(map(len, re.findall(r"[^\W\d_]{1,40}[ \t\n.,;:!?]?|\s", text)))
    return words > _PROSE_SHARE * len(text)
