from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from c2llm_integrations.code import repository
from c2llm_integrations.code.repository import Tree, checkout_id, iter_sources, open_tree, root_of
from c2llm_integrations.errors import InputError, RepositoryError
from tests.repositories import git

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX file names, links or permissions")


@pytest.fixture(autouse=True)
def own_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own git configuration must not decide a test."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)


def write(root: Path, *paths: str, text: str = "x = 1\n") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path.resolve() / "repo"
    root.mkdir()
    git(root, "init", "-q")
    return root


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    root = tmp_path.resolve() / "plain"
    root.mkdir()
    return root


def paths(tree: Tree) -> list[str]:
    return [source.path for source in iter_sources(tree)]


def test_tracked_and_new_files_but_no_ignored_or_deleted_ones(repo: Path) -> None:
    write(repo, "tracked.py", "deleted.py", "build/kept.py", "sub/deep/a.py")
    git(repo, "add", ".")
    write(repo, "new.py", "build/out.py", "sub/skip.log", "sub/deep/keep.log")
    write(repo, ".gitignore", text="build/\n*.log\n")
    write(repo, "sub/deep/.gitignore", text="!keep.log\n")
    (repo / "deleted.py").unlink()
    tree = open_tree(repo)
    expected = [".gitignore", "build/kept.py", "new.py", "sub/deep/.gitignore", "sub/deep/a.py"]
    assert tree.files == [*expected, "sub/deep/keep.log", "tracked.py"]
    assert (tree.root, tree.prefix, tree.name, tree.skipped) == (repo, "", "repo", {})
    assert tree.can_tell("deleted.py")


def test_a_folder_without_git_follows_the_same_rules(plain: Path) -> None:
    write(plain, "a.py", "build/out.py", "sub/skip.log", "sub/deep/keep.log", "inner/b.py", "inner/.git/HEAD")
    write(plain, ".gitignore", text="build/\n*.log\n")
    write(plain, "sub/deep/.gitignore", text="!keep.log\n")
    tree = open_tree(plain)
    assert tree.files == [".gitignore", "a.py", "inner/b.py", "sub/deep/.gitignore", "sub/deep/keep.log"]
    assert (tree.root, tree.prefix, tree.name, tree.skipped) == (plain, "", "plain", {})


@pytest.mark.parametrize("with_git", [True, False])
def test_own_ignore_files_hide_more_even_of_what_is_tracked(repo: Path, plain: Path, with_git: bool) -> None:
    root = repo if with_git else plain
    write(root, "a.py", "data/x.py", "data/deep/y.py", "sub/b.gen.py", "sub/c.gen.py")
    write(root, ".c2llmignore", text="/data/\n*.gen.py\n")
    write(root, "sub/.c2llmignore", text="!c.gen.py\n")
    if with_git:
        git(root, "add", ".")
    tree = open_tree(root)
    assert tree.files == [".c2llmignore", "a.py", "sub/.c2llmignore", "sub/c.gen.py"]
    assert tree.skipped == {".c2llmignore": ["data/", "sub/b.gen.py"]}


def test_a_subfolder_keeps_paths_from_the_git_root(repo: Path) -> None:
    write(repo, "a.py", "sub [1]/b.py", "sub 1/c.py")
    git(repo, "remote", "add", "origin", "git@example.org:me/thing.git")
    tree = open_tree(repo / "sub [1]")
    assert (tree.root, tree.prefix, tree.name) == (repo, "sub [1]", "example.org/me/thing")
    assert paths(tree) == ["sub [1]/b.py"]
    assert tree.can_tell("sub [1]/gone.py")
    assert not tree.can_tell("a.py")
    assert not tree.can_tell("sub [1]")


def test_the_given_name_wins(repo: Path) -> None:
    assert open_tree(repo, "mine").name == "mine"
    for name in ("", " ", "a\0b", "\ud800"):
        with pytest.raises(InputError, match="repository name"):
            open_tree(repo, name)


