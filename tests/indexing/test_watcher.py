"""Watching a folder: each burst is worked on once, and nothing that happens ends it."""

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("watchfiles", reason="the extra watch is not installed")

from c2llm_integrations.errors import RepositoryError, StoreError
from c2llm_integrations.indexing import watcher
from c2llm_integrations.indexing.watcher import watch
from tests.waiting import until

pytestmark = pytest.mark.slow


class Looks(threading.Event):
    """An event that counts how often somebody waited for it in vain."""

    count = 0

    def wait(self, timeout=None):
        is_set = super().wait(timeout)
        self.count += not is_set
        return is_set


class Watched:
    """A folder that is being watched; `worked` counts the calls, `said` keeps the lines."""

    def __init__(self, folder, work=lambda: None):
        self.worked = 0
        self.said = []
        self.stopped = Looks()
        self._work = work
        self._thread = threading.Thread(target=watch, args=(folder, self._count, self.said.append, self.stopped))

    def _count(self):
        self._work()
        self.worked += 1

    def waits(self):
        """Wait until the watch has looked a few more times at what it waits for."""
        before = self.stopped.count
        until(lambda: self.stopped.count >= before + 3)

    def __enter__(self):
        self._thread.start()
        until(lambda: self.worked or self.said)
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture(autouse=True)
def no_looking(monkeypatch):
    """Only changes count."""
    monkeypatch.setattr(watcher, "REPEAT_SECONDS", 1000)


def test_it_works_once_at_first_and_once_a_burst(project):
    with Watched(project) as watched:
        for number in range(50):
            (project / f"new{number}.py").write_text("x = 1\n")
        until(lambda: watched.worked > 1)
        before = watched.worked
        (project / "web" / "retry.js").unlink()
        until(lambda: watched.worked > before)
        before = watched.worked
        (project / "deep" / "er").mkdir(parents=True)
        (project / "deep" / "er" / "a.py").write_text("x = 1\n")
        until(lambda: watched.worked > before)
        assert watched.worked < 25  # a burst that a busy machine writes slowly may count as several


