"""How hits look."""

import re

import pytest

from c2llm_integrations.cli.output import MAX_SYMBOL, Origin, ShownHit, document_of, file_of, shown_hit, write_hits
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.safe_open import MAX_PATH_BYTES
from c2llm_integrations.stores.records import Hit

EVIL = "\x1b]0;owned\x07\x9b31m\u202e\r\u200b\u200d\U000e0041\ufeff"
COMMIT = "c" * 40


def hit(path="a.py", text="x = 1\n", symbol="f", start=3, end=4, repository="github.com/a/b"):
    chunk = CodeChunk("id", repository, path, "python", symbol, "function", start, end, text)
    return Hit(chunk, 0.5, {"dense": 0.25, "path": 0.25})


def look(**fields):
    return ShownHit(hit(**fields), None, None)


def test_a_pipe_gets_one_safe_line_for_each_hit(capsys):
    write_hits([look(path=f"evil\n{EVIL}.py", symbol=EVIL), look()])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "a.py:3-4\t0.5000\tf"
    assert len(lines) == 2
    assert not {char for char in EVIL if not char.isprintable()} & set(lines[0])


def test_a_line_is_bounded_whatever_a_row_says(capsys):
    write_hits([look(path="a/" * 50_000 + "x.py", symbol="S" * 50_000)])
    (line,) = capsys.readouterr().out.splitlines()
    assert len(line) < MAX_PATH_BYTES + MAX_SYMBOL + 50
    assert "…" in line
    assert "/x.py:3-4\t0.5000\tSSS" in line


def test_an_explained_hit_has_one_field_more(capsys):
    write_hits([look()], explain=True)
    assert capsys.readouterr().out == "a.py:3-4\t0.5000\tf\tdense 0.2500, path 0.2500\n"


def test_no_hits_print_nothing(capsys):
    write_hits([])
    assert capsys.readouterr().out == ""


def test_a_file_is_named_from_the_current_folder(project, monkeypatch):
    monkeypatch.chdir(project / "web")
    assert file_of(hit(path="shop/prices.py"), project) == "../shop/prices.py"
    assert file_of(hit(path="shop/prices.py"), None) is None
    assert file_of(hit(path="gone.py"), project) is None
    assert file_of(hit(path=""), project) is None


def test_a_file_that_the_system_will_not_look_at_is_not_here(project, monkeypatch):
    found = shown_hit(hit(path=f"{'a' * 300}.py"), {"github.com/a/b": Origin("id", None, project)}, context=1)
    assert (found.file, found.changed) == (None, True)

    def refuse(file):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(type(project), "is_file", refuse)  # as in a folder that may not be entered
    assert file_of(hit(path="shop/prices.py"), project) is None


@pytest.mark.parametrize("path", ["../secret.py", "link.py", "/etc/passwd"])
def test_a_row_leads_to_no_file_outside_its_checkout(path, project, tmp_path):
    (tmp_path / "secret.py").write_text("x = 1\n")
    (project / "link.py").symlink_to(tmp_path / "secret.py")
    found = shown_hit(hit(path=path, start=1, end=1), {"github.com/a/b": Origin("id", None, project)}, context=5)
    assert (found.file, found.before, found.changed) == (None, (), True)


def test_links_are_to_the_indexed_commit_where_it_is_known():
    origins = {"github.com/a/b": Origin("id", COMMIT), "shop": Origin("id", COMMIT)}
    assert shown_hit(hit(), origins).url == f"https://github.com/a/b/blob/{COMMIT}/a.py#L3-L4"
    assert shown_hit(hit(), {"github.com/a/b": Origin("id")}).url is None
    assert shown_hit(hit(repository="shop"), origins).url is None
    assert shown_hit(hit(repository="unknown"), origins).url is None


