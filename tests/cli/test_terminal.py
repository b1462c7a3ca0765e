"""What reaches a terminal, a pipe or a reader of JSON."""

import io
import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations._utils.printable import clean, one_line
from c2llm_integrations.cli.terminal import agreed, say, write_json


@given(st.text())
def test_nothing_that_steers_a_terminal_is_left(text):
    left = {char for char in clean(text) if unicodedata.category(char) == "Cc"}
    assert left <= {"\n", "\t"}
    assert not {"\u202e", "\u2066", "\u2069"} & set(clean(text))


UNSEEN = "".join(map(chr, (0x200B, *range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF)))
TAGS = "".join(map(chr, range(0xE0000, 0xE0080)))


def test_what_nobody_would_see_is_shown():
    """Tags say to an agent what its user does not see; code that is turned around reads as other code."""
    for char in UNSEEN + TAGS:
        assert clean(f"a{char}b") == one_line(f"a{char}b") == "a\N{REPLACEMENT CHARACTER}b"


def test_joiners_stay_in_text_and_show_in_names():
    """Persian is written with one, families of emoji with the other."""
    for char in "\u200c\u200d":
        assert clean(f"a{char}b") == f"a{char}b"
        assert one_line(f"a{char}b") == "a\N{REPLACEMENT CHARACTER}b"


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs"])))
def test_ordinary_text_stays_as_it_is(text):
    assert clean(text) == text


def test_windows_line_ends_are_line_ends():
    assert clean("a\r\nb") == "a\nb"


@given(st.text())
def test_one_line_is_one_field_of_one_line(text):
    assert not {"\n", "\t", "\u2028", "\u2029"} & set(one_line(text))
    assert len(one_line(f"{text}\u2028{text}").splitlines()) <= 1


def test_spaces_in_a_name_stay():
    assert one_line("two  spaces.py") == "two  spaces.py"


def test_what_is_said_is_one_line_beside_the_answer(capsys):
    say("a\nb\x1b[31m")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "a b\N{REPLACEMENT CHARACTER}[31m\n")


@given(st.text())
def test_json_is_ascii_and_complete(text):
    old, sys.stdout = sys.stdout, io.StringIO()
    try:
        write_json({"text": text})
        printed = sys.stdout.getvalue()
    finally:
        sys.stdout = old
    assert printed.isascii()
    assert not set("\x1b\x07\r") & set(printed)
    assert json.loads(printed) == {"text": text}


@pytest.mark.parametrize(
    ("said", "meant"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False), ("yep\n", False)]
)
def test_only_yes_is_yes(said, meant, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    assert agreed("drop\nit?") is meant
    assert capsys.readouterr().err == "drop it? [y/N] "
