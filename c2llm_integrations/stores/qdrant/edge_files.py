"""The folder of a Qdrant Edge collection.

    PATH/.gitignore             "*": the folder ignores itself
    PATH/.COLLECTION.lock       held by the one process that has the collection open
    PATH/COLLECTION/c2llm.json  the spec, the claims and the name of the shard's folder
    PATH/COLLECTION/shard/      the engine's own files
    PATH/COLLECTION/shard.seal  their checksums, while nobody writes
    PATH/COLLECTION/next.json   the same of the collection that is to take this one's place, in shard-2/ beside it

A collection is built under another name and renamed into place, so it is there as a whole or not at all; renaming
next.json to c2llm.json replaces it. Shards that neither file names were left by a killed run and are swept.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from c2llm_integrations._utils.files import write_atomically
from c2llm_integrations._utils.json_lines import parse_json
from c2llm_integrations.code.exclude import INDEX_FOLDER
from c2llm_integrations.code.safe_open import read_inside, require_small
from c2llm_integrations.errors import StoreError
from c2llm_integrations.stores.file_checksums import Entries, checksum_of, write_seal
from c2llm_integrations.stores.spec import CollectionSpec, checked_claims

SPEC_FILE, NEXT_FILE = "c2llm.json", "next.json"
# More than that may push itself out of memory before it is asked for.
READ_AHEAD_BYTES = 4 * 2**30

_SHARD = re.compile(r"shard(?:-([0-9]{1,9}))?")


@dataclass(frozen=True, slots=True)
class Settings:
    """What c2llm.json or next.json holds; `shard` is a folder beside the file."""

    spec: CollectionSpec
    claims: dict[str, str]
    shard: str = "shard"

    @classmethod
    def load(cls, file: Path) -> Settings:
        """Read what `save` wrote, or a release that named no shard; raises StoreError, SpecMismatch for others."""
        try:
            data = parse_json(read_inside(require_small(file).parent, file.name))
            if data.pop("checksum", None) not in (None, checksum_of(data)):  # earlier releases wrote none
                raise ValueError("its checksum does not match")
            shard = data.get("shard", "shard")
            if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
                raise ValueError(f"shard {shard!r}")
            return cls(CollectionSpec.from_json(json.dumps(data["spec"])), checked_claims(data["claims"]), shard)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            spoilt = file if file.name == NEXT_FILE else file.parent
            raise StoreError(
                f"{file} cannot be read ({type(error).__name__}: {error}); delete {spoilt} and index again"
            ) from error

    def save(self, file: Path) -> None:
        """Write the file in one step."""
        data = {"spec": json.loads(self.spec.to_json()), "claims": self.claims, "shard": self.shard}
        data["checksum"] = checksum_of(data)
        write_atomically(file, json.dumps(data, indent=1, sort_keys=True) + "\n")

    @property
    def next_shard(self) -> str:
        """The folder of the shard that is to take this one's place."""
        found = _SHARD.fullmatch(self.shard)
        return f"shard-{int(found[1] or 1) + 1 if found else 2}"


def require_plain_files(root: Path, collection: str) -> None:
    """Raise StoreError for a link, pipe or device in a collection's folder, or in place of an index in a checkout.

    A checkout that somebody else made may hold one: what is written would go where it leads, what is read would wait.
    """
    found = [root] if root.name == INDEX_FOLDER else []
    if root.is_dir():
        found += [child for child in root.iterdir() if collection in child.name]
    for folder, folders, files in os.walk(root / collection):
        found += [Path(folder, name) for name in (*folders, *files)]
    for one in found:
        mode = one.lstat().st_mode if os.path.lexists(one) else stat.S_IFDIR
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            what = "a symbolic link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
            raise StoreError(
                f"{one} is {what}, which no index of ours has; "
                "delete it, or name another place with --store qdrant+edge://PATH"
            )


def sweep(folder: Path) -> None:
    """Delete the shards that neither settings file names; only while no shard is open."""
    files = [file for name in (SPEC_FILE, NEXT_FILE) if (file := folder / name).exists()]
    named = {Settings.load(file).shard for file in files}
    for child in folder.iterdir():
        if _SHARD.fullmatch(child.name) and child.name not in named:
            seal_of(child).unlink(missing_ok=True)
            shutil.rmtree(child)


def seal_of(shard: Path) -> Path:
    """Return where the checksums of a shard's files stand."""
    return shard.with_name(f"{shard.name}.seal")


def seal(shard: Path, before: Entries) -> None:
    """Write down the checksums of a closed shard; where none can be written, the shard goes without."""
    with suppress(OSError):
        write_seal(seal_of(shard), (file for file in shard.rglob("*") if file.is_file()), before)


def read_ahead(shard: Path) -> None:
    """Read the payloads' files from end to end: opening drops them from memory, and the engine reads page by page."""
    files = list(shard.glob("segments/*/payload_storage/page_*.dat"))
    if sum(file.stat().st_size for file in files) > READ_AHEAD_BYTES:
        return
    buffer = bytearray(2**22)
    for file in files:
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass


def give_back_freed_memory() -> None:
    """Give the system what the engine has freed; glibc would keep it, three quarters of a long load's memory."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # musl keeps none
            ctypes.CDLL(None).malloc_trim(0)


def leave_to_parent(shard: object, root: str) -> None:
    """Have a forked process neither close a shard, which would write into files of its parent, nor keep them locked."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(shard))  # it is never freed here
    with suppress(OSError):  # only Linux tells which files are open
        for descriptor in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/self/fd/{descriptor}").startswith(f"{root}{os.sep}"):
                    os.close(int(descriptor))


def cleared_scratch(root: Path, collection: str) -> tuple[Path, Path]:
    """Return where to build and where to take apart, after removing what a killed run left there."""
    new, old = (root / f".{kind}-{collection}" for kind in ("new", "old"))
    for folder in (new, old):
        if folder.exists():
            shutil.rmtree(folder)
    return new, old


def ignore_in_git(root: Path) -> None:
    """Write `.gitignore`, but only into a folder that holds nothing but ours."""
    ignore = root / ".gitignore"
    if not ignore.exists() and all(_is_ours(child) for child in root.iterdir()):
        write_atomically(ignore, "*\n")


def _is_ours(child: Path) -> bool:
    made = child.name.startswith((".new-", ".old-", ".gitignore.")) or child.suffix == ".lock"
    return made or (child / SPEC_FILE).exists()
