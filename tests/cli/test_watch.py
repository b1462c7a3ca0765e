"""`c2llm index --watch` and what it copies from other worktrees."""

import os
import signal
import subprocess

import pytest

from c2llm_integrations.stores import open_store
from tests.cli.running import answer, command, complaint
from tests.repositories import commit_modules, git
from tests.waiting import until

pytestmark = pytest.mark.slow


def paths(folder):
    with open_store(f"qdrant+edge://{folder / '.c2llm'}", wait=60) as store:
        return {row.path for row in store.scan()}


def after_a_run(log, is_so):
    """Return what looks, after each run that the log tells of: a store that is asked all the time holds runs up."""
    told = 0

    def look():
        nonlocal told
        before, told = told, log.read_text().count("files, written")
        return told > before and is_so()

    return look


@pytest.mark.skipif(os.name == "nt", reason="no such signal")
def test_an_index_that_is_watched_stays_current_until_ctrl_c(project, tiny_model, tmp_path):
    pytest.importorskip("watchfiles", reason="the extra watch is not installed")
    git(project, "init")
    git(project, "add", "-A")
    git(project, "commit", "-m", "all")
    log = (tmp_path / "log").open("w+")
    running = subprocess.Popen(
        command("index", project, "--model", tiny_model, "--watch"), stdout=subprocess.PIPE, stderr=log
    )
    until(lambda: "watching" in (tmp_path / "log").read_text())
    (project / "new.py").write_text("def brand_new():\n    return 1\n")
    until(after_a_run(tmp_path / "log", lambda: "new.py" in paths(project)))
    git(project, "checkout", "-b", "other")
    git(project, "rm", "-q", "web/retry.js")
    git(project, "commit", "-m", "less")
    until(after_a_run(tmp_path / "log", lambda: "web/retry.js" not in paths(project)))
    git(project, "checkout", "main")
    until(after_a_run(tmp_path / "log", lambda: "web/retry.js" in paths(project)))
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 0
    printed = (tmp_path / "log").read_text()
    assert "Traceback" not in printed
    assert "1 files, written 1, moved 0, deleted 0" in printed  # only what changed is looked at
    log.close(), running.stdout.close()


def test_a_dry_run_cannot_be_watched(project, capsys):
    assert "--dry-run" in complaint(capsys, 2, "index", project, "--dry-run", "--watch")


def test_a_new_worktree_copies_what_is_equal(tmp_path, tiny_model, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    commit_modules(first, 70)
    answer(capsys, "index", first, "--model", tiny_model)
    git(first, "worktree", "add", str(second))
    copied = subprocess.run(command("index", second, "--model", tiny_model), capture_output=True, text=True, check=True)
    assert "70 vectors were copied from other worktrees" in copied.stderr
    assert paths(first) == paths(second)