def test_its_own_index_and_git_are_no_change(tmp_path):
    folder = tmp_path / ".git" / "checkout"
    for name in (".git/index", ".c2llm/code", "shop/.c2llm"):
        assert not watcher.is_source(folder, str(folder / name))
    assert watcher.is_source(folder, str(folder / "shop" / "git.py"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of watched folders")
def test_a_link_is_not_watched_through_and_new_folders_are(project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "deep" / "er").mkdir(parents=True)
    (project / "out").symlink_to(elsewhere)
    (project / "round").symlink_to(project)

    def watched_folders():
        count = 0
        for file in Path("/proc/self/fdinfo").iterdir():
            with suppress(FileNotFoundError):  # closed since it was listed
                count += file.read_text().count("inotify wd:")
        return count

    folders = 1 + sum(one.is_dir() and not one.is_symlink() for one in project.rglob("*"))
    with Watched(project) as watched:
        assert watched_folders() == folders
        (project / "new" / "er").mkdir(parents=True)
        (project / "late").symlink_to(elsewhere)
        until(lambda: watched_folders() == folders + 2)
        before = watched.worked
        (project / "new" / "er" / "a.py").write_text("x = 1\n")
        until(lambda: watched.worked > before)


def test_an_endless_burst_is_worked_on_all_the_same(project, monkeypatch):
    monkeypatch.setattr(watcher, "BURST_MS", 1000)
    with Watched(project) as watched:

        def worked():
            (project / "log.py").write_text(f"x = {time.monotonic()}\n")
            return watched.worked >= 2

        until(worked)  # writes far more often than a burst may take to end


def test_a_failed_run_is_told_and_does_not_end_it(project):
    failures = iter([StoreError("the disk is full"), OSError("no such device"), MemoryError()])

    def work():
        for failure in failures:
            raise failure

    with Watched(project, work) as watched:
        assert watched.said == ["not indexed: the disk is full; trying again with the next change"]
        for count in (2, 3):
            (project / "a.py").write_text(f"x = {count}\n")
            until(lambda count=count: len(watched.said) == count)
        (project / "a.py").write_text("x = 9\n")
        until(lambda: watched.worked == 1)
        assert watched.said[2] == "not indexed: MemoryError; trying again with the next change"


def test_it_looks_now_and_then_even_if_no_event_comes(project, monkeypatch):
    monkeypatch.setattr(watcher, "REPEAT_SECONDS", 0.3)
    with Watched(project) as watched:
        until(lambda: watched.worked >= 3)


def test_a_folder_that_vanishes_and_comes_back(project):
    kept = project.with_name("kept")
    with Watched(project) as watched:
        shutil.move(project, kept)
        until(lambda: watched.said)
        assert "is gone" in watched.said[0]
        before = watched.worked
        watched.waits()
        assert watched.worked == before
        shutil.copytree(kept, project)
        until(lambda: watched.worked > before)
        before = watched.worked
        (project / "after.py").write_text("x = 1\n")
        until(lambda: watched.worked > before)


def test_another_folder_put_in_its_place_is_watched(project):
    new = project.with_name("new")
    shutil.copytree(project, new)
    with Watched(project) as watched:
        shutil.move(project, project.with_name("old"))
        shutil.move(new, project)
        until(lambda: watched.worked >= 2)
        before = watched.worked
        (project / "after.py").write_text("x = 1\n")
        until(lambda: watched.worked > before)


def test_it_waits_while_git_is_at_work(project):
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    with Watched(project) as watched:
        lock = project / ".git" / "index.lock"
        lock.touch()
        (project / "a.py").write_text("x = 1\n")
        watched.waits()
        assert watched.worked == 1
        lock.unlink()
        until(lambda: watched.worked == 2)


def test_a_folder_that_is_not_there_yet(tmp_path):
    folder = tmp_path / "later"
    with Watched(folder) as watched:
        folder.mkdir()
        until(lambda: watched.worked == 1)


def test_the_extra_is_named_where_it_is_missing(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ImportError, match=r"c2llm-integrations\[watch\]"):
        watch(project, lambda: None, print)


def test_a_lock_that_stays_is_waited_for_once(project, monkeypatch):
    """A killed git, or an archive, leaves one that nobody takes away."""
    monkeypatch.setattr(watcher, "GIT_SECONDS", 1.0)
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    lock = project / ".git" / "index.lock"
    lock.touch()
    with Watched(project) as watched:
        monkeypatch.setattr(watcher, "GIT_SECONDS", 1000.0)
        for number in range(3):
            before = watched.worked
            (project / "a.py").write_text(f"x = {number}\n")
            until(lambda before=before: watched.worked > before)
        before = watched.worked
        lock.unlink()
        lock.write_text("another git is at work")
        (project / "a.py").write_text("x = 9\n")
        watched.waits()
        assert watched.worked == before
        lock.unlink()
        until(lambda: watched.worked > before)


@pytest.mark.skipif(sys.platform != "linux", reason="names are not UTF-8 on Linux only")
def test_a_folder_whose_name_is_not_utf8_is_told_and_left_out(project):
    below = os.fsencode(project)
    os.mkdir(below + b"/caf\xe9")
    os.mkdir(below + b"/caf\xe9/inner")
    with Watched(project) as watched:
        assert watched.said == [rf"{project}/caf\udce9 has a name that is not UTF-8: neither watched nor indexed"]
        before = watched.worked
        (project / "a.py").write_text("x = 1\n")
        until(lambda: watched.worked > before)
        os.mkdir(below + b"/\xe9\xe9")
        (project / "later").mkdir()
        until(lambda: len(watched.said) == 2)
        assert "and 1 more folders have a name that is not UTF-8" in watched.said[1]
        before = watched.worked
        (project / "later" / "a.py").write_text("x = 1\n")
        until(lambda: watched.worked > before)


@pytest.mark.skipif(sys.platform != "linux", reason="names are not UTF-8 on Linux only")
def test_a_watched_folder_needs_a_name_in_utf8(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    with pytest.raises(RepositoryError, match=r"caf\\udce9 has a name that is not UTF-8"):
        watch(folder, lambda: None, print)
