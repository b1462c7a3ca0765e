"""A link in a git folder leads to no file outside it; pointers of worktrees and submodules do their work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from c2llm_integrations.code import git_internals
from c2llm_integrations.code.git import GitFolder, branch_of
from c2llm_integrations.code.git_commit import CommitSeen
from c2llm_integrations.code.git_internals import has_plain_alternates, leads_to_host, place_of
from c2llm_integrations.code.repository import Tree, open_tree
from c2llm_integrations.indexing.vector_reuse import other_worktrees
from tests.repositories import commit_all, git

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX links")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path.resolve() / "repo"
    root.mkdir()
    (root / "a.py").write_text("a = 1\n")
    commit_all(root)
    git(root, "config", "remote.origin.url", "https://example.org/team/private")
    return root


def lead_out(repo: Path, name: str) -> Tree:
    """Move a file out of the git folder, leave a link to it, and list the repository."""
    file = repo / ".git" / name
    if not file.exists():
        file.write_text("../../other\n")
    outside = repo.parent / "outside"
    file.rename(outside)
    file.symlink_to(outside)
    return open_tree(repo)


def test_a_configuration_elsewhere_gives_no_name(repo: Path) -> None:
    tree = lead_out(repo, "config")
    assert tree.name == "repo"
    assert tree.files == ["a.py"]
    assert tree.notes == [f"{repo}/.git/config is not a file of its git folder, so it is not read"]


@pytest.mark.parametrize("name", ["HEAD", "index", "commondir", "packed-refs", "shallow"])
def test_a_file_elsewhere_is_not_read_but_told(repo: Path, name: str) -> None:
    git(repo, "pack-refs", "--all")
    tree = lead_out(repo, name)
    assert (tree.name, tree.files) == ("example.org/team/private", ["a.py"])
    assert tree.notes == [f"{repo}/.git/{name} is not a file of its git folder, so it is not read"]
    assert branch_of(repo) == ("" if name == "HEAD" else "main")
    folder = GitFolder.of(repo)
    assert folder is not None
    assert folder.common == repo / ".git"
    with folder.view() as view:
        assert name == "HEAD" or not os.path.lexists(view / name)


def test_a_branch_elsewhere_is_no_commit(repo: Path) -> None:
    assert CommitSeen(repo).commit
    assert lead_out(repo, "refs/heads/main").notes == []
    assert CommitSeen(repo).commit is None


@pytest.mark.parametrize("place", ["config", "config.worktree"])
def test_a_work_tree_elsewhere_is_ignored_but_told(repo: Path, place: str) -> None:
    (other := repo.parent / "other").mkdir()
    (other / "b.py").write_text("b = 1\n")
    git(repo, "config", "--file", repo / ".git" / place, "core.worktree", "../../other")
    tree = open_tree(repo)
    assert tree.files == ["a.py"]
    [note] = tree.notes
    assert note == (
        f"{repo}/.git/config sets core.worktree to {other}, which is ignored: the files of {repo} are indexed; "
        f"to index the others give {other}"
    )


def test_a_work_tree_that_is_the_folder_or_another_worktrees_is_not_told(repo: Path) -> None:
    git(repo, "worktree", "add", "-q", "-b", "side", repo.parent / "side")
    git(repo, "config", "core.worktree", repo)
    assert open_tree(repo).notes == open_tree(repo.parent / "side").notes == []


def test_a_git_file_elsewhere_names_no_git_folder(repo: Path) -> None:
    (repo / ".git").rename(repo.parent / "kept")
    (repo.parent / "pointer").write_text(f"gitdir: {repo.parent}/kept\n")
    (repo / ".git").symlink_to("../pointer")
    tree = open_tree(repo)
    assert tree.name == "repo"
    assert "names no git folder" in tree.notes[0]


@pytest.mark.parametrize("name", ["objects", "refs", "info"])
def test_a_folder_elsewhere_is_not_walked_but_told(repo: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (repo / "b.py").write_text("b = 1\n")
    (repo / ".git" / "info" / "exclude").write_text("b.py\n")
    outside = repo.parent / "outside"
    (repo / ".git" / name).rename(outside)
    (repo / ".git" / name).symlink_to(outside)
    seen = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: seen.append(str(path)) or real(path))
    tree = open_tree(repo)
    assert tree.files == (["a.py", "b.py"] if name == "info" else ["a.py"])
    assert tree.notes == [f"{repo}/.git/{name} is not a folder of its git folder, so it is not read"]
    assert not [path for path in seen if path.startswith(str(outside))]
    assert (CommitSeen(repo).commit is None) is (name != "info")


@pytest.mark.parametrize("name", ["HEAD", "config", "index", "refs/heads/main"])
def test_a_link_inside_the_git_folder_is_followed(repo: Path, name: str) -> None:
    commit = CommitSeen(repo).commit
    file = repo / ".git" / name
    file.rename(file.with_name("moved"))
    file.symlink_to("moved")
    tree = open_tree(repo)
    assert (tree.name, tree.files, tree.notes) == ("example.org/team/private", ["a.py"], [])
    assert (branch_of(repo), CommitSeen(repo).commit) == ("main", commit)


@pytest.mark.parametrize("place", ["sources", ".git/HEAD", ".git/refs/heads/main", "gitdir", "commondir"])
def test_links_to_links_are_not_followed_without_end(repo: Path, place: str) -> None:
    above = repo / ".git" / "refs" / "heads" if place.startswith(".git") else repo
    for number in range(1200):
        (above / f"l{number}").symlink_to(f"l{number + 1}")
    (above / "l1200").symlink_to(repo / "a.py")
    if place == "gitdir":
        (repo / ".git").rename(repo.parent / "kept")
        (repo / ".git").write_text("gitdir: l0\n")
    elif place == "commondir":
        (repo / ".git" / "commondir").write_text("../l0\n")
    elif place == ".git/HEAD":
        (repo / ".git" / "HEAD").unlink()
        (repo / ".git" / "HEAD").symlink_to(above / "l0")
    tree = open_tree(repo)
    assert "a.py" in tree.files
    assert len(tree.skipped.get("symlink", ())) == (0 if above != repo else 1201)
    assert branch_of(repo) == ("main" if place in ("sources", ".git/refs/heads/main", "commondir") else "")
    assert (CommitSeen(repo).commit is None) is (place != "sources")


@pytest.mark.parametrize("name", [".git", ".git/commondir", ".git/worktrees/w/gitdir"])
def test_a_pointer_of_many_folders_is_not_walked(repo: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path, **how: seen.append(path) or real(path, **how))
    if name == ".git":
        (repo / ".git").rename(repo.parent / "kept")
    (repo / name).parent.mkdir(parents=True, exist_ok=True)
    (repo / name).write_text(f"{'gitdir: ' * (name == '.git')}{'a/' * 20_000}\n")
    assert open_tree(repo).files == ["a.py"]
    assert other_worktrees(repo) == []
    assert len(seen) < 1000


def test_worktrees_and_submodules_keep_their_git_folder_elsewhere(repo: Path, tmp_path: Path) -> None:
    git(repo, "worktree", "add", "-q", "-b", "side", tmp_path / "side")
    git(repo, "clone", "-q", repo, tmp_path / "outer")
    git(tmp_path / "outer", "submodule", "add", "-q", repo, "inner")
    for root, branch in ((tmp_path / "side", "side"), (tmp_path / "outer" / "inner", "main")):
        tree = open_tree(root)
        assert (tree.files, tree.notes, branch_of(root)) == (["a.py"], [], branch)
        assert CommitSeen(root).commit


@pytest.mark.parametrize("how", ["file", "linked", "link", "commondir", "modules"])
def test_a_git_folder_of_another_checkout_is_not_believed(repo: Path, tmp_path: Path, how: str) -> None:
    """A pointer out of a checkout gives it neither the other one's name nor its worktrees."""
    git(repo, "worktree", "add", "-q", "-b", "side", tmp_path / "side")
    git(repo, "submodule", "add", "-q", repo, "inner")
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    (hostile / "a.py").write_text("a = 1\n")
    private = f"{repo}/.git"
    if how == "link":
        (hostile / ".git").symlink_to(private)
    elif how == "commondir":
        git(hostile, "init", "-q")
        (hostile / ".git" / "commondir").write_text(f"{private}\n")
    else:
        place = {"file": "", "linked": "/worktrees/side", "modules": "/modules/inner"}[how]
        (hostile / ".git").write_text(f"gitdir: {private}{place}\n")
    assert other_worktrees(hostile) == []
    assert open_tree(hostile).name == "hostile"
    assert {*other_worktrees(repo)} == {tmp_path.resolve() / "side"}
    assert other_worktrees(tmp_path / "side") == [repo]