def test_worktrees_and_submodules(repo: Path, tmp_path: Path) -> None:
    other = tmp_path.resolve() / "other"
    other.mkdir()
    git(other, "init", "-q")
    write(other, "inner.py")
    git(other, "add", ".")
    git(other, "commit", "-q", "-m", "first")
    write(repo, "a.py")
    git(repo, "submodule", "--quiet", "add", str(other), "sub")
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "first")
    git(repo, "worktree", "add", "-q", str(tmp_path / "tree"))
    tree = open_tree(repo)
    assert tree.files == [".gitmodules", "a.py"]
    assert tree.skipped == {"nested repository": ["sub"]}
    inside = open_tree(repo / "sub")
    assert (inside.root, inside.prefix, inside.name, inside.files) == (repo / "sub", "", "other", ["inner.py"])
    assert open_tree(tmp_path / "tree").files == [".gitmodules", "a.py"]


def test_an_installed_package_inside_an_ignored_folder_can_be_indexed(repo: Path) -> None:
    package = ".venv/lib/site-packages/networkx"
    write(repo, ".gitignore", text=".venv/\n")
    write(repo, f"{package}/__init__.py", f"{package}/vendor.py", f"{package}/__pycache__/x.pyc", "a.py")
    git(repo, "add", ".")
    tree = open_tree(repo / package)
    assert (tree.root, tree.prefix, tree.name) == (repo / package, "", "networkx")
    assert tree.files == ["__init__.py", "vendor.py"]
    assert tree.skipped == {}
    assert open_tree(repo).files == [".gitignore", "a.py"]
    assert root_of(repo / package) == repo / package
    assert root_of(repo / package / "..") == repo / ".venv/lib/site-packages"
    assert root_of(repo) == repo


@pytest.mark.parametrize("with_git", [True, False])
def test_what_is_skipped_is_counted_and_named(repo: Path, plain: Path, with_git: bool) -> None:
    root = repo if with_git else plain
    write(
        root,
        "a.py",
        "node_modules/x/i.js",
        "node_modules/y/i.js",
        ".c2llm/store",
        "deep/.c2llm/store",
        ".env",
        "b.min.js",
    )
    write(root, "big.py", text="x" * ((1 << 20) + 1))
    write(root, "edge.py", text="x\n" * (1 << 19))
    write(root, "gen.go", text="// Code generated by x. DO NOT EDIT.\n")
    write(root, "long.js", text="x=1;" * 5_000)
    write(root, "key.txt", text="-----BEGIN PRIVATE KEY-----\n")
    (root / "icon.ico").write_bytes(b"\0\1\2")
    tree = open_tree(root)
    assert paths(tree) == paths(tree) == ["a.py", "edge.py"], "a second pass yields the same"
    assert tree.skipped == {
        "vendored": ["node_modules/"],
        "secret": [".env", "key.txt"],
        "minified": ["b.min.js", "long.js"],
        "too large": ["big.py"],
        "generated": ["gen.go"],
        "binary": ["icon.ico"],
    }


def test_sources_are_the_file_byte_for_byte(plain: Path) -> None:
    contents = {
        "a.py": b"\xef\xbb\xbfx = 1\r\n\ty",
        "b.py": "größe".encode("cp1252"),
        "c.py": b"",
        "d.py": b"\xff\xfex\0",
    }
    for name, data in contents.items():
        (plain / name).write_bytes(data)
    found = {source.path: source.text.encode(source.encoding) for source in iter_sources(open_tree(plain))}
    assert found == contents


def test_what_is_not_plain_utf_8_is_named_with_what_it_was_read_as(plain: Path) -> None:
    russian, chinese = "# проверка подписи документа\n" * 3, "# 计算订单的运费按重量和地区\n" * 3
    (plain / "a.py").write_bytes(russian.encode("koi8-r"))
    (plain / "b.py").write_bytes(chinese.encode("utf-16-le"))
    (plain / "c.py").write_bytes(chinese.encode() + b"# Jos\xe9\n")
    (plain / "d.py").write_bytes(chinese.encode() + "# \ufffd\n".encode())
    (plain / "e.py").write_bytes("# größe\n".encode("cp1252"))
    tree = open_tree(plain)
    assert len(list(iter_sources(tree))) == 5
    named = {path: name.lower().replace("windows-", "cp") for name, paths in tree.encodings.items() for path in paths}
    assert named == {"a.py": "koi8-u", "b.py": "utf-16-le", "c.py": "utf-8, damaged", "e.py": "cp1252"}


