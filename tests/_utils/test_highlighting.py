"""Colors: the tokens of Pygments, but never a text that its patterns could take long for."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pygments.lexers import get_lexer_for_filename
from pygments.token import Text

from c2llm_integrations._utils import highlighting
from c2llm_integrations._utils.highlighting import BoundedLexer

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
    monkeypatch.setattr(highlighting, "MAX_SECONDS", -1)
    tokens = list(BoundedLexer("a.py").get_tokens_unprocessed("def wait(n):\n    return n\n"))
    assert [value for *_, value in tokens] == ["def", " wait(n):\n    return n\n"]


@given(st.sampled_from(["a.c", "a.py", "a.html", "a.unknown", ""]), st.text())
def test_the_tokens_are_the_text(path, text):
    assert "".join(value for *_, value in BoundedLexer(path).get_tokens_unprocessed(text)) == text


def test_a_language_whose_lexer_may_never_end_has_no_colors():
    text = 'echo "' + "\\" * 200 + "\n"
    for path in ("a.fish", "a.scala", "a.factor"):
        assert list(BoundedLexer(path).get_tokens_unprocessed(text)) == [(0, Text, text)]


UNITS = [
    *(
        "\\",
        "\\\\",
        "\\a",
        '\\"',
        "a",
        "aA",
        "0",
        "_",
        " ",
        "/",
        "*",
        "(",
        "[",
        "{",
        "<",
        "#",
        "@",
        "$",
        ".",
        ",",
        "=",
        "-",
    ),
    *(
        "a ",
        "a.",
        "a:",
        "::",
        "${",
        "$(",
        "<a ",
        '""',
        "''",
        "``",
        "/*",
        "\n",
        "a\n",
        " \n",
        "\\\n",
        "0_",
        "1e",
        "|",
        "=>",
    ),
]
BEFORE = ["", '"', "'", "`", "/*", "(", "<a b=", "r'", '$"', "#", "%", "{"]
PROGRAM = f"""
from pygments.lexers import get_lexer_by_name
from c2llm_integrations._utils.highlighting import COLORED
for name in sorted(COLORED):
    lexer = get_lexer_by_name(name, stripnl=False, ensurenl=False)
    for before in {BEFORE!r}:
        for unit in {UNITS!r}:
            print(name, repr(before), repr(unit), flush=True)
            assert list(lexer.get_tokens_unprocessed(before + 36 * unit + "!\\n"))
"""


@pytest.mark.slow
def test_the_colored_languages_have_no_pattern_that_doubles_its_time_with_each_character():
    """Steps that double 36 times would take years; all of these take seconds."""
    command = [sys.executable, "-W", "error::SyntaxWarning", "-c", PROGRAM]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"no end of {bytes(error.stdout or b'').splitlines()[-1]!r}")
    assert done.returncode == 0, done.stderr
