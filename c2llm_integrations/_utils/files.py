"""Files that survive a crash, and a lock that the operating system releases when its holder dies."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from c2llm_integrations._utils.fork import watched
from c2llm_integrations.errors import InputError, StoreBusy, StoreError

# How often a lock that another holds is tried again.
POLL_SECONDS = 0.01
# What is copied at a time, or left a hole.
BLOCK_BYTES = 2**16

# Windows has neither.
_NO_LINK, _NO_WAITING = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_NONBLOCK", 0)


class FileLock:
    """An exclusive lock on a file, held from construction to `release`.

    Two openings conflict even within one process. The file stays behind: deleting it would let two
    holders lock two files of the same name.
    """

    def __init__(self, path: Path, what: str, wait: float = 0.0, way: str = "wait for it or close it first") -> None:
        """Create `path` if needed and lock it.

        Raises StoreBusy, naming `what` it guards and the `way` out, if another process still holds it after `wait`
        seconds; StoreError if `path` is a link or not a file, OSError if it cannot be locked.
        """
        deadline = time.monotonic() + wait
        while True:
            self._file, is_shared = _opened(path)
            try:
                if self._file is not None:
                    _lock(self._file.fileno(), is_shared)
                _held.add(self)
                return
            except (BlockingIOError, PermissionError) as error:
                self.release()
                if time.monotonic() >= deadline:
                    raise StoreBusy(f"{what} is open in another process or store; {way}") from error
            except BaseException:
                self.release()
                raise
            time.sleep(POLL_SECONDS)

    def release(self) -> None:
        """Release the lock; calling it twice is harmless."""
        if self._file is not None:
            self._file.close()


# A forked process would hold its parent's locks for as long as it lives, against both.
_held = watched(FileLock.release)


def _opened(path: Path) -> tuple[IO[bytes] | None, bool]:
    """Open a lock file, and return whether it can only be shared; None if it is missing and cannot be made."""
    try:
        return _open_plain(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, "ab"), False
    except OSError as error:
        if not is_refused(error):
            raise
    return (_open_plain(path, os.O_RDONLY, "rb"), True) if path.exists() else (None, True)


def _open_plain(path: Path, flags: int, mode: str) -> IO[bytes]:
    """Open a regular file; raises StoreError for a link, which may lead anywhere, and for a pipe or device."""
    refused = StoreError(f"{path} is a link, or not a file, where a lock of ours belongs; delete it")
    if not _NO_LINK and path.is_symlink():
        raise refused
    try:
        descriptor = os.open(path, flags | _NO_LINK | _NO_WAITING | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):  # a link, or a pipe that nobody reads
            raise refused from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise refused
    return os.fdopen(descriptor, mode)


def is_refused(error: OSError) -> bool:
    """Return whether an error means that this user may not write to a place at all."""
    return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def is_writable(folder: Path) -> bool:
    """Return whether this user may write everything in a folder."""
    return all(os.access(one, os.W_OK) for one in (folder, *folder.rglob("*")))


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a folder, without taking disk for blocks of zeros."""
    for file in source.rglob("*"):
        there = target / file.relative_to(source)
        if file.is_dir():
            there.mkdir(parents=True, exist_ok=True)
            continue
        there.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb", buffering=0) as read, there.open("wb") as written:
            for at, block in blocks_of_data(read, BLOCK_BYTES):
                if block.count(0) < len(block):
                    written.seek(at)
                    written.write(block)
            written.truncate(os.fstat(read.fileno()).st_size)


def blocks_of_data(file: IO[bytes], size: int) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks of a file and where each begins, without holes, as far as the system can tell those."""
    at = _next_data(file.fileno(), 0, size)
    while at is not None:
        file.seek(at)
        block = file.read(size)
        if not block:
            break
        yield at, block
        at = _next_data(file.fileno(), at + size, size)


def _next_data(descriptor: int, at: int, size: int) -> int | None:
    """Return where the block begins that holds the next data from `at` on."""
    if not hasattr(os, "SEEK_DATA"):
        return at
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA) // size * size
    except OSError as error:
        return None if error.errno == errno.ENXIO else at  # only holes from here on, or a file system without them


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int, _is_shared: bool) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int, is_shared: bool) -> None:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Name the file in an error of a block that writes it: where the disk is full, the system does not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(file)
        raise


def real_path(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path behind all links; of links in a circle, where `Path.resolve` may raise, some path."""
    return Path(os.path.realpath(path))


def require_output_folder(folder: Path) -> None:
    """Raise InputError, before any work is done, for a folder to write into that is something else."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name another")


def require_output(file: Path) -> None:
    """Raise InputError, before any work is done, for a file to write that is something else, or has no folder."""
    if file.is_dir():
        raise InputError(f"{file} is a folder; name a file in it")
    if file.exists() and not file.is_file():
        raise InputError(f"{file} is a pipe or device, which is not written over; name another file")
    folder = file.absolute().parent
    if not folder.is_dir():
        raise InputError(f"no folder {folder} to write {file.name} to; make it, or name another file")
    if not os.access(folder, os.W_OK):
        raise InputError(f"no right to write {file.name} into {folder}; name another file")


def write_atomically(file: Path, text: str, *, lasting: bool = True) -> None:
    """Replace a file so that a crash, even of the machine, leaves the old one or the new one.

    Without `lasting`, for a cache, a crash of the machine may leave a damaged one, and nothing waits for the disk.
    """
    temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        with naming(file), open(temporary, "x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            if lasting:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if lasting:
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
    """Return the bytes that the files under a folder take on disk; holes in sparse files do not count."""
    stats = [file.stat() for file in folder.rglob("*") if file.is_file()]
    return sum(getattr(stat, "st_blocks", stat.st_size // 512) * 512 for stat in stats)


def user_cache() -> Path:
    """Return the folder for what this user's programs can make again; it may not exist yet."""
    folder = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "c2llm"
