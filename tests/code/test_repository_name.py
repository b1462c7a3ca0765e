from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2llm_integrations.code.git import GitFolder
from c2llm_integrations.code.repository_name import normalize_origin
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
    assert normalize_origin(url) == "github.com/Org/Repo"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/srv/git/repo.git", "repo"),
        ("../repo", "repo"),
        ("file:///srv/git/repo.git", "repo"),
        ("C:\\git\\repo.git", "repo"),
        ("C:/git/repo", "repo"),
        ("repo", "repo"),
        ("/home/me/repo/.", "repo"),
        ("C:\\git\\repo\\.\\", "repo"),
        (".", None),
        ("/home/me/repo/..", None),
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
    assert normalize_origin(url) == name


def test_no_credential_survives() -> None:
    for url in ("https://me:s3cret@h/a", "https://me:s3/cret@h/a", "s3cret@h:a", "https://h/x:s3cret@y/a"):
        assert "s3" not in str(normalize_origin(url))


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/Org/Repo.git;t=s3cret",
        "https://example.org/Org/Repo;t=s3cret",
        "https://example.org/Org;t=s3cret/Repo.git",
        "https://example.org/Org/Repo.git&t=s3cret",
        "https://example.org/Org/Repo.git%3Ft=s3cret",
        "https://example.org;t=s3cret/Org/Repo",
        "https://example.org/t=s3cret/Org/Repo",
        "https://example.org/Org/Repo.git/s3cret",
        "https://example.org/Org/Repo/token=s3cret",
        "https://example.org/Org/Repo/ghp_s3cret",
        "https://example.org/oauth2/s3cret/Org/Repo",
        "https://example.org/x-access-token/s3cret/Org/Repo",
        "https://example.org/basic/s3cret/Org/Repo",
        "https://example.org/ghp_s3cret/Org/Repo",
        "https://example.org/glpat-s3cret/Org/Repo.git",
        "https://example.org/s3cret0123456789abcdef/Org/Repo.git",
        "https://example.org/s3cret00-1111-4111-8111-0123456789ab/Org/Repo.git".replace("s3cret", "53c4e7"),
        "git@example.org:s3cret0123456789ABC/Org/Repo.git",
        "ssh://git@example.org/Org/Repo.git;token=s3cret",
    ],
)
def test_a_token_in_the_path_is_no_part_of_the_name(url: str) -> None:
    assert normalize_origin(url) == "example.org/Org/Repo"


@pytest.mark.parametrize(
    "name",
    [
        "gist.github.com/aa5a315d61ae9438b18d0123456789ab",
        "gitlab.com/group/sub-group/sub2/repo",
        "github.com/token/basic",
        "github.com/2023-advanced-computing/lab1",
        "git.example.org/scm/proj/k8s-deployments",
        "dev.azure.com/org/My%20Project/_git/repo",
        "github.com/Ünï/cødé",
    ],
)
def test_a_name_that_only_resembles_a_token_stays(name: str) -> None:
    assert normalize_origin(f"https://{name}.git") == name


@pytest.mark.parametrize(
    "path",
    [
        *("access_token/s3cret/Org/Repo", "private-token/s3cret/Org/Repo", "gitlab-ci-token/s3cret/Org/Repo.git"),
        *("CI_JOB_TOKEN/s3cret/Org/Repo", "deploy%2Dtoken/s3cret/Org/Repo", "token:/s3cret/Org/Repo"),
        *("u:s3cret/Org/Repo", "u%3As3cret/Org/Repo", "u%253As3cret/Org/Repo", "u|s3cret/Org/Repo"),
        *("Org/Repo:s3cret", "Org/Repo.git:s3cret", "Org!t!s3cret/Repo", "Org$s3cret/Repo", "Org/Repo%7Cs3cret"),
        *("Org/Repo*s3cret.git", "Org,s3cret/Repo", "Org^s3cret/Repo"),
    ],
)
@pytest.mark.parametrize("before", ["https://example.org/", "git@example.org:", "ssh://git@example.org:22/"])
def test_what_no_owner_and_no_name_holds_is_dropped(before: str, path: str) -> None:
    assert normalize_origin(before + path) == "example.org/Org/Repo"


