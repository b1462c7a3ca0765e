"""Parse untrusted text within limits: first in another process, because a grammar may crash.

While a parser recovers from an error it cannot be stopped: a few kilobytes can take gigabytes and minutes, and scanners
of some grammars have crashed. The other process has limits, and may die.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tree_sitter import Language, Node, Parser, Range

from c2llm_integrations._utils.fork import watched
from c2llm_integrations.code.languages import grammar

# The limit of parsing, in this thread's own time, so that a busy machine gives the same chunks. Code takes a twentieth.
PARSE_SECONDS = 0.25
PARSE_SECONDS_PER_BYTE = 5e-6
# How much longer one counts that runs out of it: a process is ended by the second.
MAX_LATE_SECONDS = 2.0
# What parsing may take beyond the usual, for one language and for all.
LANGUAGE_SECONDS, ALL_SECONDS = 10.0, 60.0
# The share of its limit from which on a file counts: code takes a fortieth, at most a ninth.
SLOW_SHARE = 0.25
# The parser reads up to this many bytes at a time, and again for each name.
READ_BYTES = 2**12
# What a parse may allocate (on Linux): a tree of real code takes a tenth of it, up to 20 MB of code.
MAX_BYTES, MAX_BYTES_PER_BYTE, MAX_TREE_BYTES = 2**28, 2**9, 2**30
# How long to wait for an answer, if nothing else ends the parse, and how many starts in a row may fail.
ANSWER_SECONDS, ANSWER_TIMES, TRIES = 60.0, 10, 3
_READY, _PARSED, _LATE = b"r", b"1", b"0"
# It imports from the same folders as this process, but never from a relative one.
_START = f"import sys; sys.path[:] = sys.argv[1:]; from {__name__} import _serve; _serve()"


class ParseBudget:
    """The time that slow files of one run took, by language; one over its bound is no longer parsed in this run.

    `refused`: how many parses it has refused.
    """

    def __init__(self) -> None:
        self.refused = 0
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._over: dict[str, str] = {}

    def allows(self, language: str, path: str) -> bool:
        """Return whether a file of a language may still be parsed."""
        spent = self._spent[language]
        if spent <= LANGUAGE_SECONDS and not (spent and sum(self._spent.values()) > ALL_SECONDS):
            return True
        self._over.setdefault(language, path)
        self.refused += 1
        return False

    def charge(self, language: str, seconds: float, limit: float) -> None:
        """Count what parsing a file took of its limit, if it was slow."""
        if seconds > SLOW_SHARE * limit:
            self._spent[language] += seconds

    @property
    def notes(self) -> list[str]:
        """A line for each language that is over."""
        return [
            f"files of {language} took {self._spent[language]:.0f} s to parse, so from {path} on those of this run are "
            "cut by lines; leave out what is slow, or run again to parse the others"
            for language, path in self._over.items()
        ]


def parse(
    language: str, data: bytes, ranges: list[Range] | None = None, *, path: str = "", budget: ParseBudget | None = None
) -> Node | None:
    """Return the root of the syntax tree of a file, or of ranges of it as of one file.

    None without a grammar, or if parsing would take too much time or memory.
    """
    rules, budget = grammar(language), budget or ParseBudget()
    if rules is None or not budget.allows(language, path):
        return None
    read = len(data) if ranges is None else sum(part.end_byte - part.start_byte for part in ranges)
    seconds = PARSE_SECONDS + PARSE_SECONDS_PER_BYTE * read
    begin, began = time.thread_time(), time.monotonic()
    root = parse_within(seconds, rules, data, ranges) if survives(seconds, language, data, ranges) else None
    # What runs out of time may take longer, in the other process.
    late = min(max(seconds, time.monotonic() - began), seconds + MAX_LATE_SECONDS)
    budget.charge(language, late if root is None else time.thread_time() - begin, seconds)
    return root


class _Buffers(threading.local):
    """One buffer of each size, used again: the binding never frees a buffer that it parsed from."""

    def __init__(self) -> None:
        self.of_size: dict[int, bytearray] = {}

    def filled(self, data: bytes, at: int) -> bytearray:
        """Return the next bytes, cut between characters: half a character would make the parser ask for the rest.

        If the rest is missing, it reads out of bounds, which ends the process.
        """
        left = min(len(data) - at, READ_BYTES)
        size = left if left < 8 else 1 << left.bit_length() - 1
        while at + size < len(data) and data[at + size] & 0xC0 == 0x80 and size > 1:
            size -= 1
        buffer = self.of_size.get(size) or self.of_size.setdefault(size, bytearray(size))
        buffer[:] = data[at : at + size]
        return buffer


_buffers = _Buffers()


def parse_within(seconds: float, rules: Language, data: bytes, ranges: Sequence[Range] | None = None) -> Node | None:
    """Return the root of the syntax tree of a text, or of ranges of it; None if it takes longer.

    `seconds`: of this thread's own time.
    """
    end = time.thread_time() + seconds
    is_late, is_parsed = False, False

    def read(at: int, _: object) -> bytes | bytearray:
        # While the parser recovers from an error it cannot be stopped, but it reads on: end the text there.
        nonlocal is_late
        if is_parsed:  # for the text of a node, which takes bytes alone and lets go of them
            return data[at : at + READ_BYTES]
        is_late = is_late or time.thread_time() > end
        return b"" if is_late or at >= len(data) else _buffers.filled(data, at)

    try:
        # Only a parser that reads through a function asks whether to go on.
        parser = Parser(rules, included_ranges=ranges)
        tree = parser.parse(read, progress_callback=lambda *_: time.thread_time() > end)
    except ValueError:
        return None
    is_parsed = True
    return None if is_late else tree.root_node


class _Trial:
    """The other process, which is started when it is first needed, and again after a death."""

    def __init__(self) -> None:
        self._tries = TRIES
        self.forget()

    def forget(self) -> None:
        """Forget the process after a fork: it belongs to the parent."""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def survives(self, seconds: float, language: str, data: bytes, ranges: Sequence[Range] | None) -> bool:
        """Return whether a parse ends within its limits; True where no process can be started to find out."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = self._started()
            if self._process is None:
                return True
            answer = b""
            late = threading.Timer(ANSWER_SECONDS + ANSWER_TIMES * seconds, self._process.kill)
            late.start()
            try:
                with suppress(OSError):
                    answer = _asked(self._process, seconds, language, data, ranges)
            finally:
                late.cancel()
                if not answer:  # after an interrupt, too: the answer that is due would be taken for the next text's
                    _end(self._process)
                    self._process = None
            return answer == _PARSED

    def _started(self) -> subprocess.Popen[bytes] | None:
        if not self._tries or not sys.executable or getattr(sys, "frozen", False):
            return None
        with suppress(OSError):
            process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, *filter(os.path.isabs, sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=Path(__file__).parent,
                start_new_session=True,
            )
            assert process.stdout is not None
            if process.stdout.read(1) == _READY:
                self._tries = TRIES
                return process
            _end(process)
        self._tries -= 1
        return None


