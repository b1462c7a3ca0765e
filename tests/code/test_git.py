"""A repository that somebody else made: nothing it says is run, fetched, waited for or believed."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from c2llm_integrations.code.git import GitFolder, branch_of, run_git, time_limit
from c2llm_integrations.code.git_commit import CommitSeen
from c2llm_integrations.code.repository import MAX_QUOTED, list_again, open_tree, root_of
from c2llm_integrations.errors import RepositoryError
from c2llm_integrations.indexing.ray.pipeline_stages import _address
from c2llm_integrations.indexing.vector_reuse import other_worktrees
from tests.repositories import commit_all, git

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the traps are shell commands, links and pipes")

# What git's own manual says is run by the shell, as a program, or as a helper.
EXECUTED = (
    *("alias.ls-files", "alias.rev-parse", "alias.ls-tree", "browser.x.cmd", "core.alternateRefsCommand"),
    *("core.askPass", "core.editor", "core.fsmonitor", "core.gitProxy", "core.hooksPath", "core.pager"),
    *("core.sshCommand", "credential.helper", "diff.external", "diff.x.command", "diff.x.textconv"),
    *("difftool.x.cmd", "filter.x.clean", "filter.x.process", "filter.x.smudge", "gpg.program", "gpg.ssh.program"),
    *("gpg.ssh.defaultKeyCommand", "interactive.diffFilter", "man.x.cmd", "merge.x.driver", "mergetool.x.cmd"),
    *("pager.ls-files", "pager.ls-tree", "receive.procReceiveRefs", "remote.origin.receivepack"),
    *("remote.origin.uploadpack", "remote.origin.vcs", "sendemail.smtpServer", "sequence.editor", "ssh.variant"),
    *("submodule.x.update", "tar.tar.gz.command", "trailer.x.cmd", "trailer.x.command", "uploadpack.packObjectsHook"),
    *(
        "web.browser",
        "init.templateDir",
        "core.attributesFile",
        "core.excludesFile",
        "core.worktree",
        "gc.recentObjectsHook",
    ),
)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path.resolve() / "repo"
    (root / "sub").mkdir(parents=True)
    (root / "a.py").write_text("a = 1\n")
    (root / "sub" / "b.py").write_text("b = 1\n")
    commit_all(root)
    return root


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A program that tells that it was run."""
    program = tmp_path / "trap"
    program.write_text(f"#!/bin/sh\necho run >> '{tmp_path}/ran'\nexit 1\n")
    program.chmod(0o755)
    return program


def look_at(root: Path) -> tuple[list[str], str | None]:
    """Ask all that is ever asked of a repository; return its files and its commit."""
    tree = open_tree(root, "given")
    list_again(root, "", set())
    other_worktrees(root)
    branch_of(root)
    return tree.files, CommitSeen(root).commit