@pytest.mark.parametrize("prefix", ["ghp_", "hf_", "npm_", "glpat-", "gho_", "%67hp_"])
def test_a_token_is_no_name_either(prefix: str) -> None:
    token = prefix + "aBcDeFgHiJ" * 3 + ("aBcD" if prefix == "hf_" else "aBcD12")
    assert normalize_origin(f"https://example.org/Org/{token}.git") == "example.org/Org"
    for url in (f"https://example.org/{token}", f"file:///home/me/{token}.git"):
        assert normalize_origin(url) is None
    if "%" not in prefix:
        assert normalize_origin(f"/home/me/{token}") is None
        assert normalize_origin(f"../{token}") is None


@pytest.mark.parametrize(
    "host",
    [
        *("{}", "{}.example.org", "git.{}.org", "h\\@{}", "[::1%25{}]", "u%3A{}%40example.org", "{}:22", "u:{}%40h"),
        *("{}%3Fa", "example.org%20{}", "example.org%00{}"),
    ],
)
@pytest.mark.parametrize("token", [f"ghp_{'A1b2C3d4E5' * 3}abcdef", "glpat-abcDEF1234567890_xyz", "AKIA" + "Q7" * 8])
def test_a_token_in_the_host_is_no_part_of_the_name(host: str, token: str) -> None:
    for scheme in ("https", "ssh", "git+ssh"):
        assert token.lower() not in str(normalize_origin(f"{scheme}://{host.format(token)}/Org/Repo.git")).lower()


@pytest.mark.parametrize(
    ("host", "name"),
    [
        *(("my_host", "my_host"), ("LOCALHOST:3000", "localhost"), ("git.Example.org.", "git.example.org.")),
        *(("192.168.0.1:22", "192.168.0.1"), ("[fe80::1]", "fe80::1"), ("xn--mller-kva.de", "xn--mller-kva.de")),
        *(("ec2-203-0-113-25.compute-1.amazonaws.com", "ec2-203-0-113-25.compute-1.amazonaws.com"), ("ü.de", "ü.de")),
    ],
)
def test_an_ordinary_host_stays(host: str, name: str) -> None:
    assert normalize_origin(f"ssh://git@{host}/Org/Repo.git") == f"{name}/Org/Repo"


def test_a_path_on_this_machine_ends_where_its_name_does() -> None:
    assert normalize_origin("/home/me/repo:s3cret") == "repo"
    assert normalize_origin("..\\repo|s3cret") == "repo"
    assert normalize_origin("/home/me/repo!s3cret") == "repo"


# Under 16 letters and digits in a row, and no prefix of a token.
PARTS = st.from_regex(
    r"[A-Zb-fi-mo-wyz~_][A-Za-z0-9]{0,9}(?:(?:[-._+]|%20)[A-Za-z0-9]{1,9}){0,2}(?<!\.git)", fullmatch=True
)


@settings(max_examples=60, deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=4))
def test_ordinary_names_stay_as_they_are(parts: list[str]) -> None:
    for count, part in enumerate(parts):
        parts[count] = part + "x" * (part.lower() in {"oauth", "oauth2", "token", "basic", "bearer"})
    name = "/".join(parts)
    for url in (f"https://me:pw@example.org/{name}.git", f"git@example.org:{name}", f"ssh://example.org:22/{name}/"):
        assert normalize_origin(url) == f"example.org/{name}"
    assert normalize_origin(f"/srv/{name}.git") == parts[-1]


def origin_of(root: Path) -> str | None:
    folder = GitFolder.of(root)
    return folder.config.get("remote.origin.url") if folder is not None else None


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