def _asked(
    process: subprocess.Popen[bytes], seconds: float, language: str, data: bytes, ranges: Sequence[Range] | None
) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    parts = None if ranges is None else [(*r.start_point, *r.end_point, r.start_byte, r.end_byte) for r in ranges]
    process.stdin.write(json.dumps([seconds, language, len(data), parts]).encode() + b"\n" + data)
    process.stdin.flush()
    return process.stdout.read(1)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with suppress(OSError):  # flushing a text that it never read
        process.communicate()


_TRIAL = _Trial()
watched(_Trial.forget).add(_TRIAL)
survives = _TRIAL.survives


def _serve() -> None:
    """Parse what standard input brings, until it ends."""
    heard, said = sys.stdin.buffer, sys.stdout.fileno()
    os.write(said, _READY)
    while line := heard.readline():
        seconds, language, size, parts = json.loads(line)
        data = heard.read(size)
        rules = grammar(language)
        ranges = None if parts is None else [Range(tuple(p[:2]), tuple(p[2:4]), p[4], p[5]) for p in parts]
        _limit(seconds, len(data))
        # Keep nothing of any tree: it would count against the next text.
        is_parsed = rules is None or parse_within(seconds, rules, data, ranges) is not None
        os.write(said, _PARSED if is_parsed else _LATE)


def _limit(seconds: float, size: int) -> None:
    """Limit the next parse to this much of the process's time, and to memory in proportion to its text."""
    if sys.platform == "win32":
        return
    import resource

    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_CPU: math.ceil(time.process_time() + seconds) + 1}
    if sys.platform == "linux":
        limits[resource.RLIMIT_DATA] = min(MAX_BYTES + MAX_BYTES_PER_BYTE * size, MAX_TREE_BYTES)
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        with suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