def lose_a_tree(repo: Path, address: str = "ssh://example.org/y") -> None:
    """Let the tree of sub/ be missing, and a remote promise it: git fetches it where it may."""
    tree = git(repo, "rev-parse", "HEAD:sub")
    (repo / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    for key, value in (
        ("core.repositoryformatversion", "1"),
        ("extensions.partialClone", "origin"),
        ("remote.origin.url", address),
        ("remote.origin.promisor", "true"),
        ("remote.origin.partialclonefilter", "blob:none"),
    ):
        git(repo, "config", key, value)


@pytest.mark.parametrize("key", EXECUTED)
def test_no_key_runs_a_command(repo: Path, trap: Path, key: str) -> None:
    before = look_at(repo)
    git(repo, "config", key, f"!{trap}" if key.startswith(("alias", "submodule")) else str(trap))
    (repo / ".git" / "info" / "attributes").write_text("* filter=x diff=x merge=x\n")
    assert look_at(repo) == before
    assert not (trap.parent / "ran").exists()


def test_no_key_that_git_knows_is_even_read(repo: Path, trap: Path) -> None:
    before = look_at(repo)
    known = subprocess.run(["git", "help", "--config"], capture_output=True, text=True, check=True).stdout.split("\n")
    keys = {re.sub(r"<[^>]*>|\*", "x", key) for key in known if "." in key and " " not in key}
    assert len(keys) > 400
    with (repo / ".git" / "config").open("a") as config:
        for key in sorted(keys - {"extensions.objectformat"}):
            section, _, name = key.rpartition(".")
            first, dot, rest = section.partition(".")
            config.write(f"[{first}{f' {chr(34)}{rest}{chr(34)}' if dot else ''}]\n\t{name} = {trap}\n")
    with pytest.raises(subprocess.CalledProcessError):
        git(repo, "status")
    assert look_at(repo) == before
    assert not (trap.parent / "ran").exists()


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("ssh://example.org/y", "core.sshCommand"),
        ("git://example.org/y", "core.gitProxy"),
        ("https://example.invalid/y", "credential.helper"),
        ("ext::TRAP", "x.y"),
        ("file:///", "remote.origin.uploadpack"),
    ],
)
@pytest.mark.parametrize("name", [".git", "store"])
def test_a_missing_tree_is_not_fetched(repo: Path, trap: Path, address: str, key: str, name: str) -> None:
    lose_a_tree(repo, address.replace("TRAP", str(trap)))
    git(repo, "config", key, str(trap))
    git(repo, "config", "protocol.allow", "always")
    assert look_at(repo) == (["a.py", "sub/b.py"], None)
    shutil.move(repo / ".git", repo / name)  # the same as a source to clone
    with _address(str(repo / name)) as (url, protocols), pytest.raises(RepositoryError):
        run_git("clone", "--depth", "1", "--", url, str(repo.parent / "clone"), protocols=protocols)
    assert not (trap.parent / "ran").exists()


@pytest.mark.parametrize(
    "how", ["include", "includeIf", "worktreeConfig", "commondir", "gitfile", "link", "alternates"]
)
def test_no_other_file_brings_a_command_in(repo: Path, trap: Path, how: str) -> None:
    folder, evil = repo / ".git", repo.parent / "evil"
    lose_a_tree(repo)
    text = f'[core]\n\tsshCommand = {trap}\n\tfsmonitor = {trap}\n[alias]\n\tls-files = "!{trap}"\n'
    (folder / "evil").write_text(text)
    if how == "include":
        git(repo, "config", "include.path", "evil")
    elif how == "includeIf":
        git(repo, "config", "includeIf.gitdir:/**.path", "evil")
    elif how == "worktreeConfig":
        git(repo, "config", "extensions.worktreeConfig", "true")
        (folder / "config.worktree").write_text(text)
    else:
        with (folder / "config").open("a") as config:
            config.write(text)
    if how in ("gitfile", "link", "commondir"):
        folder.rename(evil)
    if how == "gitfile":
        folder.write_text("gitdir: ../evil\n")
    elif how == "link":
        folder.symlink_to("../evil")
    elif how == "commondir":
        folder.mkdir()
        for name in ("HEAD", "index"):
            shutil.copy(evil / name, folder)
        (folder / "commondir").write_text("../../evil\n")
    elif how == "alternates":
        (folder / "objects" / "info" / "alternates").write_text(f"{repo.parent}\n{folder}\n")
    assert look_at(repo) == (["a.py", "sub/b.py"], None)
    assert not (trap.parent / "ran").exists()


def test_submodules_hooks_and_attributes_run_nothing(repo: Path, trap: Path) -> None:
    (repo / ".gitmodules").write_text(f'[submodule "m"]\n\tpath = m\n\turl = ext::{trap}\n\tupdate = !{trap}\n')
    (repo / ".gitattributes").write_text("* filter=x diff=x merge=x\n")
    git(repo, "config", "submodule.m.update", f"!{trap}")
    git(repo, "config", "filter.x.process", str(trap))
    for hook in ("post-checkout", "post-index-change", "fsmonitor-watchman", "reference-transaction"):
        shutil.copy(trap, repo / ".git" / "hooks" / hook)
    shutil.copytree(repo / ".git", repo / "m" / ".git")
    assert look_at(repo)[0] == [".gitattributes", ".gitmodules", "a.py", "sub/b.py"]
    assert look_at(repo / "m")[0] == []
    with _address(str(repo / ".git")) as (url, protocols):
        run_git("clone", "-q", "--", url, str(repo.parent / "clone"), protocols=protocols)
    assert (repo.parent / "clone" / "a.py").exists()
    assert not (trap.parent / "ran").exists()


