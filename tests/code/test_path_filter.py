from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from c2llm_integrations.code.glob import GlobSet
from c2llm_integrations.code.path_filter import from_root, literal, selected, without_lines
from c2llm_integrations.errors import InputError

INDEXED = [
    *("src/app/[slug]/page.tsx", "src/app/s/page.tsx", "src/app/[...all]/route.ts", "src/a.ts", "src/deep/b.go"),
    *("#odd.py", "!important.css", "web/(group)/+page.svelte", "x{a,b}.c", "a b.py", "Main.java", "old/Main.java"),
]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("src/app/[slug]/page.tsx", ["src/app/[slug]/page.tsx"]),
        ("src/app/[slug]/", ["src/app/[slug]/page.tsx"]),
        ("[slug]", ["src/app/[slug]/page.tsx"]),
        ("src/app/[...all]/route.ts", ["src/app/[...all]/route.ts"]),
        ("src/app/[s]/page.tsx", ["src/app/s/page.tsx"]),
        ("src/a.ts:1-3", ["src/a.ts"]),
        ("src/a.ts:12:5", ["src/a.ts"]),
        ("src/a.ts#L3-L9", ["src/a.ts"]),
        ("src/a.ts(12,5)", ["src/a.ts"]),
        ("src/a.ts(12): ", ["src/a.ts"]),
        ("src/a.ts, line 12", ["src/a.ts"]),
        ("src/a.ts lines 12-14", ["src/a.ts"]),
        ("`src/a.ts`", ["src/a.ts"]),
        ("'src/app/[slug]/page.tsx:3'", ["src/app/[slug]/page.tsx"]),
        ("@src/a.ts", ["src/a.ts"]),
        (" src/a.ts\n", ["src/a.ts"]),
        ("web/(group)", ["web/(group)/+page.svelte"]),
        ("./src/a.ts", ["src/a.ts"]),
        ("/src/a.ts", ["src/a.ts"]),
        ("src\\a.ts", ["src/a.ts"]),
        ("src/**/*.{ts,go}", ["src/a.ts", "src/app/[...all]/route.ts", "src/deep/b.go"]),
        ("src/{deep,a.ts}", ["src/a.ts", "src/deep/b.go"]),
        ("#odd.py:1-1", ["#odd.py"]),
        ("!important.css", ["!important.css"]),
        ("web/(group)/+page.svelte", ["web/(group)/+page.svelte"]),
        ("x{a,b}.c", ["x{a,b}.c"]),
        ("a b.py", ["a b.py"]),
        ("Main.java", ["Main.java", "old/Main.java"]),
        ("/Main.java", ["Main.java"]),
        ("nosuch/", []),
        (".", sorted(INDEXED)),
    ],
)
def test_what_a_path_selects(path: str, expected: list[str]) -> None:
    assert selected(path, INDEXED) == expected


@pytest.mark.parametrize("path", ["", "# note", "!src", "{a,b}" * 9])
def test_what_can_select_nothing_is_refused(path: str) -> None:
    with pytest.raises(InputError, match=r"selects nothing|use fewer"):
        selected(path, INDEXED)


@pytest.mark.parametrize(
    "pattern", ["*?" * 200 + "#", "*e" * 200 + "#", "**/" * 200 + "#", "{*?,*e}" * 4 + "*e" * 99 + "#"]
)
def test_stars_do_not_multiply(pattern: str) -> None:
    assert selected(f"x/{pattern}#", [f"x/{'e' * 200}/{'deep/' * 200}end.py"]) == []


def test_lines_after_a_path() -> None:
    assert without_lines("a.py:10-20") == ("a.py", 10)
    assert without_lines("a.py#L7") == ("a.py", 7)
    assert without_lines("a.py(12,3)") == ("a.py", 12)
    assert without_lines("a.py, line 12") == ("a.py", 12)
    assert without_lines("web/(12)/a.py") == ("web/(12)/a.py", None)
    assert without_lines(":7") == (":7", None)
    assert literal("./src/a.ts:2", INDEXED) == "src/a.ts"
    assert literal("src", INDEXED) is None


