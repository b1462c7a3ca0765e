"""Pairs mined from repositories."""

import pytest

from c2llm_integrations.errors import InputError
from c2llm_integrations.training.mine_pairs import mine_repositories
from tests.conftest import write_project

FUNCTION = '''def weigh_{name}(rows):
    """Weigh all rows of the {name} table."""
    total = {name!r}
    return weigh_{name}(rows, total)
'''
PEAR = {
    "query": "Weigh all rows of the pear table.",
    "positive": "def weigh_pear(rows):\n    total = 'pear'\n    return weigh_pear(rows, total)",
    "dataset": "a",
    "language": "python",
}


def write(folder, *names):
    """A folder of code with a documented function of each name."""
    folder.mkdir()
    for name in names:
        (folder / f"{name}.py").write_text(FUNCTION.format(name=name))
    return folder


def test_documentation_and_name_each_ask_for_the_code_without_them(tmp_path):
    mined = mine_repositories([write(tmp_path / "a", "pear")])
    assert mined.training == [
        PEAR,
        {**PEAR, "query": "weigh pear", "positive": "def f(rows):\n    total = 'pear'\n    return f(rows, total)"},
    ]
    assert (mined.held_out, mined.repeated, dict(mined.repositories)) == ([], 0, {"a": 2})


def test_repositories_are_kept_apart_as_a_whole_with_what_is_copied_from_them(tmp_path):
    folders = [write(tmp_path / name, "pear", f"own{name}") for name in "abcd"]
    mined = mine_repositories(folders, held_out=0.5)
    sides = [{row["dataset"] for row in rows} for rows in (mined.training, mined.held_out)]
    assert [len(side) for side in sides] == [2, 2]
    assert not sides[0] & sides[1]
    assert mined.repeated == 3
    assert PEAR["query"] in {row["query"] for row in mined.held_out}
    assert PEAR["query"] not in {row["query"] for row in mined.training}
    assert mine_repositories(folders[::-1], held_out=0.5) == mined
    assert any(mine_repositories(folders, held_out=0.5, seed=seed).held_out != mined.held_out for seed in range(1, 9))


def test_all_languages_of_a_project_are_read(tmp_path):
    project = write_project(tmp_path / "shop")
    (project / "retry.rb").write_text(
        "# Waits longer after each failed request.\ndef retry_delay(attempt)\n  x = 2 ** attempt\n  x\nend\n"
    )
    found = {(row["language"], row["query"]) for row in mine_repositories([project]).training}
    assert ("ruby", "Waits longer after each failed request.") in found
    assert ("javascript", "Waits longer after each failure.") in found
    assert ("python", "What a customer wants to buy.") in found


def test_a_small_share_of_few_repositories_still_keeps_one_apart(tmp_path):
    folders = [write(tmp_path / name, f"own{name}") for name in "ab"]
    mined = mine_repositories(folders, held_out=0.1)
    assert [len({row["dataset"] for row in rows}) for rows in (mined.training, mined.held_out)] == [1, 1]


@pytest.mark.parametrize("share", [1.0, 0.9, 0.1, -0.5])
def test_something_must_be_left_to_train_on(share, tmp_path):
    with pytest.raises(InputError, match=f"share of {share} of 1 repositories leaves none"):
        mine_repositories([write(tmp_path / "a", "pear")], held_out=share)


def test_code_without_documentation_gives_an_error(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(InputError, match="no documented definition"):
        mine_repositories([tmp_path])
