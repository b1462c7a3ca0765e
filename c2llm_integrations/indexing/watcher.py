"""Call a function after every burst of changes in a folder (extra `watch`)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

from c2llm_integrations._utils.files import real_path
from c2llm_integrations._utils.printable import as_unicode, is_unicode
from c2llm_integrations.code.exclude import INTERNAL_NAMES
from c2llm_integrations.code.git import GitFolder
from c2llm_integrations.errors import MissingExtra, RepositoryError, reason_of

# Milliseconds without a change that end a burst, and the longest burst.
QUIET_MS, BURST_MS = 300, 5_000
# Events get lost (a full queue, a network file system), so `work` is also called after this many seconds.
REPEAT_SECONDS = 30.0
# How long to wait for git to finish a checkout.
GIT_SECONDS = 60.0
POLL_SECONDS = 0.2
# Whether the system watches a folder recursively; elsewhere the library walks through it, and through links.
_FOLLOWS_NO_LINKS = sys.platform in ("darwin", "win32")
_ADDED = 1  # watchfiles' Change.added


def watch(folder: Path, work: Callable[[], None], say: Callable[[str], None], stopped: Event | None = None) -> None:
    """Call `work` now, after each burst of changes under `folder` and every `REPEAT_SECONDS`, until stopped.

    Args:
        folder: The folder; while it is gone, nothing is done.
        work: What to do; an error is passed to `say`, and `work` is called again after the next change.
        say: Called with one line for the user.
        stopped: Ends the watch once it is set.

    Raises:
        RepositoryError: The system cannot watch so many folders, or the folder's name is not UTF-8.
        MissingExtra: `watchfiles` is not installed.

    """
    stopped = stopped or Event()
    folder = real_path(folder)
    left: tuple[int, ...] | None = None  # the lock of a git that was killed
    while not stopped.is_set():
        if not folder.is_dir():
            say(f"{folder} is gone; waiting until it is back")
            while not folder.is_dir() and not stopped.wait(POLL_SECONDS):
                pass
            continue
        place = _identity(folder)
        for _ in _bursts(folder, stopped, say):
            if stopped.is_set() or _identity(folder) != place:
                break  # gone, or another folder in its place, of which this watch sees nothing
            left = _wait_for_git(folder, stopped, left)
            try:
                work()
            except Exception as error:  # whatever a folder holds, watching goes on
                say(f"not indexed: {reason_of(error)}; trying again with the next change")


def is_source(folder: Path, path: str) -> bool:
    """Return whether a path below a folder is neither git's nor an index's."""
    return INTERNAL_NAMES.isdisjoint(path[len(str(folder)) + 1 :].split(os.sep))


def _bursts(folder: Path, stopped: Event, say: Callable[[str], None]) -> Iterator[None]:
    """Yield at once, so that no change before the first event is missed, then after each burst."""
    try:
        from watchfiles import watch
    except ImportError as error:
        raise MissingExtra("watchfiles", "watch") from error

    _require_unicode_name(folder)
    unwatched_before: list[str] = []
    while not stopped.is_set():
        folders, unwatched = ([str(folder)], []) if _FOLLOWS_NO_LINKS else _folders(folder)
        if unwatched and unwatched != unwatched_before:
            more = len(unwatched) - 1
            those = f" and {more:,} more folders have" if more else " has"
            say(f"{as_unicode(unwatched[0])}{those} a name that is not UTF-8: neither watched nor indexed")
        unwatched_before = unwatched
        changes = watch(
            *folders,
            recursive=_FOLLOWS_NO_LINKS,
            watch_filter=lambda _, path: is_source(folder, path),
            step=QUIET_MS,
            debounce=BURST_MS,
            stop_event=stopped,
            rust_timeout=int(POLL_SECONDS * 1000),
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )
        next_look = 0.0  # the first look is at once
        try:
            for found in changes:
                new = [path for change, path in found if change == _ADDED] if not _FOLLOWS_NO_LINKS else []
                if any(os.path.isdir(path) and not os.path.islink(path) for path in new):
                    break  # to watch it, too; the first look then covers what is in it by now
                if found or time.monotonic() > next_look or not folder.is_dir():
                    yield
                    next_look = time.monotonic() + REPEAT_SECONDS
        except OSError as error:
            if not folder.is_dir():
                return
            if not isinstance(error, FileNotFoundError):  # else one of `folders` is gone: list them again
                raise RepositoryError(
                    f"{folder} cannot be watched: {error}; on Linux raise fs.inotify.max_user_watches, "
                    "or run c2llm index from time to time"
                ) from error
        except RuntimeError as error:  # the library's own, for something new whose name is not UTF-8
            if "decode" not in str(error):
                raise


def _require_unicode_name(folder: Path) -> None:
    if not is_unicode(str(folder)):
        raise RepositoryError(
            f"{as_unicode(folder)} has a name that is not UTF-8 and cannot be watched; rename it, "
            "or run c2llm index from time to time"
        )


def _folders(folder: Path) -> tuple[list[str], list[str]]:
    """Return a folder and those in it, and separately those whose name is not UTF-8: no file in them is indexed.

    Left out are links, which lead anywhere, and what `is_source` leaves out.
    """
    found, undecodable = [], []
    for place, names, _ in os.walk(folder):
        names[:] = [name for name in names if name not in INTERNAL_NAMES and not os.path.islink(f"{place}/{name}")]
        undecodable += [f"{place}/{name}" for name in names if not is_unicode(name)]
        names[:] = filter(is_unicode, names)
        found.append(place)
    return found, undecodable


def _wait_for_git(folder: Path, stopped: Event, left: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Wait until a checkout, merge or rebase has written all its files; return the lock if it is still there.

    A lock that is still the one in `left`, which an earlier call waited for, is not waited for again.
    """
    git = GitFolder.of(folder)
    if git is None:
        return None
    patience = time.monotonic() + GIT_SECONDS
    while (lock := _lock_of(git)) not in (None, left) and time.monotonic() < patience:
        if stopped.wait(POLL_SECONDS):
            break
    return lock


def _lock_of(git: GitFolder) -> tuple[int, ...] | None:
    """Return what identifies git's present lock; None without a lock."""
    try:
        info = os.lstat(git.own / "index.lock")
    except OSError:
        return None
    return info.st_dev, info.st_ino, info.st_mtime_ns, info.st_size


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        info = folder.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino
