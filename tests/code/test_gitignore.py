from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from c2llm_integrations.code import gitignore
from c2llm_integrations.code.gitignore import MAX_WILDCARDS, Rules, read_rules
from c2llm_integrations.code.glob import Glob, GlobSet
from c2llm_integrations.code.listing import list_files
from c2llm_integrations.code.repository import open_tree
from c2llm_integrations.errors import RepositoryError


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
        ("*a*b*c", "a/xaxbxbc", True),
        ("a/**/x*/**/c", "a/b/xx/y/xz/c", True),
        ("**/a/**/b", "b/a/a/c", False),
        ("*?" * 500 + "#", "e" * 999, False),
        ("**/*e" * 300 + "#", "e/" * 299 + "e", False),
        ("x" * 5000, "x" * 5000, False),
    ],
)
def test_one_pattern(line: str, path: str, expected: bool) -> None:
    assert (Rules(line.encode()).says(path, is_folder=True) is not None) is expected


def test_an_ignore_file_that_is_a_link_or_missing_has_no_rules(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x\n")
    (tmp_path / "link").symlink_to("real")
    assert len(read_rules(tmp_path, "real")) == 1
    for without in ("link", "missing", "real/below"):
        assert len(read_rules(tmp_path, without)) == 0


def test_a_byte_order_mark_is_no_part_of_the_first_pattern(tmp_path: Path) -> None:
    (tmp_path / "rules").write_bytes(b"\xef\xbb\xbfx\n")
    assert read_rules(tmp_path, "rules").says("x", is_folder=False)


def test_rules_that_cannot_be_read_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rules").write_text("x\n")

    def refuse(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(gitignore, "read_inside", refuse)
    with pytest.raises(RepositoryError, match="rules: Permission denied"):
        read_rules(tmp_path, "rules")


NAMES = (".gitignore", ".c2llmignore")
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


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="names that other systems refuse")
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rules=st.tuples(RULES, RULES, RULES), exclude=RULES)
@example(rules=("*\n!*/\n!*.py", "!c", ""), exclude="")
@example(rules=("a/**/b\n/a/b", "", "!x.py"), exclude="!c\nc")
@example(rules=("a\n!a/b/", "**/b", ""), exclude="keep/")
def test_the_walker_lists_what_git_lists(repo: Path, rules: tuple[str, str, str], exclude: str) -> None:
    (repo / ".git" / "info" / "exclude").write_bytes(exclude.encode())
    for place, lines in zip(PLACES, rules, strict=True):
        (repo / place / ".gitignore").write_bytes(lines.encode())
    listing = list_files(repo, "", lambda path: path == ".git")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=repo, capture_output=True, check=True).stdout
    assert listing.paths == sorted({os.fsdecode(path) for path in listed.split(b"\0")[:-1]})
    assert listing.unreadable == listing.notes == []


@pytest.mark.parametrize(
    "text",
    ["a\n" * 20_000, "*?" * 4000, "**/a/" * 3000 + "b", "*a*b\n" * 2000, "[!a-y]*\n" * 2000, "*\n!*\n" * 2500],
    ids=["literals", "stars", "folders", "middles", "classes", "negations"],
)
def test_a_byte_of_a_path_costs_one_step_whatever_the_patterns(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    reached = GlobSet._reached
    monkeypatch.setattr(GlobSet, "_reached", lambda *args: steps.append(1) or reached(*args))
    rules = Rules(text.encode())
    assert rules.globs.start.bit_length() <= rules.globs.size <= MAX_WILDCARDS
    rules.says("a/" * 100 + "abc", is_folder=False)
    assert len(steps) <= 1 + 203


def test_the_last_of_many_patterns_decides() -> None:
    lines = [
        f"{'!' * (number % 2)}{name}" for number, name in enumerate(["a.py", "*.py", "/d/a.py", "?.py", "a.*", "d/"])
    ]
    for count in range(1, len(lines) + 1):
        said = Rules("\n".join(lines[:count]).encode()).says("d/a.py", is_folder=False)
        assert said is (min(count, 5) % 2 == 1)


@pytest.mark.parametrize("place", [".gitignore", "a/.gitignore", "a/.c2llmignore", ".git/info/exclude"])
def test_more_wildcards_than_are_followed_are_told(tmp_path: Path, place: str) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.py").write_text("x = 1\n")
    (tmp_path / place).write_text("*.x\n" * 3000)
    assert "a/b.py" in open_tree(tmp_path).files
    (tmp_path / place).write_text("*.x\n" * 6000)
    with pytest.raises(RepositoryError, match=r"30,000 characters of ignore patterns with wildcards apply to .*16,384"):
        open_tree(tmp_path)


def test_ignore_files_above_one_another_count_together(tmp_path: Path) -> None:
    for folder in ("", "a", "a/b", "c"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / ".gitignore").write_text(f"x\n#{'-' * 800_006}\n")
        (tmp_path / folder / "f.py").write_text("x = 1\n")
    with pytest.raises(RepositoryError, match=r"2,400,030 bytes of ignore files apply to .*/a/b, at most 2,097,152"):
        open_tree(tmp_path)
    (tmp_path / "a" / "b" / ".gitignore").unlink()
    assert {"a/b/f.py", "c/f.py"} <= set(open_tree(tmp_path).files)


def test_no_ignore_file_is_read_for_each_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(gitignore, "read_rules", lambda root, path: read.append(path) or read_rules(root, path))
    folders = ["", *("/".join(["d"] * depth) for depth in range(1, 100)), *(f"e{number}" for number in range(50))]
    for folder in folders:
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in ("a.py", "z.py"):
            (tmp_path / folder / name).write_text("x = 1\n")
    assert len(open_tree(tmp_path).files) == 2 * len(folders)
    assert set(read) == {f"{folder}/{name}".lstrip("/") for folder in folders for name in NAMES}
    assert max(Counter(read).values()) <= 2  # when folders are listed, and when their files are judged


def test_paths_of_any_characters_are_matched_in_linear_time() -> None:
    """Each character was compared with each class, which took a millisecond; a few names hold a million of them."""
    classes = [f"[{chr(0x4E00 + 2 * at)}-{chr(0x4E01 + 2 * at)}]x" for at in range(2700)]
    globs = [Glob.parse(one) for one in classes]
    matched = GlobSet([(one.tokens() or (), one.folders_only) for one in globs if one])
    path = "".join(map(chr, range(0x10000, 0x10000 + 20_000)))
    start = time.thread_time()
    assert matched.last(matched.advance(matched.start, path), False) is None
    assert time.thread_time() - start < 5  # it takes a fiftieth of a second, and took 19
    for at in (0, 1, 2, 5399):
        state = matched.advance(matched.start, f"{chr(0x4E00 + at)}x")
        assert matched.last(state, False) == at // 2
    assert matched.last(matched.advance(matched.start, f"{chr(0x4E00 + 5400)}x"), False) is None
