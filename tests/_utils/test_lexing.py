"""Colors: the tokens of Pygments, but never a text that its patterns could take long for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pygments.lexers import get_lexer_for_filename
from pygments.token import Text

from c2llm_integrations._utils import lexing
from c2llm_integrations._utils.lexing import BoundedLexer

CODE = "/* retry */\nint wait(int n) {\n    return n << 2;\n}\n"


@pytest.mark.parametrize("path", ["a.c", "src/a.py", "a.js", "Makefile"])
def test_ordinary_code_has_the_tokens_of_its_language(path):
    own = get_lexer_for_filename(path, stripnl=False, ensurenl=False)
    assert list(BoundedLexer(path).get_tokens_unprocessed(CODE)) == list(own.get_tokens_unprocessed(CODE))


@pytest.mark.parametrize("more", [" " * 201, " \n" * 101, "\n" * 15_900, "a" * 1_001, "x = 1\n" * 1_001])
def test_a_text_that_could_take_long_is_one_token(more):
    text = CODE + more
    assert list(BoundedLexer("a.c").get_tokens_unprocessed(text)) == [(0, Text, text)]


def test_what_is_left_after_the_time_is_one_token(monkeypatch):
    monkeypatch.setattr(lexing, "MAX_SECONDS", -1)
    tokens = list(BoundedLexer("a.py").get_tokens_unprocessed("def wait(n):\n    return n\n"))
    assert [value for *_, value in tokens] == ["def", " wait(n):\n    return n\n"]


@given(st.sampled_from(["a.c", "a.py", "a.html", "a.unknown", ""]), st.text())
def test_the_tokens_are_the_text(path, text):
    assert "".join(value for *_, value in BoundedLexer(path).get_tokens_unprocessed(text)) == text
