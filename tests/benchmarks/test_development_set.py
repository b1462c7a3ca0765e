import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from benchmarks.development_set import scoring
from benchmarks.development_set.archives import Package, fetch, listed, read_tree, write_tree
from benchmarks.development_set.code import error, filled, symbol
from benchmarks.development_set.documentation import behavior, central, changelog, sentence
from benchmarks.development_set.languages import definitions
from benchmarks.development_set.questions import (
    EACH,
    QUESTIONS,
    SPLITS,
    Question,
    draw,
    read,
    splits,
    unanswerable,
    vocabulary,
)
from benchmarks.development_set.scoring import Scored, none_auc, table
from benchmarks.nano_recipe.corpus import allowed
from benchmarks.repositories import PACKAGES as TUNED_ON
from benchmarks.repositories import UNSEEN

CORPUS = Path(__file__).parents[2] / "c2llm_integrations" / "model" / "nano" / "corpus.tsv"
TREE = {
    "shop/prices.py": '''"""Everything that is paid in cents."""


def with_tax(cents, rate):
    """Add what the state wants to a net amount.

    More about it.
    """
    if rate < 0:
        raise ValueError(f"the rate of a tax is {rate}, must be positive")
    return cents


def prices(cents):
    """Return the prices of all things in a shop."""
'''
    + "\n" * 30,
    "web/retry.js": """/**
 * Waits longer after each failure that is seen.
 * @param attempt
 */
export function retryDelay(attempt) {
  throw new Error("never try again after " + attempt);
}
""",
    "docs/tax.rst": "Money and the state\n===================\n\nThis page explains how taxes are added.\n\n"
    ".. automodule:: shop.prices\n",
    "CHANGES.md": "# 1.1\n\n- `with_tax` now rounds half a cent to the even side (#12)\n- Faster\n",
    "tests/test_prices.py": 'def test_tax():\n    """Check that all taxes are added up once."""\n',
}
PACKAGE = Package("pypi:shop=1.0", "python", "shop-1.0.tar.gz", "0" * 64)


def test_behavior_asks_for_the_first_sentence() -> None:
    found = {one.question: one for one in behavior(TREE)}
    assert set(found) == {"Add what the state wants to a net amount", "Waits longer after each failure that is seen"}
    assert found["Add what the state wants to a net amount"].removed == "shop/prices.py:5-8"
    assert found["Waits longer after each failure that is seen"].line == 5


@pytest.mark.parametrize(
    ("path", "text", "question"),
    [
        ("a.go", "// Dial opens one way to a far machine.\nfunc Dial() {}\n", "opens one way to a far machine"),
        (
            "a.rs",
            "/// Opens one way to a far machine.\n#[inline]\npub fn dial() {}\n",
            "Opens one way to a far machine",
        ),
        (
            "a.c",
            "/* Opens one way to a far machine. */\nstatic int\ndial(int x)\n{\n}\n",
            "Opens one way to a far machine",
        ),
        (
            "a.cs",
            "/// <summary>Opens one way to a far one</summary>\npublic class Dial {\n}\n",
            "Opens one way to a far one",
        ),
        (
            "a.lua",
            "--- Opens one way to a far machine.\nlocal function dial(x)\nend\n",
            "Opens one way to a far machine",
        ),
        ("a.hs", "-- | Opens one way to a far machine.\ndial :: Int -> Int\n", "Opens one way to a far machine"),
        ("a.rb", "# Opens one way to a far machine\ndef dial\nend\n", "Opens one way to a far machine"),
    ],
)
def test_behavior_reads_each_language(path: str, text: str, question: str) -> None:
    assert [one.question for one in behavior({path: text})] == [question]


@pytest.mark.parametrize(
    "comment",
    ["Too short.", "Copyright 2020 by all who wrote this", "See also the other one over there", "x = {a: 1} = b"],
)
def test_sentence_refuses_junk(comment: str) -> None:
    assert sentence(comment) == ""


def test_central_asks_pages_and_heads_for_their_module() -> None:
    found = {one.question: one for one in central(TREE)}
    assert set(found) == {
        "Money and the state: This page explains how taxes are added",
        "Everything that is paid in cents",
    }
    page = found["Money and the state: This page explains how taxes are added"]
    assert (page.path, page.removed) == ("shop/prices.py", "docs/tax.rst:1-7")


def test_changelog_masks_the_symbol() -> None:
    (found,) = changelog(TREE)
    assert (found.question, found.path) == ("it now rounds half a cent to the even side", "shop/prices.py")
    assert found.removed == "CHANGES.md:1-5"


def test_error_fills_its_placeholders_alike_for_a_seed() -> None:
    found = {one.path: one for one in error(TREE, "0")}
    assert found["shop/prices.py"].question.startswith("the rate of a tax is ")
    assert "{" not in found["shop/prices.py"].question
    assert found["web/retry.js"].line == 6
    assert filled("%d of %s", "a") == filled("%d of %s", "a") != filled("%d of %s", "b")


def test_symbol_is_whole_or_a_unique_part() -> None:
    tree = {"a.py": "def load_user_table(): ...\ndef load_user_index(): ...\n", "b.py": "def drop_user_index(): ...\n"}
    assert {(one.question, one.path) for one in symbol(tree)} == {
        ("drop_user_index", "b.py"),
        ("load user", "a.py"),
        ("load_user_table", "a.py"),
    }


def test_definitions_count_lines_from_one() -> None:
    assert list(definitions("a.py", "\n\nclass Shop:\n    def sell(self): ...\n")) == [("Shop", 3), ("sell", 4)]


