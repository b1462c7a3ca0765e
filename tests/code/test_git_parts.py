"""A git folder is told by what it holds, whatever its name and whatever a copy has lost."""

import os
import shutil
import subprocess
import sys

import pytest

from c2llm_integrations.code.git import run_git
from c2llm_integrations.code.version_control import is_git_folder
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
