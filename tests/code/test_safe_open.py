from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from c2llm_integrations.code.repository import iter_sources, open_tree
from c2llm_integrations.code.safe_open import NotRegular, list_inside, open_inside, read_inside
from c2llm_integrations.code.source_file import read_source

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX links, pipes and sockets")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "c.py").write_text("inside = 1\n")
    (tmp_path / "outside" / "b").mkdir(parents=True)
    (tmp_path / "outside" / "b" / "c.py").write_text("outside = 1\n")
    return root


def test_a_file_is_read_and_a_folder_listed(root: Path) -> None:
    assert read_inside(root, "a/b/c.py") == b"inside = 1\n"
    assert read_inside(root, "a/b/c.py", 3) == b"ins"
    assert list_inside(root, "") == [("a", True)]
    assert list_inside(root, "a/b") == [("c.py", False)]


@pytest.mark.parametrize(
    "path", ["../outside/b/c.py", "a/../a/b/c.py", "/etc/passwd", "a//b/c.py", "./a/b/c.py", "a\0"]
)
def test_no_path_leads_out(root: Path, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        open_inside(root, path)
    assert read_source(root, path)[0] == "gone while indexing"


@pytest.mark.parametrize("place", ["a", "a/b", "a/b/c.py"])
def test_no_link_is_followed_at_any_depth(root: Path, place: str) -> None:
    whole, below = root / place, Path(place).relative_to("a")
    target = root.parent / "outside" / below
    shutil.rmtree(whole) if whole.is_dir() else whole.unlink()
    whole.symlink_to(target)
    is_file = place == "a/b/c.py"
    with pytest.raises(NotRegular if is_file else NotADirectoryError):
        open_inside(root, "a/b/c.py")
    assert read_source(root, "a/b/c.py") == ("not a regular file" if is_file else "gone while indexing", None)
    if not is_file:
        with pytest.raises(NotADirectoryError):
            list_inside(root, "a/b")


def test_a_root_that_became_a_link_is_not_followed(root: Path) -> None:
    tree = open_tree(root)
    root.rename(root.parent / "moved")
    root.symlink_to(root.parent / "outside" / "b")
    (root / "a").mkdir()
    (root / "a" / "b").symlink_to(root.parent / "outside" / "b")
    tree.files.append("c.py")
    assert list(iter_sources(tree)) == []
    for path in ("c.py", "a/b/c.py"):
        with pytest.raises(NotADirectoryError):
            read_inside(root, path)
    for folder in ("", "a"):
        with pytest.raises(NotADirectoryError):
            list_inside(root, folder)


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "link", "loop"])
def test_what_is_not_a_file_is_not_waited_for(root: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)  # a socket's path is short
    if kind == "pipe":
        os.mkfifo("x")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("x")
    elif kind == "folder":
        os.mkdir("x")
    else:
        os.symlink("x" if kind == "loop" else "a/b/c.py", "x")
    with pytest.raises(NotRegular):
        open_inside(root, "x")
    assert read_source(root, "x") == ("not a regular file", None)


def test_a_folder_that_becomes_a_link_between_listing_and_reading(root: Path) -> None:
    (root / "0.py").write_text("first = 1\n")
    tree = open_tree(root)
    sources = iter_sources(tree)
    assert next(sources).path == "0.py"
    shutil.rmtree(root / "a")
    (root / "a").symlink_to(root.parent / "outside")
    assert list(sources) == []
    assert tree.skipped == {"gone while indexing": ["a/b/c.py"]}