def test_a_git_folder_that_claims_another_checkout_does_not_get_it(repo: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "hostile"
    git(tmp_path, "clone", "-q", repo, hostile)
    (hostile / ".git" / "worktrees" / "x").mkdir(parents=True)
    (hostile / ".git" / "worktrees" / "x" / "gitdir").write_text(f"{repo}/.git\n")
    git(hostile, "config", "core.worktree", str(repo))
    assert other_worktrees(hostile) == []


@pytest.mark.parametrize("kind", ["worktree", "submodule", "sparse submodule", "separate", "bare"])
def test_honest_checkouts_keep_the_name_of_their_origin(repo: Path, tmp_path: Path, kind: str) -> None:
    root = tmp_path / "root"
    if kind == "worktree":
        git(repo, "worktree", "add", "-q", "-b", "side", root)
    elif kind == "separate":
        git(tmp_path, "clone", "-q", "--separate-git-dir", tmp_path / "meta", repo, root)
    elif kind == "bare":
        git(tmp_path, "clone", "-q", "--bare", repo, root / ".bare")
        (root / ".git").write_text("gitdir: ./.bare\n")
        git(root, "worktree", "add", "-q", root / "side", "main")
        assert other_worktrees(root) == [root.resolve() / "side"]
        root = root / "side"
    else:
        git(repo, "clone", "-q", repo, tmp_path / "outer")
        git(tmp_path / "outer", "submodule", "add", "-q", repo, "inner")
        root = tmp_path / "outer" / "inner"
        if kind == "sparse submodule":
            git(root, "sparse-checkout", "init", "--cone")
        git(root, "worktree", "add", "-q", "-b", "side", tmp_path / "side")
        assert other_worktrees(root) == [tmp_path.resolve() / "side"]
        assert other_worktrees(tmp_path / "side") == [root.resolve()]
    git(root, "config", "remote.origin.url", "https://example.org/team/named.git")
    assert open_tree(root).name == "example.org/team/named"


# ---- other folders of objects


def alternate(repo: Path, name: str) -> Path:
    """Move the objects to a folder beside the repository, and name that in `alternates`."""
    other = repo.parent / "other"
    (repo / ".git" / "objects").rename(other)
    (repo / ".git" / "objects" / "info").mkdir(parents=True)
    (other / "info").mkdir(exist_ok=True)
    (repo / ".git" / "objects" / "info" / "alternates").write_text(f"# elsewhere\n{name}\n")
    return other


@pytest.mark.parametrize("name", ["../../../other", "ABSOLUTE", "../../../link"])
def test_other_folders_of_objects_are_read(repo: Path, name: str) -> None:
    commit = CommitSeen(repo).commit
    (repo.parent / "link").symlink_to("other")
    other = alternate(repo, name.replace("ABSOLUTE", str(repo.parent / "other")))
    os.mkfifo(other / "not-git's")
    assert CommitSeen(repo).commit == commit is not None


@pytest.mark.parametrize(
    "pipe", ["info/commit-graph", "info/alternates", "pack/pack-1.idx", "HASH", "further/info/commit-graph"]
)
def test_a_pipe_among_other_objects_is_seen_before_git_waits_for_it(repo: Path, pipe: str) -> None:
    """Git would wait for 15 seconds in every run."""
    commit = CommitSeen(repo).commit
    assert commit
    other = alternate(repo, "../../../other")
    if pipe.startswith("further"):
        (other / "info" / "alternates").write_text(f"{other}/further\n")
    file = other / (f"{commit[:2]}/{commit[2:]}" if pipe == "HASH" else pipe)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    assert not has_plain_alternates(repo / ".git" / "objects")
    assert CommitSeen(repo).commit is None
    assert open_tree(repo).files == ["a.py"]


MANY = "x\n" * 2**20


@pytest.mark.parametrize(
    "lines", [MANY, '"quoted"\n', "a\0b\n", "//host/share/objects\n"], ids=["many", "quoted", "zero", "host"]
)
def test_alternates_that_may_mean_something_else_are_not_given_to_git(repo: Path, lines: str) -> None:
    (repo / ".git" / "objects" / "info" / "alternates").write_text(lines)
    assert not has_plain_alternates(repo / ".git" / "objects")


@pytest.mark.parametrize("lines", ["", "# nothing\n", "../not-there\n", ".\n"])
def test_alternates_without_effect_hide_nothing(repo: Path, lines: str) -> None:
    (repo / ".git" / "objects" / "info" / "alternates").write_text(lines)
    assert has_plain_alternates(repo / ".git" / "objects")
    assert CommitSeen(repo).commit


def test_chains_of_other_objects_end(repo: Path) -> None:
    objects = repo / ".git" / "objects"
    for number in range(100):
        (objects / "info").mkdir(parents=True, exist_ok=True)
        (objects / "info" / "alternates").write_text(f"../next{number}\n")
        objects = objects.parent / f"next{number}"
    assert not has_plain_alternates(repo / ".git" / "objects")


@pytest.mark.parametrize(
    ("folder", "pointer", "leads"),
    [
        (r"C:\r\.git", r"\\host\share\x", True),
        (r"C:\r\.git", "//host/share", True),
        (r"C:\r\.git", r"\/host", True),
        (r"C:\r\.git", r"\\?\UNC\host\share", True),
        (r"C:\r\.git", r"\\.\pipe\x", True),
        (r"\\host\share\r", r"\\other\share\r", True),
        (r"\\host\share\r", r"\\host\share2\r", True),
        (r"\\host\share\r", "//HOST/share/main/.git", False),
        (r"C:\r\.git", r"\\?\D:\x", False),
        (r"C:\r\.git", r"D:\x", False),
        (r"C:\r\.git", "../x", False),
        (r"C:\r\.git", r"\x", False),
    ],
)
def test_a_pointer_to_another_machine_is_recognized(folder: str, pointer: str, leads: bool) -> None:
    """Windows would send the user's name and a hash of the password there."""
    assert leads_to_host(folder, pointer) is leads


def test_windows_follows_no_pointer_to_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (there := tmp_path / "there").mkdir()
    pointer = f"/{there}"  # two slashes: to POSIX the folder, to Windows a share
    assert place_of(tmp_path, pointer) == there
    with monkeypatch.context() as windows:
        windows.setattr(git_internals, "_IS_WINDOWS", True)
        assert not os.path.exists(place_of(tmp_path, pointer))


# ---- a sparse index


@pytest.fixture
def sparse(repo: Path) -> Path:
    for folder in ("in", "out"):
        (repo / folder).mkdir()
        (repo / folder / "b.py").write_text(f"{folder} = 1\n")
    commit_all(repo)
    git(repo, "sparse-checkout", "set", "--cone", "--sparse-index", "in")
    assert "out/" in git(repo, "ls-files", "--sparse").split()
    (repo / "out").mkdir()
    (repo / "out" / "b.py").write_text("out = 1\n")
    (repo / ".gitignore").write_text("out/\n")
    return repo


def test_files_of_a_sparse_index_are_tracked(sparse: Path) -> None:
    tree = open_tree(sparse)
    assert (tree.files, tree.notes) == ([".gitignore", "a.py", "in/b.py", "out/b.py"], [])


def test_a_folder_of_a_sparse_index_that_git_cannot_read_is_told(sparse: Path) -> None:
    """Git says nothing of it, and ends as if all were there."""
    name = git(sparse, "rev-parse", "HEAD:out").strip()
    (sparse / ".git" / "objects" / name[:2] / name[2:]).unlink()
    tree = open_tree(sparse)
    assert tree.files == [".gitignore", "a.py", "in/b.py"]
    [note] = tree.notes
    assert note.startswith("git cannot name the files of 1 folders, such as out/, whose objects are missing")


def test_listing_a_repository_writes_nothing_into_it(sparse: Path) -> None:
    """Git makes objects that are missing where it turns an index into a sparse one."""
    name = git(sparse, "rev-parse", "HEAD:out").strip()
    (sparse / ".git" / "objects" / name[:2] / name[2:]).unlink()
    before = sorted((sparse / ".git").rglob("*"))
    open_tree(sparse)
    assert sorted((sparse / ".git").rglob("*")) == before
