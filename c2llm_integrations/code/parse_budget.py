"""How long the files of one run may take to parse together: thousands, each within its own limit, would take hours."""

from __future__ import annotations

from collections import defaultdict

# What parsing may take beyond the usual, for one language and for all.
LANGUAGE_SECONDS, ALL_SECONDS = 10.0, 60.0
# The share of its limit from which on a file counts: code takes a fortieth, at most a ninth.
SLOW_SHARE = 0.25


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
