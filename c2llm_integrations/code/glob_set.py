"""Match a path against many globs at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from c2llm_integrations.code.glob import Star, Token

_SLASH = ord("/")


class GlobSet:
    """Globs of bytes (as latin-1 each character stands for one), of which the last one that matches a path counts.

    An integer has a bit for each token of each glob, and one for each glob's end. A state, such as `start`, is the set
    of tokens that may come next. A byte of a path moves it by a few operations on integers of `size` bits ("Shift-And",
    Baeza-Yates and Gonnet 1992), so that no glob can make a path expensive.
    """

    def __init__(self, globs: Sequence[tuple[Sequence[Token], bool]]) -> None:
        """Take each glob's tokens, and whether it matches folders only."""
        tokens: list[Token | None] = []
        starts, ends = [], []
        for glob, _ in globs:
            starts.append(len(tokens))
            tokens += [*glob, None]
            ends.append(len(tokens) - 1)
        self.size = len(tokens)
        self._number = dict(zip(ends, range(len(ends)), strict=True))
        self._ends = _bits(ends)
        self._file_ends = _bits(end for end, (_, folders_only) in zip(ends, globs, strict=True) if not folders_only)
        names, self._folders, everything = (
            _bits(at for at, token in enumerate(tokens) if token is star)
            for star in (Star.NAME, Star.FOLDERS, Star.ALL)
        )
        self._passed = names | everything
        self._stays = [self._passed | self._folders] * 256
        self._stays[_SLASH] = everything | self._folders
        known = {token: _accepted(token) for token in set(tokens)}
        accepted = np.array([known[token] for token in tokens], bool).reshape(-1, 256)
        packed = np.packbits(accepted.T, axis=1, bitorder="little")
        self._accepts = [int.from_bytes(row.tobytes(), "little") for row in packed]
        self.start = self._reached(_bits(starts), 0)

    def advance(self, state: int, path: bytes) -> int:
        """Return the state after more of a path."""
        for byte in path if self.size else b"":
            state = self._reached((state & self._accepts[byte]) << 1, state & self._stays[byte])
        return state

    def _reached(self, entered: int, stayed: int) -> int:
        """Return the state where these tokens come next: "**/" may stand for no folder, a star for no character."""
        state = entered | (entered & self._folders) << 1 | stayed
        return state | (state & self._passed) << 1

    def last(self, state: int, is_folder: bool) -> int | None:
        """Return the number of the last glob that matches a path which ends in this state."""
        matched = state & (self._ends if is_folder else self._file_ends)
        return self._number[matched.bit_length() - 1] if matched else None


def _bits(positions: Iterable[int]) -> int:
    flags = bytearray()
    for at in positions:
        flags.extend(bytes(max(0, at // 8 + 1 - len(flags))))
        flags[at // 8] |= 1 << at % 8
    return int.from_bytes(flags, "little")


def _accepted(token: Token | None) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return for each byte whether the next token comes after it; a star is passed without any."""
    out = np.zeros(256, bool)
    if isinstance(token, str) or token is Star.FOLDERS:
        out[ord(token) if isinstance(token, str) else _SLASH] = True
    elif not isinstance(token, Star) and token is not None:
        for low, high in token.ranges:
            out[ord(low) : ord(high) + 1] = True
        out ^= token.negated
        out[_SLASH] = False
    return out
