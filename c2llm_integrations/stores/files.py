"""Files that survive a crash, and a lock that the operating system releases when its holder dies."""

from __future__ import annotations

import os
import sys
import time
import uuid
from pathlib import Path

from c2llm_integrations.errors import StoreBusy

# How often a lock that another holds is tried again.
POLL_SECONDS = 0.01


class FileLock:
    """An exclusive lock on a file, held from construction to `release`.

    Two openings conflict even within one process. The file stays behind: deleting it would let two
    holders lock two files of the same name.
    """

    def __init__(self, path: Path, what: str, wait: float = 0.0) -> None:
        """Create `path` if needed and lock it.

        Raises StoreBusy, naming `what` it guards, if another still holds it after `wait` seconds; OSError if it cannot
        be locked.
        """
        deadline = time.monotonic() + wait
        while True:
            self._file = open(path, "ab")  # noqa: SIM115 (held open on purpose)
            try:
                _lock(self._file.fileno())
                return
            except (BlockingIOError, PermissionError) as error:
                self._file.close()
                if time.monotonic() >= deadline:
                    busy = f"{what} is open in another process or store; wait for it or close it first"
                    raise StoreBusy(busy) from error
            except BaseException:
                self._file.close()
                raise
            time.sleep(POLL_SECONDS)

    def release(self) -> None:
        """Let others in; calling it twice is no error."""
        self._file.close()


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_atomically(file: Path, text: str) -> None:
    """Replace a file so that a crash, even of the machine, leaves the old one or the new one."""
    temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder (created, renamed) survive a crash of the machine."""
    if os.name == "nt":  # a folder cannot be opened there, and its entries are journaled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def allocated_bytes(folder: Path) -> int:
    """Return the bytes that the files under a folder take on disk; holes in sparse files take none."""
    stats = [file.stat() for file in folder.rglob("*") if file.is_file()]
    return sum(getattr(stat, "st_blocks", stat.st_size // 512) * 512 for stat in stats)