@pytest.mark.parametrize("place", ["/nonexistent", "../..", "../../other", "/"])
def test_a_work_tree_elsewhere_is_not_this_folder(repo: Path, place: str) -> None:
    (repo.parent / "other").mkdir()
    git(repo, "config", "core.worktree", place)
    assert look_at(repo)[0] == ["a.py", "sub/b.py"]
    assert root_of(repo / "sub") == repo


@pytest.mark.parametrize("name", ["HEAD", "config", "index", "commondir", "packed-refs", "info/exclude", "shallow"])
def test_a_pipe_in_a_git_folder_is_not_waited_for(repo: Path, name: str) -> None:
    (repo / ".git" / name).unlink(missing_ok=True)
    os.mkfifo(repo / ".git" / name)
    assert look_at(repo)[0] == ["a.py", "sub/b.py"]


@pytest.mark.parametrize(
    "name",
    ["refs/heads/main", "refs/heads/other", "objects/info/alternates", "objects/pack/pack-x.idx", "objects/ab/c"],
)
def test_git_is_not_shown_a_folder_with_a_pipe(repo: Path, name: str) -> None:
    place = repo / ".git" / name
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    folder = GitFolder.of(repo)
    assert folder is not None
    with folder.view() as view:
        assert list((view / name.partition("/")[0]).iterdir()) == []
    assert look_at(repo) == (["a.py", "sub/b.py"], None)


