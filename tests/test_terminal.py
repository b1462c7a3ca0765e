"""What reaches a terminal, a pipe or a reader of JSON."""

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.ingest import IngestReport
from c2llm_integrations.stores.base import Hit
from c2llm_integrations.terminal import (
    clean,
    file_of,
    hits_document,
    one_line,
    problems,
    report_lines,
    status_lines,
    write_hits,
    write_json,
)

EVIL = "\x1b]0;owned\x07\x9b31m\u202e\r"


def hit(path: str = "a.py", text: str = "x = 1\n", symbol: str = "f") -> Hit:
    return Hit(CodeChunk("id", "repo", path, "python", symbol, "function", 3, 4, text), 0.5)


@given(st.text())
def test_nothing_that_steers_a_terminal_is_left(text):
    left = {char for char in clean(text) if unicodedata.category(char) == "Cc"}
    assert left <= {"\n", "\t"}
    assert not {"\u202e", "\u2066", "\u2069"} & set(clean(text))


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs"])))
def test_ordinary_text_stays_as_it_is(text):
    assert clean(text) == text


def test_windows_line_ends_are_line_ends():
    assert clean("a\r\nb") == "a\nb"


@given(st.text())
def test_one_line_is_one_field_of_one_line(text):
    assert not {"\n", "\t"} & set(one_line(text))


def test_spaces_in_a_name_stay():
    assert one_line("two  spaces.py") == "two  spaces.py"


def test_a_pipe_gets_one_safe_line_for_each_hit(capsys):
    write_hits([hit(path=f"evil\n{EVIL}.py", symbol=EVIL), hit()], {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "a.py:3-4\t0.5000\tf"
    assert len(lines) == 2
    assert not {char for char in EVIL if not char.isprintable()} & set(lines[0])


def test_no_hits_print_nothing(capsys):
    write_hits([], {})
    assert capsys.readouterr().out == ""


def test_a_file_is_named_from_the_current_folder(project, monkeypatch):
    monkeypatch.chdir(project / "web")
    found = hit(path="shop/prices.py")
    assert file_of(found, {"repo": project}) == "../shop/prices.py"
    assert file_of(found, {"other": project}) is None
    assert file_of(hit(path="gone.py"), {"repo": project}) is None


def test_json_is_ascii_and_complete(capsys):
    document = hits_document("who?", "nano", [hit(text=f"é{EVIL}")], {})
    write_json(document)
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert not set("\x1b\x07\r") & set(printed)
    assert json.loads(printed) == document
    assert set(document["hits"][0]) == {
        *("rank", "score", "repository", "path", "file", "start_line", "end_line"),
        *("language", "kind", "symbol", "text"),
    }


def test_a_report_names_what_was_skipped_and_shortens_long_lists():
    skipped = {"secret": [".env"], "binary": [f"{name}.png" for name in "abcdefg"]}
    report = IngestReport("repo", files=2, chunks=3, tokens=100, seconds=2.0, written=3, skipped=skipped, cut=1)
    text = "\n".join(report_lines(report, planned=False))
    assert "repo: 2 files, 3 chunks in 2.0 s" in text
    assert "embedded 100 tokens, 50 a second" in text
    assert "skipped 1 (secret): .env" in text
    assert "skipped 7 (binary): a.png, b.png, c.png, d.png, e.png, …" in text
    assert "cut 1 chunks" in text
    assert "would be written 3" in "\n".join(report_lines(report, planned=True))


def test_what_was_refused_or_unreadable_is_a_problem():
    report = IngestReport("repo", refused={"id": "a.py:1-2: NaN"}, skipped={"unreadable": ["b.py"], "binary": ["c"]})
    assert problems(report) == ["refused: a.py:1-2: NaN", "unreadable: b.py"]
    assert problems(IngestReport("repo", skipped={"binary": ["c"]})) == []


def test_status_says_where_a_repository_lies_or_that_it_is_elsewhere():
    document = {"store": "url", "collection": "code", "model": "nano", "width": 8, "rows": 3}
    here = {"repository": "a", "rows": 1, "checkout": "f00", "folder": "/src/a"}
    elsewhere = {"repository": "b", "rows": 2, "checkout": "ba5", "folder": None}
    lines = status_lines({**document, "repositories": [here, elsewhere]})
    assert lines[-2].endswith("a: 1 rows from /src/a")
    assert lines[-1].endswith("b: 2 rows from checkout ba5, not here")
