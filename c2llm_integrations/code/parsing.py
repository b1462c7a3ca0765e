"""Parse a text that somebody else may have written, within a time and without keeping its bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from tree_sitter import Language, Node, Parser, Range

# The parser reads up to this many bytes at a time, and again for each name.
READ_BYTES = 2**12


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