def test_a_pipe_that_comes_after_the_look_ends_at_the_time_limit(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("c2llm_integrations.code.git.has_plain_alternates", lambda objects: True)
    (repo.parent / "other" / "info").mkdir(parents=True)
    os.mkfifo(repo.parent / "other" / "info" / "alternates")
    (repo / ".git" / "objects" / "info" / "alternates").write_text(f"{repo.parent}/other\n")
    folder = GitFolder.of(repo)
    assert folder is not None
    with folder.view() as view, pytest.raises(RepositoryError, match=r"did not answer within 0\.2 s"):
        run_git("rev-parse", "HEAD^{commit}", folder=view, seconds=0.2)


@pytest.mark.parametrize("pointer", ["\0", "x" * 5000, "loop", "", "/dev/zero"])
def test_a_git_file_that_points_nowhere_is_said(tmp_path: Path, pointer: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a.py").write_text("a = 1\n")
    (tmp_path / ".git").write_text(f"gitdir: {pointer}\n")
    tree = open_tree(tmp_path)
    assert "a.py" in tree.files
    assert "names no git folder" in tree.notes[0]


@pytest.mark.parametrize("name", [".bare", "store", "x.git", ".git.bak", "deep/er/.cfg"])
@pytest.mark.parametrize("with_git", [True, False])
def test_a_git_folder_is_known_by_what_it_holds(tmp_path: Path, repo: Path, name: str, with_git: bool) -> None:
    root = repo
    if not with_git:
        root = tmp_path / "workspace"
        root.mkdir()
        (root / "a.py").write_text("a = 1\n")
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    git(root, "clone", "-q", "--bare", repo, root / name)
    git(root / name, "config", "remote.origin.url", "https://me:s3cret@example.org/a")
    tree = open_tree(root)
    assert tree.files == (["a.py", "sub/b.py"] if with_git else ["a.py"])
    assert tree.skipped == {"git's own files": [f"{name}/"]}
    for inside in (root / name, root / name / "hooks"):
        with pytest.raises(RepositoryError, match="bare git repository, without files"):
            open_tree(inside)


@pytest.mark.parametrize("layout", [".bare", "separate", "inside"])
def test_worktrees_around_a_git_folder_are_indexed(tmp_path: Path, repo: Path, layout: str) -> None:
    root = tmp_path.resolve() / "project"
    if layout == "separate":
        git(tmp_path, "clone", "-q", "--separate-git-dir", root / "meta", repo, root)
        assert open_tree(root).files == ["a.py", "sub/b.py"]
        return
    store = root / ".bare" if layout == ".bare" else root
    git(tmp_path, "clone", "-q", "--bare", repo, store)
    git(store, "worktree", "add", "-q", root / "main", "main")
    if layout == "inside":
        assert open_tree(root / "main").files == ["a.py", "sub/b.py"]
        with pytest.raises(RepositoryError, match="worktree"):
            open_tree(root)
        return
    (root / ".git").write_text("gitdir: ./.bare\n")
    assert open_tree(root).files == ["main/a.py", "main/sub/b.py"]
    assert open_tree(root / "main").files == ["a.py", "sub/b.py"]
    assert root_of(root / "main" / "sub") == root / "main"


def test_what_git_knows_is_seen_in_every_kind_of_index(repo: Path) -> None:
    (repo / ".gitignore").write_text("*.py\n")
    expected = [".gitignore", "a.py", "sub/b.py"]
    assert open_tree(repo).files == expected
    git(repo, "update-index", "--split-index")
    assert open_tree(repo).files == expected
    git(repo, "update-index", "--no-split-index", "--index-version", "4")
    assert open_tree(repo).files == expected
    git(repo, "pack-refs", "--all")
    git(repo, "gc", "-q")
    assert CommitSeen(repo).commit == git(repo, "rev-parse", "HEAD")
    git(repo, "sparse-checkout", "set", "--cone", "--sparse-index", "sub")
    assert "sub/b.py" in open_tree(repo).files


def test_the_users_own_ignore_file_counts_and_that_of_the_repository_does_not_lead_out(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repo / "note.txt").write_text("x\n")
    (tmp_path / "git").mkdir()
    (tmp_path / "git" / "ignore").write_text("note.txt\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert open_tree(repo).files == ["a.py", "sub/b.py"]
    (tmp_path / "git" / "ignore").unlink()
    assert open_tree(repo).files == ["a.py", "note.txt", "sub/b.py"]
    (tmp_path / "other").write_text("note.*\n")
    (tmp_path / "mine").write_text(f"[core]\n\texcludesFile = {tmp_path}/other\n")
    assert open_tree(repo).files == ["a.py", "sub/b.py"]


@pytest.mark.parametrize(
    "path", [b"/etc/b.py", b"//tmp/b.py", b"../su/b.p", b"./sub/./b", b"s/../b.py", b"sub//b.py", b"sub/b.py/"]
)
def test_a_path_of_the_index_that_git_would_not_add_is_not_listed(repo: Path, path: bytes) -> None:
    (repo / ("x" * len(path))).write_text("x = 1\n")
    git(repo, "add", ".")
    (repo / ("x" * len(path))).unlink()
    index = repo / ".git" / "index"
    changed = index.read_bytes()[:-20].replace(b"x" * len(path), path)
    index.write_bytes(changed + hashlib.sha1(changed, usedforsecurity=False).digest())
    assert path in git(repo, "ls-files", "-z").encode()
    tree = open_tree(repo)
    assert (tree.files, tree.skipped) == (["a.py", "sub/b.py"], {})


@pytest.mark.skipif(sys.platform != "linux", reason="memory of another process is bounded on Linux")
@pytest.mark.parametrize(("bound", "value"), [("MAX_MEMORY", 2**26), ("_PATH_BYTES", 2**26 // 500_000)])
def test_an_index_that_stands_for_billions_of_files_takes_bounded_memory(
    repo: Path, bound: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = git(repo, "hash-object", "-w", "--stdin", input="x\n")
    tree = git(repo, "mktree", input="".join(f"100644 blob {blob}\tf{n}\n" for n in range(100)))
    for _ in range(4):
        tree = git(repo, "mktree", input="".join(f"040000 tree {tree}\td{n}\n" for n in range(100)))
    whole = git(repo, "mktree", input=f"100644 blob {blob}\tok.py\n040000 tree {tree}\tdeep\n")
    git(repo, "update-ref", "HEAD", git(repo, "commit-tree", whole, "-m", "x"))
    git(repo, "sparse-checkout", "set", "--cone", "--sparse-index")
    git(repo, "read-tree", "-mu", "HEAD")
    monkeypatch.setattr(f"c2llm_integrations.code.git.{bound}", value)
    with pytest.raises(RepositoryError, match="Out of memory"):
        open_tree(repo)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to own files of somebody else")
@pytest.mark.parametrize("name", ["a b", "x$(touch PWNED)", "'" * 40 + ";touch PWNED;#", "'" * 100])
def test_a_command_that_trusts_a_folder_quotes_its_name(tmp_path: Path, name: str) -> None:
    above = tmp_path / name
    (above / "sub").mkdir(parents=True)
    git(above, "init")
    os.chown(above / ".git", 65534, 65534)
    (note,) = open_tree(above / "sub").notes
    _, is_told, command = note.partition("safe.directory: ")
    assert bool(is_told) == (len(shlex.quote(str(above))) <= MAX_QUOTED)
    if is_told:
        assert shlex.split(command) == ["git", "config", "--global", "--add", "safe.directory", str(above)]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to own files of somebody else")
def test_a_repository_that_somebody_put_above_does_not_rule(
    tmp_path: Path, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(repo / ".git", 65534, 65534)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "mine"))
    tree = open_tree(repo / "sub")
    assert (tree.root, tree.files) == (repo / "sub", ["b.py"])
    assert "belongs to another user" in tree.notes[0]
    (tmp_path / "mine").write_text(f"[safe]\n\tdirectory = {repo}\n")
    assert open_tree(repo / "sub").root == repo
    os.chown(repo / "sub", 65534, 65534)
    (tmp_path / "mine").unlink()
    assert open_tree(repo / "sub").root == repo


def test_more_paths_than_a_tree_may_have_are_not_used(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse index of a few bytes may stand for millions of files."""
    (repo / ".gitignore").write_text("hidden.py\n")
    (repo / "hidden.py").write_text("x = 1\n")
    git(repo, "add", "-f", ".")
    assert open_tree(repo).files == [".gitignore", "a.py", "hidden.py", "sub/b.py"]
    git(repo, "commit", "-q", "-m", "two")
    assert CommitSeen(repo).commit
    for module in ("git", "listing"):
        monkeypatch.setattr(f"c2llm_integrations.code.{module}.MAX_PATHS", 3)
    monkeypatch.setattr("c2llm_integrations.code.git._PATH_BYTES", 2**28)
    (repo / "new.py").write_text("x = 1\n")
    git(repo, "add", "new.py")
    tree = open_tree(repo)
    assert tree.files == [".gitignore", "a.py", "new.py", "sub/b.py"]
    assert tree.notes == ["git lists over 3 paths: tracked files that a .gitignore hides are not indexed"]
    assert CommitSeen(repo).commit is None


def test_calls_share_a_time_limit(repo: Path) -> None:
    folder = GitFolder.of(repo)
    assert folder is not None
    with folder.view() as view, time_limit(5) as left:
        assert 0 < left() <= 5
        with time_limit(0), pytest.raises(RepositoryError, match="the time limit for all checkouts was reached"):
            run_git("rev-parse", "HEAD", folder=view)
        with time_limit(60):
            assert left() <= 5
        run_git("rev-parse", "HEAD", folder=view)


def test_an_index_of_deep_folders_that_are_gone_costs_one_look_each(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = "a/" * 100 + "x.py"
    lines = "".join(f"100644 {'1' * 40}\t{number}/{deep}\n" for number in range(200))
    lines += f"100644 {'1' * 40}\tsub/gone/{deep}\n"
    subprocess.run(["git", "update-index", "--index-info"], cwd=repo, input=lines, text=True, check=True)
    seen = []
    real = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path, **how: seen.append(str(path)) or real(path, **how))
    tree = open_tree(repo)
    assert (tree.files, tree.skipped) == (["a.py", "sub/b.py"], {})
    assert f"{repo}/199" in seen
    assert not [path for path in seen if path.endswith("/a")]
    assert len(seen) < 2000
