"""Run git safely on untrusted repositories.

A repository's own configuration is never used: git sees its index, objects and refs through a temporary git folder
(`GitFolder.view`) with a configuration of ours. So a key, include, hook, filter or work tree that the repository names
does not exist for git, whoever owns it. The user's own configuration still applies.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from threading import Timer
from typing import IO

from c2llm_integrations.code.git_internals import (
    MAX_BYTES,
    file_inside,
    has_plain_alternates,
    is_link,
    is_plain,
    place_of,
    read_small,
)
from c2llm_integrations.code.safe_open import list_inside
from c2llm_integrations.errors import RepositoryError

# The time limit of git on local files: over ten times what a million files need.
ANSWER_SECONDS = 15.0
# That of counting what a clone holds, which takes the largest public trees a few seconds.
COUNT_SECONDS = 60.0
# How many paths a listing may have: over what the largest public trees, of browsers, have. A few hundred bytes can
# describe millions, of which each takes time and memory wherever it is looked at.
MAX_PATHS = 500_000
# Bytes that git may allocate for each: a listing takes 130. It lays out a whole sparse index before it prints any path.
_PATH_BYTES = 512
# Bytes that git may print, and allocate (on Linux): a few hundred bytes can describe billions of files.
MAX_OUTPUT, MAX_MEMORY = 2**28, 2**31
# Bytes that a clone may fetch (on Linux), unless half of the free disk is less, and that its files may have laid out:
# ten times what the largest known repositories have. And bytes that git may allocate for it (on Linux).
MAX_CHECKOUT, MAX_CLONE_MEMORY = 2**36, 2**33
# Bytes that are read at a time of what git prints.
_BLOCK_BYTES = 2**20

# Variables that point git at another repository are dropped, and those that load a library into it, which a library
# may have read from a tree's `.env`; those about connections and identity are kept.
_KEPT_VARIABLE = re.compile(r"(?!GIT_|LD_|DYLD_)|GIT_(CONFIG_|SSH|SSL|HTTP|PROXY|ASKPASS)")
_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_ALLOW_PROTOCOL": "",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "SSH_ASKPASS_REQUIRE": "never",
}
# Even programs from the user's own configuration must not run in an untrusted tree.
_OVERRIDES = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", "-c", "gc.auto=0")

# A tree's attributes must not choose one of the user's own filters, nor change a byte of the files.
_ATTRIBUTES = "* -filter -text -ident -working-tree-encoding\n"

# The way out where a clone would read more than its own git folder.
_CLONE_IT = "clone it yourself with git clone --no-local and give the clone's folder"

# Files that all worktrees share.
_SHARED = ("packed-refs", "shallow")
_HEAD = re.compile(r"ref:\s*(refs/\S+)\s*|([0-9a-f]{40,64})\s*")
# What git says of a folder of a sparse index that it leaves out, because it cannot read it, and calls that done.
_UNREAD = re.compile("error: invalid object 0?40000 [0-9a-f]+ for '(.*)'")
_SECTION = re.compile(r'\[([\w.-]+)(?:\s+"([^"\\]*)")?\s*\]')
# A path with an empty part, "." or "..", which git refuses to add but lists if an index holds it.
_ASTRAY = re.compile(r"(?:^|/)\.{0,2}(?:/|$)")


_deadline: ContextVar[float] = ContextVar("_deadline", default=float("inf"))


class TooManyPaths(RepositoryError):
    """A listing has more paths than `MAX_PATHS`."""


@contextmanager
def time_limit(seconds: float) -> Iterator[Callable[[], float]]:
    """Limit all calls of git in this block to `seconds` together; yield a function that returns the seconds left."""
    token = _deadline.set(min(_deadline.get(), time.monotonic() + seconds))
    try:
        yield lambda: _deadline.get() - time.monotonic()
    finally:
        _deadline.reset(token)


def run_git(
    *arguments: str,
    folder: Path | None = None,
    seconds: float = ANSWER_SECONDS,
    protocols: str = "",
    most: int | None = None,
    said: list[str] | None = None,
) -> bytes:
    """Run git without prompts, hooks or any repository but `folder`, and return its output.

    Args:
        arguments: The command line after `git`.
        folder: A git folder from `GitFolder.view`; None for no repository.
        seconds: The time limit, if `time_limit` leaves that much.
        protocols: The protocols that git may fetch by, separated by ":".
        most: How many paths, each with a zero byte behind it, git may print.
        said: Gets the lines that git says beside its output.

    Raises:
        TooManyPaths: git printed more of them.
        RepositoryError: git failed (with its last line), printed too much or took too long.

    """
    seconds = min(seconds, _deadline.get() - time.monotonic())
    if seconds <= 0:
        raise RepositoryError("git was not run: the time limit for all checkouts was reached")
    kept = {key: value for key, value in os.environ.items() if _KEPT_VARIABLE.match(key)}
    env = {"GIT_ASKPASS": "", **kept, **_ENVIRONMENT, "GIT_ALLOW_PROTOCOL": protocols}
    with _temporary_folder() as empty, TemporaryFile() as errors:
        env |= {"GIT_DIR": str(folder)} if folder else {"GIT_CEILING_DIRECTORIES": str(empty.parent)}
        process = _started(arguments, env, empty, errors)
        memory = MAX_CLONE_MEMORY if protocols else min(MAX_MEMORY, (most or MAX_MEMORY) * _PATH_BYTES)
        room = min(MAX_CHECKOUT, shutil.disk_usage(empty).free // 2) if protocols else None
        _limit(process, seconds, memory, room)
        late = Timer(seconds, _kill, [process])
        late.start()
        with process:
            try:
                assert process.stdout is not None
                output = _read_bounded(process.stdout, most)
                if len(output) < MAX_OUTPUT:
                    process.wait()
            finally:
                is_late = not late.is_alive()
                late.cancel()
                if process.poll() is None:
                    _kill(process)
        errors.seek(0)
        lines = errors.read(MAX_BYTES).decode(errors="replace").strip().splitlines()
        if process.returncode:
            last = lines[-1] if lines else "git said nothing"
            why = f"git printed over {MAX_OUTPUT:,} bytes" if len(output) == MAX_OUTPUT else last
            if room is not None and any("File too large" in line for line in lines):
                why = f"it has over {room:,} bytes, and no more are fetched into {empty.parent}; clone it yourself"
            raise RepositoryError(f"git did not answer within {seconds:.3g} s" if is_late else why)
        if said is not None:
            said += lines
    return output


def _started(
    arguments: Sequence[str], env: Mapping[str, str], empty: Path, errors: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start git in an empty folder, and in a session without a terminal to ask at."""
    try:
        return subprocess.Popen(
            ["git", *_OVERRIDES, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=empty,
            env=env,
            start_new_session=True,
            # Python ignores the signal of a file that grows too large, and git then says so instead of ending.
            restore_signals=False,
        )
    except OSError as error:
        raise RepositoryError(f"git cannot be started: {error.strerror}") from error


def _read_bounded(stream: IO[bytes], most: int | None) -> bytes:
    """Return what git prints, as much as it may; raises TooManyPaths for more paths than `most`."""
    blocks: list[bytes] = []
    size = paths = 0
    while size < MAX_OUTPUT and (block := stream.read(min(_BLOCK_BYTES, MAX_OUTPUT - size))):
        blocks.append(block)
        size += len(block)
        paths += block.count(b"\0")
        if most is not None and paths > most:
            raise TooManyPaths(f"git lists over {most:,} paths")
    return b"".join(blocks)


def check_out(clone: Path, seconds: float) -> None:
    """Lay out the files of a clone that was made without them as they were committed, at most `MAX_CHECKOUT` bytes.

    A few hundred bytes can describe billions of files or folders, so they are counted first.
    Raises RepositoryError for more, for more paths than git may print, and if counting takes over `COUNT_SECONDS`.
    """
    folder = clone / ".git"
    try:
        listed = run_git("ls-tree", "-r", "-l", "-z", "--full-tree", "HEAD", folder=folder, seconds=COUNT_SECONDS)
    except RepositoryError as error:
        raise RepositoryError(f"its files cannot be counted: {error}") from error
    sizes = (entry.partition(b"\t")[0].split()[3] for entry in listed.split(b"\0")[:-1])
    total = sum(int(size) for size in sizes if size.isdigit())  # a submodule has none
    if total > MAX_CHECKOUT:
        raise RepositoryError(
            f"its files have {total:,} bytes, at most {MAX_CHECKOUT:,} are laid out; clone it yourself"
        )
    (folder / "info").mkdir(exist_ok=True)
    (folder / "info" / "attributes").write_text(_ATTRIBUTES, "utf-8")
    run_git("--work-tree", str(clone), "checkout", "--force", "--quiet", folder=folder, seconds=seconds)


def _limit(process: subprocess.Popen[bytes], seconds: float, memory: int, room: int | None) -> None:
    """Limit git's memory, its files, and its processor time: it outlives this process if that is killed."""
    if sys.platform == "linux":
        import resource

        most = {
            resource.RLIMIT_CPU: math.ceil(seconds * (os.cpu_count() or 1)) + 1,
            resource.RLIMIT_DATA: memory,
            resource.RLIMIT_FSIZE: room,
        }
        for kind, size in most.items():
            with suppress(OSError, ValueError):  # it has ended already, or has a lower limit
                if size is not None:
                    resource.prlimit(process.pid, kind, (size, size))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill git and its child processes."""
    if os.name == "posix":
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def has_git(folder: str | Path) -> bool:
    """Return whether a folder is, or claims to be, the root of a work tree."""
    return os.path.isfile(f"{folder}/.git") or os.path.isfile(f"{folder}/.git/HEAD")


def may_rule(mark: Path, folder: Path) -> bool:
    """Return whether a `.git` or an index, in a folder above `folder` or there, may decide what `folder` belongs to.

    It may if it is owned by this process's user, the administrator, or the folder's own owner, or if `safe.directory`
    names its place: anybody may put one into a folder like /tmp.
    """
    root = mark.parent
    if root == folder or os.name != "posix":
        return True
    if os.lstat(mark).st_uid in (os.geteuid(), 0, os.stat(folder).st_uid):
        return True
    with suppress(RepositoryError):
        named = run_git("config", "--null", "--type=path", "--get-all", "safe.directory")
        return any(one in ("*", str(root)) for one in os.fsdecode(named).split("\0"))
    return False


@dataclass(frozen=True)
class GitFolder:
    """The git folder of one work tree: `own` has its index and HEAD, `common` what all worktrees share."""

    own: Path
    common: Path

    @classmethod
    def of(cls, root: Path) -> GitFolder | None:
        """Return the git folder of the work tree at `root`, which need not exist; None outside git."""
        if not has_git(root):
            return None
        pointer = read_small(root, ".git").removeprefix("gitdir:").strip() if os.path.isfile(root / ".git") else ".git"
        own = place_of(root, pointer or ".git")
        common = read_small(own, "commondir").strip()
        return cls(own, place_of(own, common) if common else own)

    @property
    def config(self) -> dict[str, str]:
        """The first value of each key in the repository's own configuration file; includes are not followed."""
        return _parsed(read_small(self.common, "config"))

    @property
    def head(self) -> str:
        """The branch that is checked out, the commit where it is on none, "" for neither."""
        match = _HEAD.fullmatch(read_small(self.own, "HEAD"))
        return (match[1] or match[2]).removeprefix("refs/heads/") if match else ""

    @property
    def is_bare(self) -> bool:
        """True if it has no work tree of its own, so that the folder around it only holds worktrees."""
        return self.own == self.common and self.config.get("core.bare", "").lower() in ("true", "yes", "on", "1")

    @property
    def has_index(self) -> bool:
        """True once anything was tracked."""
        return file_inside(self.own, "index") is not None

    @property
    def unread(self) -> list[str]:
        """A note for each small file and folder that is not read, because it leads out or is something else."""
        files = [self.own / name for name in ("HEAD", "commondir", "index")]
        files += [self.common / name for name in ("config", *_SHARED)]
        folders = [self.common / name for name in ("objects", "refs", "info")]
        odd = [(one, "file") for one in files if os.path.lexists(one) and not file_inside(one.parent, one.name)]
        odd += [(one, "folder") for one in folders if is_link(one)]
        return [f"{one} is not a {what} of its git folder, so it is not read" for one, what in odd]

    def other_tree(self, root: Path) -> Path | None:
        """Return the work tree that the configuration names in place of the one at `root`, None if it names none."""
        trees = self._own_trees() if self.own == self.common else []
        return trees[0] if trees and root.resolve() not in trees else None

    def tracked(self) -> frozenset[str]:
        """Return the paths in the index, deleted ones too, except those that are not paths inside a folder.

        A path with "/" at its end is a folder whose files git cannot name, because an object is missing.

        Raises TooManyPaths for more than `MAX_PATHS`, RepositoryError if git cannot read the index.
        """
        with self.view() as view:
            # Each of its threads would count as 8 MiB of memory.
            one = ("-c", "index.threads=1")
            said: list[str] = []
            listed = run_git(*one, "ls-files", "-z", "--cached", folder=view, most=MAX_PATHS, said=said)
        paths = (path for path in os.fsdecode(listed).split("\0") if not _ASTRAY.search(path))
        return frozenset([*paths, *(f"{match[1]}/" for match in map(_UNREAD.fullmatch, said) if match)])

    def contents(self) -> tuple[str | None, dict[str, str]]:
        """Return the commit that is checked out, None without one, and path → the name it gives to a file's content.

        Raises RepositoryError if git cannot list its files.
        """
        with self.view() as view:
            try:
                commit = run_git("rev-parse", "--verify", "--quiet", "HEAD^{commit}", folder=view).decode().strip()
            except RepositoryError:
                return None, {}
            listed = run_git("ls-tree", "-r", "-z", "--full-tree", commit, folder=view, most=MAX_PATHS)
        entries = (entry.partition(b"\t") for entry in listed.split(b"\0")[:-1])
        return commit, {os.fsdecode(path): about.split()[2].decode() for about, _, path in entries}

    def knows(self, root: Path) -> bool:
        """Return whether this git folder lies in the work tree `root` or names it: a `.git` file may point anywhere."""
        root = root.resolve()
        return self.common.is_relative_to(root) or root in (*self._own_trees(), *self._linked())

    def require_own(self, root: Path) -> None:
        """Raise RepositoryError if `root` only points at this git folder: a clone would read another repository."""
        if not self.knows(root):
            raise RepositoryError(f"its .git leads to {self.common}, which does not name {root}; {_CLONE_IT}")

    def is_of_another(self, root: Path) -> bool:
        """Return whether this git folder is that of another work tree; one that stands alone names none."""
        return not self.knows(root) and (self.common.name == ".git" or bool(self._own_trees()))

    def worktrees(self, root: Path) -> list[Path]:
        """Return the other worktrees of a work tree that this git folder knows, which it names and which point back."""
        if not self.knows(root):
            return []
        places = dict.fromkeys([self.common.parent, *self._own_trees(), *self._linked()])
        others = (place for place in places if place != root.resolve())
        return [place for place in others if (git := GitFolder.of(place)) is not None and git.common == self.common]

    def _own_trees(self) -> list[Path]:
        """Return the work tree that the configuration names, as that of a submodule does."""
        moved = read_small(self.common, "config.worktree")  # where a sparse checkout moves it to
        configs = (self.config, _parsed(moved))
        return [place_of(self.common, one) for config in configs if (one := config.get("core.worktree"))]

    def _linked(self) -> list[Path]:
        """Return the work trees that `git worktree add` made."""
        places = []
        with suppress(OSError):
            for name, _ in list_inside(self.common, "worktrees"):
                pointer = read_small(self.common, f"worktrees/{name}/gitdir").strip()
                places.append(place_of(self.common / "worktrees" / name, pointer).parent)
        return places

    @contextmanager
    def view(self, *, to_clone: bool = False) -> Iterator[Path]:
        """Yield a temporary git folder that shows this one's index, objects and refs, without its configuration.

        Objects and refs that lie elsewhere are not shown; `to_clone`: they and alternates raise RepositoryError.
        """
        with _temporary_folder() as view:
            try:
                self._show_in(view, to_clone)
            except OSError as error:
                raise RepositoryError(f"git needs a folder for temporary files with links: {error}") from error
            yield view

    def _show_in(self, view: Path, to_clone: bool) -> None:
        for name in ("alternates", "http-alternates") if to_clone else ():
            if os.path.lexists(place := self.common / "objects" / "info" / name):
                why = "as after git clone --shared or --reference"
                raise RepositoryError(f"{place} names another repository's objects, {why}; {_CLONE_IT}")
        head, config = read_small(self.own, "HEAD"), self.config
        head = head if _HEAD.fullmatch(head) else "ref: refs/heads/none\n"
        (view / "HEAD").write_bytes(head.encode("utf-8", "surrogateescape"))
        kept = {key: config.get(f"extensions.{key}", "") for key in ("objectformat", "refstorage")}
        lines = [f"{key} = {value}" for key, value in kept.items() if value.isalnum() and value.isascii()]
        core = f"[core]\nrepositoryformatversion = {int(bool(lines))}\nbare = true\n[extensions]\n"
        (view / "config").write_text(core + "\n".join(lines) + "\n", "utf-8")
        for folder in ("objects", "refs", "reftable"):
            if is_plain(self.common / folder) and (folder != "objects" or has_plain_alternates(self.common / folder)):
                place = view / folder
                if folder == "objects" and not to_clone:  # git writes none elsewhere if it has some of its own
                    (place / "info").mkdir(parents=True)
                    (place / "info" / "alternates").write_text("../others\n", "utf-8")
                    place = view / "others"
                place.symlink_to(self.common / folder)
            elif to_clone and os.path.lexists(place := self.common / folder):
                raise RepositoryError(f"{place} is a link, or holds more than files and folders; {_CLONE_IT}")
            elif folder != "reftable":
                (view / folder).mkdir()
        files = [self.own / "index", *self.own.glob("sharedindex.*"), *map(self.common.joinpath, _SHARED)]
        for file in files:
            if real := file_inside(file.parent, file.name):
                (view / file.name).symlink_to(real)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    try:
        folder = TemporaryDirectory(prefix="c2llm-")
    except OSError as error:
        raise RepositoryError(f"git needs a folder for temporary files: {error}") from error
    with folder as name:
        yield Path(name)


def branch_of(root: Path) -> str:
    """Return the branch that a work tree has checked out, the commit where it is on none, or "" outside git."""
    git = GitFolder.of(root)
    return git.head if git is not None else ""


def user_excludes() -> Path:
    """Return the path of the user's own ignore file, which may not exist."""
    try:
        named = run_git("config", "--null", "--type=path", "--get", "core.excludesFile")
    except RepositoryError:
        home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        return Path(home, "git", "ignore")
    return Path(os.fsdecode(named.rstrip(b"\0")))


def _parsed(config: str) -> dict[str, str]:
    """Return the first value of each key in the text of a configuration file."""
    found: dict[str, str] = {}
    section = ""
    for line in map(str.strip, config.split("\n")):
        if match := _SECTION.match(line):
            section = f"{match[1].lower()}.{match[2]}" if match[2] is not None else match[1].lower()
            line = line[match.end() :]
        name, equals, value = map(str.strip, line.partition("="))
        value = value.split('"')[1] if value.startswith('"') else re.split("[#;]", value, maxsplit=1)[0].strip()
        found.setdefault(f"{section}.{name.lower()}", value if equals else "true")
    return found
