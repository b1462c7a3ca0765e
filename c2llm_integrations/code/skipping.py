"""Which files are left out of an index, and why: secrets, and what nobody wrote by hand.

A reason is one short phrase; `Tree.skipped` counts and names files under it.
"""

from __future__ import annotations

import os
import re
from fnmatch import translate
from pathlib import Path

SECRET = "secret"
GENERATED = "generated"
MINIFIED = "minified"
VENDORED = "vendored"
BINARY = "binary"
TOO_LARGE = "too large"
UNREADABLE = "unreadable"

# Bytes. Larger sources are data or generated; GitHub's code search leaves out files over 350 KiB.
MAX_FILE_BYTES = 1 << 20
# Characters a line, on average. Hand-written code stays under 60; prose with one line a paragraph is exempt.
MAX_AVERAGE_LINE = 500
# Characters. Below it a file of long lines is a few chunks and not worth a guess.
_SMALL = 5_000
# How far a "generated" notice may stand from the top, in characters: below a long licence, above the code.
_HEAD = 8_192

# What a run writes into the current folder when rows are refused.
REFUSED_FILE = "c2llm-refused.jsonl"
# The index of a repository, at its root; found again from any folder below.
INDEX_FOLDER = ".c2llm"
# Never listed and never named: version control and what is our own.
INTERNAL_NAMES = frozenset({".git", ".hg", ".svn", ".bzr", ".jj", INDEX_FOLDER, "__pycache__", REFUSED_FILE})
# Folder name → files beside it, one of which must be there; empty: the name alone says it.
_FOLDERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "node_modules": (VENDORED, ()),
    "bower_components": (VENDORED, ()),
    "site-packages": (VENDORED, ()),
    "dist-packages": (VENDORED, ()),
    "third_party": (VENDORED, ()),
    "third-party": (VENDORED, ()),
    ".venv": (VENDORED, ()),
    "vendor": (VENDORED, ("go.mod", "composer.json", "Gemfile", "Cargo.toml", "package.json", ".git")),
    "Pods": (VENDORED, ("Podfile",)),
    ".eggs": (VENDORED, ()),
    ".tox": (VENDORED, ()),
    ".nox": (VENDORED, ()),
    ".gradle": (GENERATED, ()),
    ".terraform": (VENDORED, ()),
    "target": (GENERATED, ("Cargo.toml", "pom.xml")),
    ".next": (GENERATED, ("package.json",)),
}
# Files inside a folder that say it is a virtual environment, or a cache (https://bford.info/cachedir/).
_FOLDER_MARKS = (("pyvenv.cfg", VENDORED), ("CACHEDIR.TAG", GENERATED))


def _any_of(*globs: str) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, globs)))


_LOCK_FILES = (
    *("bun.lock", "cargo.lock", "composer.lock", "deno.lock", "flake.lock", "gemfile.lock", "go.sum"),
    *("go.work.sum", "gradle.lockfile", "mix.lock", "npm-shrinkwrap.json", "package-lock.json"),
    *("package.resolved", "packages.lock.json", "pdm.lock", "pipfile.lock", "pixi.lock"),
    *("pnpm-lock.yaml", "podfile.lock", "poetry.lock", "pubspec.lock", "uv.lock", "yarn.lock"),
)
_MINIFIED = _any_of("*.min.js", "*.min.mjs", "*.min.cjs", "*.min.css", "*-min.js", "*.js.map", "*.css.map")

_SAFE_SUFFIXES = (".example", ".sample", ".template", ".tmpl", ".dist", ".defaults", ".j2", ".pub")
_SECRET_NAMES = _any_of(
    *(".env", ".env.*", "*.env", ".envrc", ".netrc", "_netrc", ".npmrc", ".pypirc", ".pgpass", ".my.cnf"),
    *(".git-credentials", ".htpasswd", ".dockercfg", ".s3cfg", ".boto", ".vault-token", ".terraformrc"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "*.pem", "*.key", "*.p8", "*.p12", "*.pfx", "*.ppk"),
    *("*.jks", "*.keystore", "*.kdbx", "*.kubeconfig", "kubeconfig", "*.tfvars", "*.tfstate", "*.tfstate.*"),
    *("credentials", "client_secret*.json", "service-account*.json", "service_account*.json"),
    *("application_default_credentials.json", "secring.*", "*.ovpn", "*.agekey"),
)
_SECRET_STEMS = ("credentials", "secrets", "secret")
_DATA_SUFFIXES = (".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".xml", ".csv", ".txt", ".properties")
_SECRET_PLACES = ("/.docker/config.json", "/.kube/config", "/.aws/config", "/.config/gh/hosts.yml")
_PRIVATE_KEY = re.compile(
    r"\A\s*-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
    r"|-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:\s|\\[rn])+(?:[\w-]+: .*\n)*\s*[A-Za-z0-9+/=]{40}"
)

# The comments above the code, where a generator says what it did.
_NOTICE = re.compile(
    r"(?:\s+|(?://|#|--|;|%|<\?php|<\?xml|package\s|@echo)[^\n]*|/\*.*?(?:\*/|\Z)|<!--.*?(?:-->|\Z))*", re.DOTALL
)
_GENERATED = re.compile(
    r"^\W*@generated\b|<auto-?generated\b"
    r"|\bgenerated\b.{0,120}\bdo not (?:edit|modify|change|make changes)\b"
    r"|\bdo not (?:edit|modify|change|make changes)\b.{0,120}\bgenerated\b",
    re.IGNORECASE | re.DOTALL | re.MULTILINE,
)


def why_skip_folder(folder: Path) -> str | None:
    """Return why everything in a folder is left out; it must stand below the folder that is indexed."""
    reason, beside = _FOLDERS.get(folder.name, (None, ()))
    if reason and (not beside or any(os.path.lexists(folder.parent / name) for name in beside)):
        return reason
    return next((why for mark, why in _FOLDER_MARKS if os.path.isfile(folder / mark)), None)


def why_skip_name(path: str) -> str | None:
    """Return why a file is left out by its POSIX path alone."""
    lower = path.lower()
    name = lower.rpartition("/")[2]
    if _is_secret(lower, name):
        return SECRET
    if name in _LOCK_FILES:
        return GENERATED
    return MINIFIED if _MINIFIED.match(name) else None


def _is_secret(path: str, name: str) -> bool:
    if name.endswith(_SAFE_SUFFIXES):
        return False
    stem, dot, suffix = name.rpartition(".")
    if stem in _SECRET_STEMS and dot + suffix in _DATA_SUFFIXES:
        return True
    return bool(_SECRET_NAMES.match(name)) or f"/{path}".endswith(_SECRET_PLACES)


def why_skip_text(text: str, prose: bool) -> str | None:
    """Return why a file is left out by what it says; `prose` may have long lines."""
    if "PRIVATE KEY" in text and _PRIVATE_KEY.search(text):
        return SECRET
    if _is_generated(text):
        return GENERATED
    if not prose and len(text) > _SMALL:
        lines = sum(1 for line in text.split("\n") if line.strip())
        if len(text) > MAX_AVERAGE_LINE * lines:
            return MINIFIED
    return None


def _is_generated(text: str) -> bool:
    notice = _NOTICE.match(text[:_HEAD].removeprefix("\ufeff"))
    return bool(notice and _GENERATED.search(notice[0]))