@posix
@pytest.mark.parametrize("with_git", [True, False])
def test_links_are_never_followed(repo: Path, plain: Path, with_git: bool, tmp_path: Path) -> None:
    root = repo if with_git else plain
    write(root, "real/a.py")
    write(tmp_path, "outside/secret.py")
    for link, target in {
        "file": "real/a.py",
        "folder": "real",
        "loop": "loop",
        "up": "..",
        "out": str(tmp_path / "outside"),
        "out.py": "../outside/secret.py",
        "dangling": "nowhere",
    }.items():
        (root / link).symlink_to(target)
    tree = open_tree(root)
    assert tree.files == ["real/a.py"]
    assert {reason: sorted(names) for reason, names in tree.skipped.items()} == {
        "symlink": ["dangling", "file", "folder", "loop"],
        "symlink leaves the root": ["out", "out.py", "up"],
    }


@posix
def test_a_tracked_file_behind_a_folder_that_became_a_link_is_gone(repo: Path, tmp_path: Path) -> None:
    write(repo, "a/b.py")
    git(repo, "add", ".")
    write(tmp_path, "outside/b.py")
    shutil.rmtree(repo / "a")
    (repo / "a").symlink_to(tmp_path / "outside")
    tree = open_tree(repo)
    assert tree.files == []
    assert tree.skipped == {"symlink leaves the root": ["a"]}
    assert tree.can_tell("a/b.py")


@posix
@pytest.mark.parametrize("with_git", [True, False])
def test_odd_names(repo: Path, plain: Path, with_git: bool) -> None:
    root = repo if with_git else plain
    odd = ["new\nline.py", 'quo"te.py', "back\\slash.py", "-rf.py", " lead.py", "ünï.py", "tab\t.py"]
    write(root, *odd)
    os.mkfifo(root / "pipe")
    (root / "socket.py").mkdir()
    with open(os.fsencode(root) + b"/caf\xe9.py", "wb") as file:
        file.write(b"x = 1\n")
    if with_git:
        git(root, "add", ".")
    tree = open_tree(root)
    assert paths(tree) == sorted(odd)
    assert tree.skipped.pop("undecodable name") == ["caf\\udce9.py"]
    assert tree.skipped == {"not a regular file": ["pipe"]}


@pytest.fixture
def powerless() -> Iterator[Path]:
    """A folder of an ordinary user, whose permissions bind this process for the length of a test."""
    if os.name != "posix":
        pytest.skip("needs POSIX permissions")
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        with contextlib.ExitStack() as back:
            if is_root:
                os.chown(folder, 65534, 65534)
                os.seteuid(65534)
                back.callback(os.seteuid, 0)
            yield folder


@pytest.mark.parametrize("with_git", [True, False])
def test_what_cannot_be_read_is_not_gone(powerless: Path, with_git: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(powerless))
    root = powerless / "root"
    write(root, "a.py", "closed.py", "locked/b.py", "locked/deep/c.py", "open/d.py")
    if with_git:
        git(root, "init", "-q")
        git(root, "add", "locked/b.py")
    (root / "closed.py").chmod(0)
    (root / "locked").chmod(0)
    try:
        tree = open_tree(root)
        assert paths(tree) == ["a.py", "open/d.py"]
    finally:
        (root / "locked").chmod(0o700)
    assert tree.unreadable == ("locked",)
    assert "locked/" in tree.skipped["unreadable"]
    assert "closed.py" in tree.skipped["unreadable"]
    for path in ("closed.py", "locked/b.py", "locked/deep/c.py", "locked/never.py"):
        assert not tree.can_tell(path)
    for path in ("a.py", "open/gone.py", "gone.py", "locked.py", "closed.pyc"):
        assert tree.can_tell(path)


