"""Which names a piece of code defines, in any language, seen by its words alone: no grammar, no whole file needed."""

from __future__ import annotations

import re

# What stands in front of a name where it is defined.
_KEYWORDS = [
    *("class", "interface", "type", "struct", "enum", "union", "trait", "impl", "protocol", "record", "object"),
    *("def", "defp", "function", "function*", "fn", "fun", "func", "sub", "#define", "macro_rules!"),
    *("module", "defmodule", "namespace", "package"),
]
# These also name every local variable, so in counting definitions they need to begin a line.
_VARIABLES = ["const", "let", "var", "val", "static", "final"]
_DEFINERS = frozenset([*_KEYWORDS, *_VARIABLES])
# What may stand in front of "(…) {" and is no name.
_STATEMENTS = frozenset(
    [
        *("catch", "do", "else", "for", "foreach", "if", "lock", "match", "new", "return", "switch", "synchronized"),
        *("using", "when", "while", *_DEFINERS),
    ]
)
# The bounds keep the time linear in long lines.
_PATTERNS = (
    re.compile(
        rf"(?<![\w.])(?:{'|'.join(map(re.escape, sorted(_KEYWORDS, reverse=True)))})\s+"
        r"(?:\([^)\n]{0,100}\)\s*)?([^\W\d][\w$.:]*)"
    ),
    re.compile(rf"^(?:export\s+)?(?:{'|'.join(_VARIABLES)})\s+([^\W\d][\w$]*)", re.MULTILINE),
    # A method without a keyword: `int size(…) {`, as in C, C++, Java, C# and JavaScript classes.
    re.compile(
        r"^[^\n=(]{0,200}?\b([^\W\d]\w*)\s*(?:<[^\n>]{0,80}>)?\([^\n]{0,300}\)[^\n(){};]{0,80}\n?[ \t]{0,80}\{",
        re.MULTILINE,
    ),
)


def defined_names(text: str) -> list[str]:
    """Return the names that look defined, those with dots or colons as they stand."""
    patterns = _PATTERNS if "{" in text else _PATTERNS[:-1]  # the last one costs most and cannot match without it
    return [name for pattern in patterns for name in pattern.findall(text) if name not in _STATEMENTS]


def defines(text: str, name: str) -> bool:
    """Return whether a keyword that defines stands right in front of `name` somewhere; cheap where it does not."""
    if name not in text:
        return False
    uses = re.finditer(rf"(?<![\w$]){re.escape(name)}(?![\w$])", text)
    before = (text[max(use.start() - 40, 0) : use.start()].split() for use in uses)
    return any(words and words[-1] in _DEFINERS for words in before)
