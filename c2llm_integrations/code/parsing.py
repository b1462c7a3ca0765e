"""Parse a text that somebody else may have written: in another process first, because a grammar may crash on it.

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
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tree_sitter import Language, Node, Parser, Range

from c2llm_integrations._utils.fork import watched
from c2llm_integrations.code.languages import grammar

# The parser reads up to this many bytes at a time, and again for each name.
READ_BYTES = 2**12
# What a parse may allocate (on Linux): a tree of real code takes a tenth of it, up to 20 MB of code.
MAX_BYTES, MAX_BYTES_PER_BYTE, MAX_TREE_BYTES = 2**28, 2**9, 2**30
# How long to wait for an answer, if nothing else ends the parse, and how many starts in a row may fail.
ANSWER_SECONDS, ANSWER_TIMES, TRIES = 60.0, 10, 3
_READY, _PARSED, _LATE = b"r", b"1", b"0"
# It imports from the same folders as this process, but never from a relative one.
_START = f"import sys; sys.path[:] = sys.argv[1:]; from {__name__} import _serve; _serve()"


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
    parts = (
        None if ranges is None else [(*one.start_point, *one.end_point, one.start_byte, one.end_byte) for one in ranges]
    )
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