def test_a_path_as_it_is_seen_from_a_folder(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    (root / "pkg" / "[id]").mkdir(parents=True)
    (root / "pkg" / "[id]" / "a.ts").touch()
    here = root / "pkg"
    assert from_root("[id]/a.ts:1-2", root, here) == "/pkg/[id]/a.ts"
    assert from_root(str(here / "*.ts"), root, here) == "/pkg/*.ts"
    assert from_root("../other/x.py", root, here) == "/other/x.py"
    assert from_root(f"'{here / 'x.py'}:3'", root, here) == "/pkg/x.py"
    assert from_root("`./x.py(3,5)`", root, here) == "/pkg/x.py"
    assert from_root("@[id]/a.ts", root, here) == "/pkg/[id]/a.ts"
    assert from_root('"../../outside.py"', root, here) is None
    assert from_root("..", root, here) == "/"
    assert from_root("../../outside.py", root, here) is None
    assert from_root("src/*.py", root, here) is None
    assert from_root("\0", root, here) is None


@pytest.mark.parametrize(
    "url", ["file://{}/%5Bid%5D/a%20b.ts", "file://localhost{}/[id]/a b.ts", "file://{}/x/../%5bid%5d/a b.ts#L3"]
)
def test_a_file_url_is_a_path(url, tmp_path):
    assert from_root(url.format(tmp_path), tmp_path, tmp_path) == "/[id]/a b.ts"
    assert from_root(url.format("/elsewhere"), tmp_path, tmp_path) is None


@pytest.mark.parametrize("path", ["{" + "," * 60_000, "{" * 100_000, "a" * 10**7, "../" * 10**5, "[" * 5_000])
def test_a_longer_path_than_any_is_refused_before_it_is_read(path: str) -> None:
    with pytest.raises(InputError, match="characters, at most 4,096 are read"):
        selected(path, INDEXED)


def test_a_row_of_a_longer_path_than_an_index_has_is_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    real = GlobSet.advance
    monkeypatch.setattr(GlobSet, "advance", lambda *about: (looked.append(about[2]), real(*about))[1])
    rows = ["a/" * 20_000 + "x.py", "a/" * 300 + "x.py", "a" * 5000 + ".py", "a/" * 200 + "x.py"]
    assert selected("*.py", rows) == rows[-1:]
    assert selected("a/", rows) == rows[-1:]
    assert len("".join(looked)) == 2 * len(rows[-1]) + len("a/")  # "*.py" as a name, then as a pattern


def test_the_folders_above_deep_paths_are_not_all_kept():
    paths = [f"{number}/{'/'.join(['d' * 14] * 250)}/x.py" for number in range(200)]  # 100 MB of folders
    tracemalloc.start()
    try:
        assert selected("nowhere/*.py", paths) == []
        assert selected("7/**/x.py", paths) == paths[7:8]
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_what_is_beside_a_folder_in_the_order_of_names_does_not_hide_it():
    indexed = ["a-b/x.py", "a/b-c/x.py", "a/b.py", "a/b/c/x.py", "a/b/x.py", "a/x.py"]
    assert selected("a/b/", indexed) == ["a/b/c/x.py", "a/b/x.py"]
    assert selected("/a/", indexed[::-1]) == indexed[1:]
    assert selected("b", indexed) == ["a/b/c/x.py", "a/b/x.py"]


def test_a_letter_beyond_ascii_is_one_character():
    assert selected("?[à-ü].md", ["aé.md", "éé.md", "é.md", "中x.md"]) == ["aé.md", "éé.md"]


ODD = ["src/a.ts", "src/a b.ts", "src/[id]/p.tsx", "caf\u00e9.py", "docs/\u0436.md", "x.py", "t/test_x.py", "a.ts"]


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("src/a.ts:L3-L9", "src/a.ts"),
        ("src/a.ts:3\u20135", "src/a.ts"),
        ("src/a.ts:3..5", "src/a.ts"),
        ("src/a.ts (lines 3 to 5)", "src/a.ts"),
        ("src/a.ts?plain=1#L3", "src/a.ts"),
        ("t/test_x.py::TestA::test_b[1-2]", "t/test_x.py"),
        ("b/src/a.ts", "src/a.ts"),
        ("src/a%20b.ts", "src/a b.ts"),
        ("src/%5Bid%5D/p.tsx", "src/[id]/p.tsx"),
        ("docs/%D0%B6.md", "docs/\u0436.md"),
        ("cafe\u0301.py", "caf\u00e9.py"),
        ("src/./x/..//a.ts", "src/a.ts"),
        ("[a.ts](src/a.ts#L3)", "src/a.ts"),
        ("- **src/a.ts**", "src/a.ts"),
        ("“src/a.ts”", "src/a.ts"),
        ("<src/a b.ts>,", "src/a b.ts"),
        ("src/a.ts.", "src/a.ts"),
        ("file:src/a.ts", "src/a.ts"),
        ("https://github.com/acme/app/blob/main/src/a.ts#L3", "src/a.ts"),
        ("https://codeberg.org/acme/app/src/branch/main/src/a.ts", "src/a.ts"),
    ],
)
def test_a_path_in_whatever_surrounds_it(written, path):
    assert selected(written, ODD) == [path]
    assert literal(written, ODD) == path


@pytest.mark.parametrize("other", ["*/x.py", "y/x.py", "src/a.tsx", "src/a.ts.map", "x.py/b", "src/nosuch.ts"])
def test_a_path_that_only_begins_or_ends_like_another_is_not_that(other):
    assert selected(other, ODD) == []
    assert literal(other, ODD) is None


@pytest.mark.parametrize("pattern", ["test*.py", "test*/", "test?.py", "test??", "test**/a", "test/"])
def test_a_pattern_that_finds_nothing_is_not_the_file_that_it_begins_with(pattern):
    assert selected(pattern, ["test"]) == []
    assert selected("**test**", ["test"]) == selected("test?", ["test"]) == ["test"]


def test_only_a_diff_has_a_folder_that_is_not_there():
    assert selected("a/x.py", ODD) == ["x.py"]
    assert selected("a/x.py", [*ODD, "a/y.py"]) == []


@pytest.mark.parametrize("url", ["vscode://file{}/[id]/a.ts:3:1", "cursor://file/{}/[id]/a.ts", "FILE:{}/[id]/a.ts"])
def test_what_opens_a_file_in_an_editor_is_its_path(url, tmp_path):
    assert from_root(url.format(tmp_path), tmp_path, tmp_path / "sub") == "/[id]/a.ts"


def test_a_path_below_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert from_root("~/src/a.ts:3", tmp_path, tmp_path / "sub") == "/src/a.ts"
