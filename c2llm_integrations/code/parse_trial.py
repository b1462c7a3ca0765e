"""Parse a text in another process first, because what it makes a grammar do may end the process or take all memory.

While a parser recovers from an error it asks nobody whether to go on: a few kilobytes can take gigabytes and minutes,
and scanners of some grammars have crashed. The other process has limits, and may die of it.
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
from typing import BinaryIO

from tree_sitter import Range

from c2llm_integrations.code.languages import grammar
from c2llm_integrations.code.parsing import parse_within

# What a parse may allocate (on Linux): a tree of real code takes a tenth of it.
MAX_BYTES, MAX_BYTES_PER_BYTE = 2**28, 2**9
_READY, _PARSED, _LATE = b"r", b"1", b"0"
# It imports from where this process does, but never from a folder that is named by where one stands.
_START = f"import sys; sys.path[:] = sys.argv[1:]; from {__name__} import _serve; _serve()"


class _Trial:
    """The other process, which is started when it is first needed, and again after a death."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._parent = 0
        self._is_possible = True

    def survives(self, seconds: float, language: str, data: bytes, ranges: Sequence[Range] | None) -> bool:
        """Return whether a parse ends within its limits; True where no process can be started to find out."""
        with self._lock:
            if self._process is None or self._parent != os.getpid():
                self._process, self._parent = self._started(), os.getpid()
            if self._process is None:
                return True
            try:
                answer = _asked(self._process, seconds, language, data, ranges)
            except OSError:
                answer = b""
            if not answer:
                _end(self._process)
                self._process = None
            return answer == _PARSED

    def _started(self) -> subprocess.Popen[bytes] | None:
        if not self._is_possible:
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
                return process
            _end(process)
        self._is_possible = False
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
    with suppress(OSError):  # what it was never told is still to be written
        process.communicate()


survives = _Trial().survives


def _serve() -> None:
    """Parse what standard input brings, until it ends."""
    heard, said = sys.stdin.buffer, sys.stdout.buffer
    _say(said, _READY)
    while line := heard.readline():
        seconds, language, size, parts = json.loads(line)
        data = heard.read(size)
        rules = grammar(language)
        ranges = None if parts is None else [Range(tuple(p[:2]), tuple(p[2:4]), p[4], p[5]) for p in parts]
        _limit(seconds, len(data))
        root = rules and parse_within(seconds, rules, data, ranges)
        _say(said, _PARSED if root is not None else _LATE)


def _say(said: BinaryIO, answer: bytes) -> None:
    said.write(answer)
    said.flush()


def _limit(seconds: float, size: int) -> None:
    """Let the next parse take so much of this process's time, and memory in proportion to its text."""
    if sys.platform == "win32":
        return
    import resource

    most = math.ceil(time.process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        most = MAX_BYTES + MAX_BYTES_PER_BYTE * size
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))
