"""A list of an engine's files with their checksums: the engines trust their files, and would answer from damaged ones.

A seal is written when a collection is closed and removed before it is written to. What a killed run leaves has none,
and the engine's own log repairs it.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from c2llm_integrations._utils.files import allocated_bytes, blocks_of_data, sync_folder, write_atomically
from c2llm_integrations._utils.json_lines import parse_json
from c2llm_integrations.code.safe_open import require_small
from c2llm_integrations.errors import StoreError

# Collections up to this size are read whole when they are opened; of larger ones, only files with another time or size.
READ_WHOLE_BYTES = 128 * 2**20
_BLOCK_BYTES = 2**20
_ZEROS = bytes(_BLOCK_BYTES)

# Path below the seal's folder → size, time and checksum.
Entries = dict[str, list[int]]


def write_seal(seal: Path, files: Iterable[Path], before: Entries | None = None) -> None:
    """Write down what `files`, all under the seal's folder, hold now.

    `before`: what they held when the last seal was broken; of a large collection, files of equal stamps are not read.
    """
    known = before if before and allocated_bytes(seal.parent) > READ_WHOLE_BYTES else {}
    entries: Entries = {}
    for file in files:
        name, stamp = file.relative_to(seal.parent).as_posix(), _stamp(file)
        is_known = name in known and tuple(known[name][:2]) == stamp
        entries[name] = known[name] if is_known else [*stamp, _checksum(file)]
    write_atomically(seal, json.dumps([entries, checksum_of(entries)]))


def break_seal(seal: Path) -> Entries:
    """Remove a seal before what it covers is opened for writing, or a crash would make good files look damaged.

    Return what it said.
    """
    if not seal.exists():
        return {}
    entries: Entries = parse_json(seal.read_text("utf-8"))[0]
    seal.unlink()
    sync_folder(seal.parent)
    return entries


def require_whole(seal: Path, journal: str, rebuilt: Sequence[str] = ()) -> bool:
    """Return whether the files are still sealed; raise StoreError for one that is not as it was written.

    Where a file named like `journal`, which the engine writes to whenever rows are, changed along with others, somebody
    wrote through the engine itself, and the seal no longer says anything. Files named like one of `rebuilt` may be
    missing, and are removed where they have changed: the engine makes them again. Patterns are `fnmatch`'s.
    """
    changed = dict(_changed(seal))
    for file in [file for file in changed if any(fnmatch(file.name, pattern) for pattern in rebuilt)]:
        file.unlink(missing_ok=True)
        del changed[file]
    if len(changed) > 1 and any(fnmatch(file.as_posix(), journal) for file in changed):
        break_seal(seal)
    elif changed:
        file, how = next(iter(changed.items()))
        raise StoreError(f"{file} {how}; delete {seal.parent} and index again")
    return seal.exists()


def _changed(seal: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file that is not what its seal says, and how; raises StoreError if the seal itself is damaged."""
    if not seal.exists():
        return
    try:
        entries, checksum = parse_json(require_small(seal).read_text("utf-8"))
        if checksum_of(entries) != checksum:
            raise ValueError("its checksum does not match")
        found = [(_inside(seal.parent, name), size, time, crc) for name, (size, time, crc) in entries.items()]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"{seal} is damaged ({error}); delete {seal.parent} and index again") from error
    whole = allocated_bytes(seal.parent) <= READ_WHOLE_BYTES
    for file, size, time, checksum in found:
        if not file.is_file():
            yield file, "is missing"
        elif file.stat().st_size != size:
            yield file, f"has {file.stat().st_size} bytes, {size} were written"
        elif (whole or _stamp(file)[1] != time) and _checksum(file) != checksum:
            yield file, "has changed since it was written"


def _inside(folder: Path, name: str) -> Path:
    """Return a file below a folder; raises ValueError for a name that leads out, which no seal of ours has."""
    if os.path.isabs(name) or ".." in Path(name).parts or "\0" in name:
        raise ValueError(f"it names {name!r}")
    return folder / name


def _stamp(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def checksum_of(document: object) -> int:
    """Return the checksum of what can be written as JSON."""
    return zlib.crc32(json.dumps(document, sort_keys=True).encode())


def _checksum(file: Path) -> int:
    """Checksum a file; blocks of zeros are left out, for the engines' files are mostly holes."""
    total = 0
    with open(file, "rb", buffering=0) as stream:
        for at, block in blocks_of_data(stream, _BLOCK_BYTES):
            if block != _ZEROS[: len(block)]:
                total = zlib.crc32(block, zlib.crc32(at.to_bytes(8, "little"), total))
    return total