def test_a_root_that_cannot_be_listed_is_an_error(powerless: Path) -> None:
    (powerless / "closed").mkdir(mode=0)
    write(powerless, "file")
    (powerless / "loop").symlink_to("loop")
    for name, why in (
        ("closed", "Permission denied"),
        ("file", "Not a directory"),
        ("missing", "No such file"),
        ("loop", "Too many levels of symbolic links"),
        ("zero\0byte", "embedded null byte"),
    ):
        with pytest.raises(RepositoryError, match=rf"cannot list .*{name}: {why}"):
            open_tree(powerless / name)


def test_a_file_that_vanishes_while_indexing_is_gone(plain: Path) -> None:
    write(plain, "a.py", "b.py", "c.py")
    tree = open_tree(plain)
    sources = iter_sources(tree)
    assert next(sources).path == "a.py"
    (plain / "b.py").unlink()
    assert [source.path for source in sources] == ["c.py"]
    assert tree.skipped == {"gone while indexing": ["b.py"]}
    assert tree.can_tell("b.py")


@posix
def test_without_git_a_work_tree_is_walked_under_the_same_name(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(repo, "sub/a.py", "sub/b.log", "sub/nested/x.py", "out/c.py")
    write(repo, ".gitignore", text="*.log\nout/\n")
    write(repo, ".git/info/exclude", text="nothing\n")
    git(repo, "remote", "add", "origin", "https://me:token@example.org/me/thing")
    git(repo / "sub" / "nested", "init", "-q")
    with_git = open_tree(repo / "sub")
    monkeypatch.setenv("PATH", "")
    without = open_tree(repo / "sub")
    assert without == with_git
    assert (without.root, without.prefix, without.name) == (repo, "sub", "example.org/me/thing")
    assert without.files == ["sub/a.py"]
    assert open_tree(repo / "out").root == repo / "out"
    assert open_tree(repo / "out").files == ["c.py"]


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to own files of somebody else")
def test_a_work_tree_of_somebody_else_is_walked(repo: Path) -> None:
    write(repo, "a.py", "b.log")
    write(repo, ".gitignore", text="*.log\n")
    before = open_tree(repo)
    for path in (repo, repo / ".git", *repo.iterdir()):
        os.chown(path, 65534, 65534)
    refused = subprocess.run(["git", "-C", str(repo), "status"], capture_output=True, text=True)
    assert "dubious ownership" in refused.stderr
    assert open_tree(repo) == before


def test_a_hook_may_call_us(repo: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(repo, "a.py")
    git(plain, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(plain / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(plain))
    monkeypatch.setenv("GIT_INDEX_FILE", str(plain / "index"))
    assert open_tree(repo).files == ["a.py"]


def test_a_broken_index_is_an_error_and_not_an_empty_tree(repo: Path) -> None:
    write(repo, "a.py")
    write(repo, ".git/index", text="garbage that is long enough to be looked at\n")
    with pytest.raises(RepositoryError, match="git cannot list"):
        open_tree(repo)


@posix
def test_nothing_the_repository_names_is_run(repo: Path, tmp_path: Path) -> None:
    write(repo, "a.py")
    spy = tmp_path / "spy"
    spy.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    spy.chmod(0o755)
    git(repo, "config", "core.fsmonitor", str(spy))
    assert open_tree(repo).files == ["a.py"]
    assert not (tmp_path / "ran").exists()


def test_a_checkout_has_its_own_stable_id(repo: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = checkout_id(repo)
    assert one == checkout_id(repo / ".." / "repo")
    assert len(one) == 16
    assert int(one, 16) >= 0
    assert one != checkout_id(plain)
    monkeypatch.setattr(repository.socket, "gethostname", lambda: "another")
    assert one != checkout_id(repo)


@pytest.mark.parametrize("url", ["https://name:hunter2@example.com/a/b.git", "ssh://name:hunter2@example.com/a"])
def test_a_url_is_no_folder_and_is_not_repeated(url):
    for path in (url, Path(url)):
        with pytest.raises(RepositoryError, match="a URL is not a folder; clone it") as caught:
            open_tree(path)
        assert "hunter2" not in str(caught.value)


def test_a_bare_repository_has_no_files_to_index(tmp_path):
    git(tmp_path, "init", "--bare", "store.git")
    with pytest.raises(RepositoryError, match=r"store\.git is a bare git repository.*clone it"):
        open_tree(tmp_path / "store.git")
    with pytest.raises(RepositoryError, match="bare"):
        root_of(tmp_path / "store.git")


@pytest.mark.parametrize("kind", ["plain", "tracked", "below"])
def test_what_is_nested_too_deep_is_left_out_and_told_once(plain: Path, kind: str) -> None:
    deepest = "/".join(["d"] * 128)
    write(plain, f"{deepest}/a.py", f"{deepest}/d/b.py", f"{deepest}/d/d/d/c.py", "e.py")
    if kind == "tracked":
        git(plain, "init", "-q")
        git(plain, "add", ".")
    tree = open_tree(plain)
    assert tree.files == [f"{deepest}/a.py", "e.py"]
    assert tree.skipped == {"nested too deep": [f"{deepest}/d/"]}
    if kind == "below":
        git(plain, "init", "-q")
        assert open_tree(plain / deepest / "d").files == [f"{deepest}/d/b.py", f"{deepest}/d/d/d/c.py"]


@posix
def test_a_path_longer_than_systems_open_is_left_out(plain: Path) -> None:
    write(plain, "a.py")
    name, above = "d" * 255, os.open(plain, os.O_RDONLY)
    for _ in range(18):
        os.mkdir(name, dir_fd=above)
        below = os.open(name, os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    os.close(above)
    tree = open_tree(plain)
    assert tree.files == ["a.py"]
    assert tree.skipped == {"nested too deep": ["/".join([name] * 17) + "/"]}


@pytest.mark.parametrize("order", [1, -1])
def test_a_nested_repository_is_told_from_a_folder_with_tracked_files(repo: Path, order: int) -> None:
    write(repo, *[f"n{number}/x.py" for number in range(5)])
    git(repo, "add", *[f"n{number}" for number in range(5)[::2][::order]])
    for number in range(5):
        write(repo, f"n{number}/.git/HEAD", text="ref: refs/heads/main\n")
    tree = open_tree(repo)
    assert tree.files == ["n0/x.py", "n2/x.py", "n4/x.py"]
    assert tree.skipped == {"nested repository": ["n1", "n3"]}


@pytest.mark.parametrize("was", ["a file", "a submodule", "a link"])
def test_what_is_tracked_may_be_a_folder_of_files_by_now(repo: Path, was: str) -> None:
    place = repo / "a.py"
    if was == "a submodule":
        write(repo, "a.py/x.py")
        git(place, "init", "-q")
        git(place, "add", ".")
        git(place, "commit", "-q", "-m", "first")
    elif was == "a link":
        place.symlink_to("nowhere")
    else:
        place.touch()
    git(repo, "add", "a.py")
    if place.is_dir():
        assert open_tree(repo).skipped == {"nested repository": ["a.py"]}
        shutil.rmtree(place)
    else:
        place.unlink()
    write(repo, "a.py/sub/z.py")
    tree = open_tree(repo)
    assert (tree.files, tree.skipped) == (["a.py/sub/z.py"], {})


def test_what_became_of_a_very_long_path_is_told_at_once(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "", "")
    long = "a/" * 500_000 + "x.py"  # all folders above it would take 500 GB
    assert tree.can_tell(long)
    tree.skip("unreadable", "b/")
    assert tree.can_tell(long)
    tree.skip("unreadable", "a/a/")
    assert not tree.can_tell(long)
