"""Which commit the rows of a tree are from, and links into it."""

import pytest

from c2llm_integrations.code.git_commit import CommitSeen, permalink
from c2llm_integrations.code.repository import iter_sources, open_tree
from c2llm_integrations.indexing.claims import Claim
from tests.conftest import write_project
from tests.repositories import git


@pytest.fixture
def repo(tmp_path):
    folder = write_project(tmp_path / "repo")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "one")
    return folder


def seen(folder):
    """The commit after every source of the tree was seen."""
    commit = CommitSeen(folder)
    for source in iter_sources(open_tree(folder)):
        commit.see(source.path, source.data)
    return commit.commit


def test_a_clean_tree_is_its_commit(repo):
    assert seen(repo) == git(repo, "rev-parse", "HEAD")


@pytest.mark.parametrize("name", ["shop/prices.py", "new.py"])
def test_an_edited_or_untracked_file_is_of_no_commit(repo, name):
    (repo / name).write_text("x = 1\n")
    assert seen(repo) is None


def test_what_is_not_indexed_does_not_matter(repo):
    (repo / ".env").write_text("PASSWORD=other\n")
    (repo / "web" / "retry.js").unlink()
    assert seen(repo) == git(repo, "rev-parse", "HEAD")


def test_an_executed_filter_could_lie_so_none_is_run(repo, tmp_path):
    (repo / ".gitattributes").write_text("*.py filter=evil\n")
    git(repo, "config", "filter.evil.clean", f"touch {tmp_path / 'ran'}; cat")
    (repo / "shop" / "prices.py").write_text("x = 1\n")
    assert seen(repo) is None
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_other_encodings_are_compared_as_they_lie(repo, encoding):
    (repo / "shop" / "prices.py").write_bytes('PRICE = "12 é"\n'.encode(encoding))
    git(repo, "commit", "-q", "-a", "-m", "two")
    assert seen(repo) == git(repo, "rev-parse", "HEAD")


def test_no_git_no_commit_and_a_folder_inside_another_repository(repo, tmp_path, project):
    assert seen(project) is None
    (repo / ".gitignore").write_text("inner\n")
    assert seen(write_project(repo / "inner")) is None
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    git(fresh, "init", "-q")
    assert seen(fresh) is None


def test_a_sha256_repository(tmp_path):
    folder = write_project(tmp_path / "repo")
    git(folder, "init", "-q", "--object-format=sha256")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "one")
    assert len(seen(folder)) == 64


@pytest.mark.parametrize("claim", [Claim("0123456789abcdef"), Claim("0123456789abcdef", "c" * 40)])
def test_a_claim_survives_being_stored(claim):
    assert Claim.parse(str(claim)) == claim


@pytest.mark.parametrize(
    ("repository", "link"),
    [
        ("github.com/a/b", "https://github.com/a/b/blob/c0ffee/src/x%20y/%C3%BC%23.py#L3-L5"),
        ("gitlab.com/a/sub/b", "https://gitlab.com/a/sub/b/-/blob/c0ffee/src/x%20y/%C3%BC%23.py#L3-5"),
        ("gitlab.example.org/a/b", "https://gitlab.example.org/a/b/-/blob/c0ffee/src/x%20y/%C3%BC%23.py#L3-5"),
        ("bitbucket.org/a/b", "https://bitbucket.org/a/b/src/c0ffee/src/x%20y/%C3%BC%23.py#lines-3:5"),
        ("codeberg.org/a/b", "https://codeberg.org/a/b/src/commit/c0ffee/src/x%20y/%C3%BC%23.py#L3-L5"),
        ("example.org/a/b", None),
        ("github.com", None),
        ("github/a/b", None),
        ("shop", None),
        ("", None),
    ],
)
def test_links_are_known_for_known_hosts_only(repository, link):
    assert permalink(repository, "c0ffee", "src/x y/ü#.py", 3, 5) == link