def test_lines_around_a_hit_come_from_its_unchanged_file(project, capsys):
    origins = {"github.com/a/b": Origin("id", None, project)}
    (project / "a.py").write_text("one\ntwo\n\x0cthree\nfour\nfive\nsix\n", newline="")
    found = shown_hit(hit(text="\x0cthree\nfour\n"), origins, context=1)
    assert (found.before, found.after, found.changed) == (["two\n"], ["five\n"], False)
    wide = shown_hit(hit(text="\x0cthree\nfour\n"), origins, context=99)
    assert (wide.before, wide.after) == (["one\n", "two\n"], ["five\n", "six\n"])
    write_hits([found], context=1)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[1:-1]] == ["2", "3", "4", "5"]
    assert shown[-1] == ""


@pytest.mark.parametrize("content", ["one\ntwo\nother\nfour\n", "one\n", "", "\x00\x01", None])
def test_a_changed_file_is_said_to_be_changed(content, project, capsys):
    if content is not None:
        (project / "a.py").write_text(content)
    found = shown_hit(hit(text="three\nfour\n"), {"github.com/a/b": Origin("id", None, project)}, context=2)
    assert (found.before, found.after, found.changed) == ((), (), True)
    write_hits([found], context=2)
    assert "has changed since it was indexed" in capsys.readouterr().out


def test_a_row_that_somebody_else_wrote_can_be_shown(capsys):
    found = shown_hit(hit(path="", symbol="", start=0, end=0, repository=""), {}, context=2)
    write_hits([found], context=2)
    write_hits([found])
    assert "x = 1" in capsys.readouterr().out


def test_a_terminal_shows_a_line_of_blanks_without_colors(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    colored = []
    for blanks in (1, 15_900):
        write_hits([look(path="a.c", text=f"int retry(){' ' * blanks}!\nreturn 1;\n")])
        colored.append("\x1b[94;49mreturn" in capsys.readouterr().out)
    assert colored == [True, False]


def test_the_json_document_has_these_fields_and_no_others():
    document = document_of("who?", {"model": "nano"}, [look(text=f"é{EVIL}")])
    (found,) = document["hits"]
    assert document.keys() == {"schema", "query", "model", "hits"}
    assert document["schema"] == 1
    kinds = {name: type(value) for name, value in found.items()}
    assert kinds == {
        **dict.fromkeys(("rank", "start_line", "end_line"), int),
        "score": float,
        **dict.fromkeys(("repository", "path", "language", "kind", "symbol", "text"), str),
        **dict.fromkeys(("file", "url"), type(None)),
        **dict.fromkeys(("before", "after"), list),
        "changed": bool,
        "explanation": dict,
    }
    assert found["explanation"] == {"dense": 0.25, "path": 0.25}
    documented = set(re.findall(r"`(\w+)`", document_of.__doc__))
    assert found.keys() | {"schema", "query", "model", "mode", "notes", "hits"} <= documented


SECRET = "Wn7dq4Rt2x"
SETTINGS = f"""first = 1
password = "{SECRET}"
third = 3
api_key = "q7Rk2Wd9Lm4Xc8Vb3Nz6"
fifth = 5
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        *(
            ("third = 3\n", 3),
            ("", 3),
            ("\n", 3),
            ("=", 3),
            (SECRET, 2),
            (f'password = "{SECRET}"\n', 2),
            ("[secret]", 2),
        ),
        *(("q7Rk2Wd9", 4), ("fifth = 5\n", 5)),
    ],
)
def test_lines_around_a_hit_show_no_secret_whatever_the_row_says(text, line, project):
    (project / "settings.py").write_text(SETTINGS)
    row = hit(path="settings.py", text=text, start=line, end=line)
    found = shown_hit(row, {"github.com/a/b": Origin("id", None, project)}, context=9)
    around = "".join([*found.before, *found.after])
    assert SECRET not in around
    assert "q7Rk2Wd9" not in around
    assert found.changed == (text == "")


@pytest.mark.parametrize("path", [".env", "deploy/id_rsa", ".git/config", "a/.hg/hgrc", "home/.ssh/work", "dump.sql"])
def test_no_lines_of_a_file_that_no_index_holds(path, project):
    file = project / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("A=1\nB=correct horse\nC=3\n")
    found = shown_hit(hit(path=path, text="A=1\n", start=1, end=1), {"github.com/a/b": Origin("id", None, project)}, 9)
    assert (found.before, found.after, found.changed) == ((), (), True)