def test_none_comes_from_another_family_and_the_same_split() -> None:
    other = Package("npm:web=1.0", "javascript", "web-1.0.tgz", "0" * 64)
    asked = [
        Question("web", "error", "javascript", "the socket hung", ["a.js"], ["a.js:1-1"], "tune", []),
        Question("web", "error", "javascript", "with tax", ["a.js"], ["a.js:1-1"], "tune", []),
        Question("shop", "symbol", "python", "with_tax", ["a.py"], ["a.py:1-1"], "tune", []),
    ]
    known = {"shop": vocabulary(TREE), "web": vocabulary({})}
    found = unanswerable({"shop": PACKAGE, "web": other}, known, asked, seed=0)
    assert [(one.package, one.question, one.files) for one in found] == [
        ("shop", "the socket hung", []),
        ("web", "with_tax", []),
    ]


def test_draw_repeats_and_what_it_removes_is_gone(tmp_path: Path) -> None:
    drawn = draw(PACKAGE, TREE, "tune", seed=0)
    assert drawn == draw(PACKAGE, TREE, "tune", seed=0)
    assert {one.kind for one in drawn} == {"behavior", "central", "changelog", "error", "symbol"}
    write_tree(TREE, {span for one in drawn for span in one.removed}, tmp_path)
    prices = (tmp_path / "shop/prices.py").read_text()
    assert "what the state wants" not in prices
    assert prices.count("\n") == TREE["shop/prices.py"].count("\n")
    compile(prices, "prices.py", "exec")
    assert not (tmp_path / "CHANGES.md").read_text().strip()


def test_archives_are_pinned_and_read_without_vendored_files(tmp_path: Path) -> None:
    (tmp_path / "archives").mkdir()
    archive = tmp_path / "archives" / PACKAGE.file
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("shop-1.0/shop/a.py", "shop-1.0/vendor/b.py", "shop-1.0/c.json"):
            member = tarfile.TarInfo(name)
            member.size = 6
            tar.addfile(member, io.BytesIO(b"x = 1\n"))
    assert read_tree(archive) == {"shop/a.py": "x = 1\n"}
    with pytest.raises(SystemExit, match=f"has SHA-256 [0-9a-f]+, but {PACKAGE.sha256} is pinned"):
        fetch(PACKAGE, tmp_path)
    right = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert fetch(Package(PACKAGE.source, "python", PACKAGE.file, right), tmp_path) == archive


def test_archives_with_ways_out_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../../a.py"))
    with pytest.raises(tarfile.OutsideDestinationError):
        read_tree(tmp_path / "bad.tar")


def test_committed_questions_are_of_packages_nobody_tuned_for() -> None:
    rows = [json.loads(line) for line in QUESTIONS.read_text().splitlines()]
    of = splits(listed(), seed=0)
    taught = {line.split("=")[0].partition(":")[2].lower() for line in CORPUS.read_text().splitlines()}
    assert {row["package"]: row["split"] for row in rows} == of
    assert len(of) >= 40
    assert not of.keys() & {*TUNED_ON, *UNSEEN, *taught}
    assert all(allowed(name, "") for name in of)
    assert QUESTIONS.stat().st_size < 1_500_000
    for split in SPLITS:
        for questions in read(split).values():
            kinds = [one.kind for one in questions]
            assert max(map(kinds.count, kinds)) <= EACH
            assert all(bool(one.files) == (one.kind != "none") for one in questions)


def test_read_refuses_an_unknown_split() -> None:
    with pytest.raises(SystemExit, match="no split 'test'; choose one of tune, choose, report"):
        read("test")


def test_a_file_beside_the_top_folder_is_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for name in ("Makefile", "top/src/main.cs"):
            text = b"class A {\n}\n"
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    assert list(read_tree(tmp_path / "a.tar.gz")) == ["src/main.cs"]


def test_a_package_that_the_registry_has_no_more_is_told_and_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(package: Package, work: Path) -> Path:
        raise SystemExit(f"{package.source} did not bring it")

    monkeypatch.setattr(scoring, "read", lambda split: {PACKAGE.name: []})
    monkeypatch.setattr(scoring, "listed", lambda: [PACKAGE])
    monkeypatch.setattr(scoring, "fetch", gone)
    assert scoring.ask_split("tune", tmp_path, None) == []  # type: ignore[arg-type]
    assert f"left out: {PACKAGE.source} did not bring it" in capsys.readouterr().out


def scored(package: str, kind: str, value: float) -> Scored:
    return Scored(Question(package, kind, "python", "q", ["a"], [], "tune", []), "hybrid", value, value / 2, value)


def test_auc_counts_pairs_and_half_a_tie() -> None:
    assert (
        none_auc([scored("a", kind, value) for kind, value in (("error", 0.4), ("none", 0.4), ("none", 0.1))]) == 0.75
    )


def test_table_means_over_packages() -> None:
    first, second = [package.name for package in listed()[:2]]
    rows = table(
        [
            scored(first, "error", 1.0),
            scored(first, "none", 0.2),
            scored(second, "error", 0.0),
            scored(second, "symbol", 0.5),
        ]
    )
    assert [(row["by_file"], row["by_chunk"], row["error"], row["packages"]) for row in rows] == [
        (0.625, 0.3125, 0.5, 2)
    ]
    assert rows[0]["none, AUC in a package"] == 1.0
    assert rows[0]["none, AUC over all"] == pytest.approx(2 / 3)
