from __future__ import annotations

from pathlib import Path

import pytest

from c2llm_integrations.code.origin import normalise_origin, origin_of
from tests.repositories import git


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/Org/Repo.git",
        "https://user:tok@github.com/Org/Repo.git",
        "https://tok@GitHub.com/Org/Repo/",
        "https://user:p@ss@github.com/Org/Repo",
        "https://github.com:443/Org//Repo.git?token=tok#tok",
        "git@github.com:Org/Repo.git",
        "github.com:Org/Repo",
        "git@github.com:/Org/Repo.git",
        "ssh://git@github.com:22/Org/Repo",
        "git://github.com/Org/Repo.git/",
        "git+ssh://git@github.com/Org/Repo.git",
        " https://github.com/Org/Repo.git\n",
    ],
)
def test_every_spelling_of_a_remote_gives_one_name(url: str) -> None:
    assert normalise_origin(url) == "github.com/Org/Repo"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/srv/git/repo.git", "repo"),
        ("../repo", "repo"),
        ("file:///srv/git/repo.git", "repo"),
        ("C:\\git\\repo.git", "repo"),
        ("C:/git/repo", "repo"),
        ("repo", "repo"),
        ("https://git.example.org/~me/a/b/c.git", "git.example.org/~me/a/b/c"),
        ("https://proxy.example/https://me:tok@github.com/Org/Repo", "proxy.example/https:/github.com/Org/Repo"),
        ("ssh://git@[::1]:2222/a/b.git", "::1/a/b"),
        ("ext::ssh -i key host", None),
        ("codecommit::eu-west-1://me@repo", None),
        ("https://github.com/", None),
        ("https://[broken/a", None),
        ("", None),
        (".git", None),
        ("/", None),
    ],
)
def test_other_remotes(url: str, name: str | None) -> None:
    assert normalise_origin(url) == name


def test_no_credential_survives() -> None:
    for url in ("https://me:s3cret@h/a", "https://me:s3/cret@h/a", "s3cret@h:a", "https://h/x:s3cret@y/a"):
        assert "s3" not in str(normalise_origin(url))


def test_origin_is_read_from_the_configuration_of_clones_worktrees_and_submodules(tmp_path: Path) -> None:
    main, other = tmp_path / "main", tmp_path / "other"
    for root in (main, other):
        root.mkdir()
        git(root, "init", "-q")
        git(root, "commit", "-q", "--allow-empty", "-m", "first")
        git(root, "remote", "add", "upstream", "https://example.org/wrong")
    assert origin_of(main) is None
    git(main, "remote", "add", "origin", "https://example.org/main.git")
    git(main, "worktree", "add", "-q", tmp_path / "tree")
    git(main, "submodule", "add", "-q", other, "sub")
    assert origin_of(main) == "https://example.org/main.git"
    assert origin_of(tmp_path / "tree") == "https://example.org/main.git"
    assert origin_of(main / "sub") == str(other)
    assert origin_of(tmp_path) is None
