"""The options of a search, declared once: for Python, the command line, the frameworks and the servers."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from c2llm_integrations._utils.option_field import option

if TYPE_CHECKING:
    from c2llm_integrations.stores.filter import Filter

Mode = Literal["hybrid", "dense", "lexical"]
RULES = (
    *("kind", "exact", "definition", "symbol", "path", "location", "phrase", "file"),
    *("tests", "generated", "legacy", "prose", "coverage", "copies"),
)


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """The number of hits, the rows to search, and how to rank them; `search` explains each option."""

    limit: int = option(10, "Maximum number of hits.", metavar="N", min=1, max=10_000)
    language: str | Sequence[str] | None = option(
        None, "Only this language, such as python, or several: go,c++.", metavar="L"
    )
    path: str | None = option(
        None, "Only these files: a path of an answer, or a pattern, 'src/**/*.py'.", metavar="GLOB"
    )
    kind: str | None = option(None, "Only function, method, class, module, section or text.", metavar="K")
    repository: str | None = option(None, "Only this repository.", metavar="NAME")
    where: Filter | Mapping[str, Any] | None = None
    mode: Mode = "hybrid"
    rules: Collection[str] = RULES

    @property
    def languages(self) -> Sequence[str]:
        """The names in `language`, () for any language."""
        several = self.language or ()
        return [one for one in re.split(r"\s*,\s*", several.strip()) if one] if isinstance(several, str) else several
