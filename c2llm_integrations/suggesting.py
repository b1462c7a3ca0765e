"""What somebody may have meant by a word that is not known."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

# Names listed of what there is, where nothing is close.
NAMES = 12


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return the end of an error line: the close ones of what is known, or all of it, or nothing if there is none."""
    if close := get_close_matches(word, known, n=3, cutoff=0.5):
        return f"; did you mean {' or '.join(close)}?"
    more = ", …" if len(known) > NAMES else ""
    return f"; there are: {', '.join(sorted(known)[:NAMES])}{more}" if known else ""
