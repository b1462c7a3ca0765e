from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
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


NAMES = st.sampled_from(["a", "b", "ab", "a b", "é", "x.py", "y.txt", "#h", "!n", "[z]", "keep", "-", "a\\b", "B"])
FOLDERS = st.lists(NAMES.filter(lambda name: "." not in name), max_size=3).map("/".join)
GLOBS = st.sampled_from(
    [
        *("a", "b", "ab", "*", "?", "**", "*.py", "x.*", "keep", "[ab]", "[!a]", "[^b]*", "[a-b]?", "é", "??", "\\#h"),
        *(
            "\\!n",
            "\\[z\\]",
            "[[]z]",
            "[]a]",
            "a\\ b",
            "a b",
            "[[:alpha:]]",
            "[[:punct:]]*",
            "[a-]",
            "[\\]]",
            "a*b",
            "**b",
        ),
        *("[", "a\\\\b", "[!-a]", "[[:upper:]]"),
    ]
)
LINES = st.builds(
    lambda negated, anchored, parts, folder, tail: negated + anchored + "/".join(parts) + folder + tail,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(GLOBS, min_size=1, max_size=3),
    st.sampled_from(["", "", "/"]),
    st.sampled_from(["", "", " ", "\r", "\\ ", "\\"]),
)
TREES = st.dictionaries(
    st.tuples(FOLDERS, NAMES).map(lambda pair: "/".join(filter(None, pair))), st.none(), min_size=1, max_size=12
)
RULES = st.dictionaries(FOLDERS, st.lists(LINES, min_size=1, max_size=4), max_size=3)


@settings(max_examples=40, deadline=None)
@given(TREES, RULES, st.lists(LINES, max_size=2))
def test_the_walker_lists_what_git_lists(
    tree: dict[str, None], rules: dict[str, list[str]], exclude: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        subprocess.run(["git", "init", "-q", str(root)], check=True)
        (root / ".git" / "info" / "exclude").write_bytes("\n".join(exclude).encode())
        for path in tree:
            write(root / path, b"x")
        for place, lines in rules.items():
            write(root / place / ".gitignore", "\n".join(lines).encode())
        walked = walk(root, "", lambda path: path == ".git")
        assert walked.paths == list_git(root, "").paths
        assert walked.unreadable == []


def write(path: Path, data: bytes) -> None:
    try:
        os.makedirs(path.parent, exist_ok=True)
        path.write_bytes(data)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        pass  # one path is a folder of another: the tree is a little smaller
