"""Split a file's text into the tokens of its language, in linear time whatever the text."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.special import TextLexer
from pygments.token import Text
from pygments.util import ClassNotFound

# Some lexers never come to the end of forty backslashes; these languages' do (`tests/_utils/test_highlighting.py`).
# Text of other languages has no colors.
COLORED = frozenset(
    """
    abnf bash batch bibtex c clojure clojurescript cmake coffeescript common-lisp cpp csharp css cuda dart diff docker
    elixir emacs-lisp erlang forth fortran fortranfixed fsharp gas gherkin glsl gnuplot go graphql groovy haskell hlsl
    html html+handlebars html+php ini java javascript json json5 jsx julia kotlin less literate-haskell llvm lua make
    markdown mojo mql nasm nimrod nixos objective-c objective-c++ ocaml org perl6 php powershell prolog properties
    protobuf python racket restructuredtext rhtml ruby rust sass scheme scss swift terraform tex toml tsql tsx
    typescript vb.net verilog vim vue xml xslt yaml zig
    """.split()  # noqa: SIM905
)
# Many of Pygments' patterns take quadratic time within a line, a run of blanks or a whole text: what is longer stays
# one token. A chunk has 1,500 characters, and longer lines are data.
MAX_COLORED_CHARS = 6_000
MAX_LINE_CHARS = 1_000
MAX_BLANKS = 200
# After this much processor time, the rest of a text stays one token.
MAX_SECONDS = 0.1

_BLANKS = re.compile(r"\s+")


class BoundedLexer(Lexer):  # type: ignore[misc]
    """The lexer of a file by its name, for text that somebody else wrote."""

    def __init__(self, path: str) -> None:
        """Take the file's name in `path`; a language that is not in `COLORED` is read as plain text."""
        super().__init__(stripnl=False, ensurenl=False)
        self._inner: Lexer = TextLexer(stripnl=False, ensurenl=False)
        with suppress(ClassNotFound):
            own = get_lexer_for_filename(path, stripnl=False, ensurenl=False)
            if not COLORED.isdisjoint(own.aliases):
                self._inner = own

    def get_tokens_unprocessed(self, text: str) -> Iterator[tuple[int, Any, str]]:
        """Yield where each token begins, its kind and its text; together they are the text."""
        end, deadline = 0, time.thread_time() + MAX_SECONDS
        for start, kind, value in self._inner.get_tokens_unprocessed(text) if is_short(text) else ():
            yield start, kind, value
            end = start + len(value)
            if time.thread_time() > deadline:
                break
        if end < len(text):
            yield end, Text, text[end:]


def is_short(text: str) -> bool:
    """Return whether a text, its lines and its runs of blanks are short enough for any lexer."""
    return (
        len(text) <= MAX_COLORED_CHARS
        and max(map(len, text.split("\n"))) <= MAX_LINE_CHARS
        and max(map(len, _BLANKS.findall(text)), default=0) <= MAX_BLANKS
    )
