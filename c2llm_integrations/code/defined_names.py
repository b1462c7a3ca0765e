"""Find the names that a text defines, without a grammar: by the keyword in front of them, or the body behind.

A chunk's lexical terms follow from them: a change here needs a new `lexical_terms.ANALYZER`.
"""

from __future__ import annotations

import re

# Keywords in front of a name where it is defined.
_KEYWORDS = [
    *("class", "interface", "type", "struct", "enum", "union", "trait", "impl", "protocol", "record", "object"),
    *("def", "defp", "function", "function*", "fn", "fun", "func", "sub", "#define", "macro_rules!"),
    *("module", "defmodule", "namespace", "package"),
]
# These also name every local variable, so in counting definitions they need to begin a line.
_VARIABLES = ["const", "let", "var", "val", "static", "final"]
_DEFINERS = frozenset([*_KEYWORDS, *_VARIABLES])
# Keywords that may stand in front of "(…) {", where they are not names.
_STATEMENTS = {
    *("catch", "do", "else", "for", "foreach", "if", "lock", "match", "new", "return", "switch", "synchronized"),
    *("using", "when", "while", *_DEFINERS),
}


def _any_of(words: list[str]) -> str:
    """Return a pattern that matches one of the words at its beginning.

    They are sorted by their first letters, so that the engine dismisses most places of a text at once: twice as fast.
    """
    groups: dict[str, list[str]] = {}
    for word in sorted(words, reverse=True):  # the longer of two goes first
        groups.setdefault(word[0], []).append(re.escape(word[1:]))
    whole = (rf"{first}(?<![\w.]{first})(?:{'|'.join(rest)})" for first, rest in groups.items())
    return f"(?:{'|'.join(whole)})"


# The bounds keep the time linear in long lines.
_BY_KEYWORD = re.compile(rf"{_any_of(_KEYWORDS)}\s+(?:\([^)\n]{{0,100}}\)\s*)?([^\W\d][\w$.:]*)")
_VARIABLE = re.compile(rf"^(?:export\s+)?(?:{'|'.join(_VARIABLES)})\s+([^\W\d][\w$]*)", re.MULTILINE)
# A method without a keyword: `int size(…) {`, as in C, C++, Java, C# and JavaScript classes.
_BODY = r"\)[^\n(){};]{0,80}\n?[ \t]{0,80}\{"
_METHOD = re.compile(rf"^[^\n=(]{{0,200}}?\b([^\W\d]\w*)\s*(?:<[^\n>]{{0,80}}>)?\([^\n]{{0,300}}{_BODY}", re.MULTILINE)
_HAS_BODY = re.compile(_BODY)


def defined_names(text: str) -> list[str]:
    """Return the names that look defined; dots and colons in them are kept."""
    patterns = [_BY_KEYWORD, _VARIABLE]
    if _HAS_BODY.search(text):  # the next costs most
        patterns.append(_METHOD)
    return [name for pattern in patterns for name in pattern.findall(text) if name not in _STATEMENTS]


def defines(text: str, name: str) -> bool:
    """Return whether a defining keyword precedes `name` somewhere; cheap if none does."""
    if name not in text:
        return False
    uses = re.finditer(rf"(?<![\w$]){re.escape(name)}(?![\w$])", text)
    before = (text[max(use.start() - 40, 0) : use.start()].split() for use in uses)
    return any(words and words[-1] in _DEFINERS for words in before)
