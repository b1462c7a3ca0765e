from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from c2llm_integrations.code.gitignore import compile_pattern, read_patterns
from c2llm_integrations.code.listing import list_git, walk
from c2llm_integrations.errors import RepositoryError


def matches(line: str, path: str) -> bool:
    pattern = compile_pattern(line)
    return pattern is not None and pattern.regex.fullmatch(path) is not None


@pytest.mark.parametrize(
    ("line", "path", "expected"),
    [
        ("*.pyc", "a/b.pyc", True),
        ("/build", "build", True),
        ("/build", "a/build", False),
        ("a/*.txt", "a/b/c.txt", False),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/x/y/c", True),
        ("**/c", "c", True),
        ("a/**", "a", False),
        ("a/**", "a/b/c", True),
        ("a**c", "a/c", False),
        ("[!a]b", "cb", True),
        ("[a-c]", "b", True),
        ("[c-a]", "b", False),
        ("[]-]", "]", True),
        ("[[:digit:]]x", "7x", True),
        ("[[:nonsense:]]x", "7x", False),
        ("[a", "[a", False),
        ("\\#x", "#x", True),
        ("#x", "#x", False),
        ("x ", "x", True),
        ("x\\ ", "x ", True),
        ("x\r", "x", True),
        ("x\\", "x\\", False),
        ("", "x", False),
        ("/", "x", False),
        ("a?c", "a/c", False),
    ],
)
def test_one_pattern(line: str, path: str, expected: bool) -> None:
    assert matches(line, path) is expected


def test_an_ignore_file_that_is_a_link_or_missing_has_no_rules(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x\n")
    (tmp_path / "link").symlink_to("real")
    assert len(read_patterns(tmp_path / "real")) == 1
    assert read_patterns(tmp_path / "link") == []
    assert read_patterns(tmp_path / "missing") == []
    assert read_patterns(tmp_path / "real" / "below") == []


def test_a_byte_order_mark_is_no_part_of_the_first_pattern(tmp_path: Path) -> None:
    (tmp_path / "rules").write_bytes(b"\xef\xbb\xbfx\n")
    assert read_patterns(tmp_path / "rules")[0].regex.fullmatch("x")


def test_rules_that_cannot_be_read_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rules").write_text("x\n")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(RepositoryError, match="rules: Permission denied"):
        read_patterns(tmp_path / "rules")


FOLDERS = ("", "a", "b", "ab", "keep", "a/b", "a/keep", "b/a", "a/b/a")
FILES = ("c", "a b", "é", "x.py", "y.txt", "#h", "!n", "[z]", "-", "a\\b", "B", "ca")
PLACES = ("", "a", "a/b")
GLOBS = st.sampled_from(
    [
        *("a", "b", "ab", "c", "*", "?", "**", "*.py", "x.*", "keep", "[ab]", "[!a]", "[^b]*", "[a-b]?", "é", "??"),
        *("\\#h", "\\!n", "\\[z\\]", "[[]z]", "[]a]", "a\\ b", "a b", "[[:alpha:]]", "[[:punct:]]*", "[a-]", "[\\]]"),
        *("a*b", "**b", "[", "a\\\\b", "[!-a]", "[[:upper:]]", "*b*", "c*"),
    ]
)
LINES = st.builds(
    lambda negated, anchored, parts, folder, tail: negated + anchored + "/".join(parts) + folder + tail,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(GLOBS, min_size=1, max_size=3),
    st.sampled_from(["", "", "/"]),
    st.sampled_from(["", "", "", " ", "\r", "\\ ", "\\"]),
)
RULES = st.lists(LINES, max_size=4).map("\n".join)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ignored").resolve()
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    for folder in FOLDERS:
        (root / folder).mkdir(exist_ok=True)
        for name in FILES:
            (root / folder / name).write_text("x")
    return root


@pytest.mark.skipif(os.name != "posix", reason="names that other systems refuse")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rules=st.tuples(RULES, RULES, RULES), exclude=RULES)
@example(rules=("*\n!*/\n!*.py", "!c", ""), exclude="")
@example(rules=("a/**/b\n/a/b", "", "!x.py"), exclude="!c\nc")
@example(rules=("a\n!a/b/", "**/b", ""), exclude="keep/")
def test_the_walker_lists_what_git_lists(repo: Path, rules: tuple[str, str, str], exclude: str) -> None:
    (repo / ".git" / "info" / "exclude").write_bytes(exclude.encode())
    for place, lines in zip(PLACES, rules, strict=True):
        (repo / place / ".gitignore").write_bytes(lines.encode())
    walked = walk(repo, "", lambda path: path == ".git")
    assert walked.paths == list_git(repo, "").paths
    assert walked.unreadable == []
