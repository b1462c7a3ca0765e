"""A git folder is told by what it holds, whatever its name and whatever a copy has lost."""

import os
import shutil
import subprocess
import sys

import pytest

from c2llm_integrations.code import git as git_module
from c2llm_integrations.code.git import check_out, run_git
from c2llm_integrations.code.repository import open_tree
from c2llm_integrations.code.version_control import is_git_folder
from c2llm_integrations.errors import RepositoryError
from tests.repositories import git


@pytest.fixture
def copied(tmp_path):
    git(tmp_path, "init", "-q", "source")
    return shutil.copytree(tmp_path / "source" / ".git", tmp_path / "backup")


@pytest.mark.parametrize("lost", [(), ("refs",), ("objects",), ("HEAD",), ("config", "hooks"), ("hooks", "refs")])
def test_a_copy_that_lost_a_part_is_one(copied, lost):
    for part in lost:
        shutil.rmtree(copied / part) if (copied / part).is_dir() else (copied / part).unlink()
    assert is_git_folder(copied)


@pytest.mark.parametrize("lost", [("HEAD", "refs"), ("HEAD", "objects"), ("config", "objects", "refs")])
def test_a_packed_copy_that_lost_several_parts_is_one(copied, lost):
    (copied / "packed-refs").write_text("# pack-refs with: peeled fully-peeled sorted\n")
    for part in lost:
        shutil.rmtree(copied / part) if (copied / part).is_dir() else (copied / part).unlink()
    assert is_git_folder(copied)


HEAD, COMMIT = "ref: refs/heads/main\n", f"{'0a' * 20}\n"
CONFIG = "[core]\n\trepositoryformatversion = 0\n\tbare = false\n"


@pytest.mark.parametrize(
    "parts",
    [
        *({"HEAD": HEAD, "description": "x"}, {"HEAD": COMMIT, "info/": ""}, {"HEAD": "0a" * 32, "branches/": ""}),
        *(
            {"config": CONFIG, "objects/pack/": ""},
            {"config": CONFIG, "description": "x"},
            {"config": CONFIG, "hooks/": ""},
        ),
        *({"refs/heads/main": COMMIT, "hooks/": ""}, {"logs/HEAD": "x", "info/": "", "hooks/": ""}),
        *({"info/exclude": "x", "hooks/": ""}, {"HEAD": "refs/heads/main\0link", "description": "x"}),
    ],
)
def test_what_is_left_of_one_is_left_out(tmp_path, parts):
    write(tmp_path / "lib" / "kept", parts)
    (tmp_path / "lib" / "a.py").write_text("a = 1\n")
    assert is_git_folder(tmp_path / "lib" / "kept")
    tree = open_tree(tmp_path)
    assert (tree.files, tree.skipped) == (["lib/a.py"], {"git's own files": ["lib/kept/"]})


@pytest.mark.parametrize(
    "parts",
    [
        *({"hooks/pre-commit": "x"}, {"HEAD": "# heading\n", "description": "x"}, {"HEAD": "cafe", "info/": ""}),
        *({"HEAD": HEAD}, {"config": CONFIG}, {"config": "[core]\nx = 1\n", "hooks/": "", "objects/pack/": ""}),
        *({"info/": "", "description": "x", "hooks/": ""}, {"refs/heads/": ""}, {"logs/HEAD": "x"}),
    ],
)
def test_parts_that_a_project_may_have_are_source(tmp_path, parts):
    write(tmp_path, parts)
    assert not is_git_folder(tmp_path)


def write(folder, parts):
    """Write the parts of a folder: folders end with "/", a text with a zero byte is where a link leads."""
    for part, text in parts.items():
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        if part.endswith("/"):
            (folder / part).mkdir()
        elif "\0" in text:
            (folder / part).symlink_to(text.partition("\0")[0])
        else:
            (folder / part).write_text(text)


@pytest.mark.parametrize("name", ["HEAD", "packed-refs"])
def test_one_file_of_such_a_name_makes_no_git_folder(tmp_path, name):
    (tmp_path / name).write_text("x")
    (tmp_path / "main.py").write_text("x = 1\n")
    assert not is_git_folder(tmp_path)


def test_what_git_keeps_of_a_worktree_is_one(tmp_path):
    (tmp_path / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / "commondir").write_text("../..\n")
    assert is_git_folder(tmp_path)


@pytest.mark.parametrize("names", [("config", "hooks", "objects", "refs"), ("objects", "hooks"), ("config",)])
def test_folders_of_those_names_are_source(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()
    assert not is_git_folder(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="loads no libraries by a variable")
@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES"])
def test_git_is_run_without_what_would_load_a_library_into_it(name, monkeypatch):
    seen = []
    real = subprocess.Popen
    monkeypatch.setenv(name, os.devnull)
    monkeypatch.setattr(subprocess, "Popen", lambda *command, **how: seen.append(how["env"]) or real(*command, **how))
    run_git("--version")
    assert name not in seen[0]


@pytest.fixture
def endless(tmp_path):
    """A commit of ten billion folders without a file in a few kilobytes, of which git never prints anything."""
    git(tmp_path, "init", "-q")
    tree = run(tmp_path, "mktree", given="")
    for _ in range(10):
        tree = run(tmp_path, "mktree", given="".join(f"040000 tree {tree}\td{n}\n" for n in range(10)))
    commit = run(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit-tree", "-m", "x", tree)
    git(tmp_path, "update-ref", "HEAD", commit)
    return tmp_path


def run(folder, *arguments, given=None):
    done = subprocess.run(["git", "-C", folder, *arguments], input=given, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_folders_without_files_are_counted_for_a_limited_time(endless, monkeypatch):
    monkeypatch.setattr(git_module, "COUNT_SECONDS", 0.5)
    with pytest.raises(RepositoryError, match=r"its files cannot be counted: git did not answer within 0.5 s"):
        check_out(endless, 3600)


@pytest.mark.skipif(sys.platform != "linux", reason="processor time is limited on Linux alone")
def test_git_ends_by_itself_if_this_process_is_killed(endless, monkeypatch):
    kill, limits = git_module._kill, []

    def killed(process):
        with open(f"/proc/{process.pid}/limits") as lines:
            limits.extend(line.split()[3] for line in lines if line.startswith("Max cpu time"))
        kill(process)

    monkeypatch.setattr(git_module, "_kill", killed)
    with pytest.raises(RepositoryError, match="did not answer"):
        run_git("ls-tree", "-r", "HEAD", folder=endless / ".git", seconds=0.5)
    assert int(limits[0]) <= 0.5 * os.cpu_count() + 2
