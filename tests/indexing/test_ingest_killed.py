"""SIGKILL at any moment, then run again: exactly the collection of an undisturbed run."""

import random
import sys

import pytest

from c2llm_integrations.stores import open_store
from tests.golden import COMPRESSED, TIED
from tests.ingesting import assert_equal, contents, contents_at, finish, kill, start, write_tree
from tests.repeats import KILLS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")]


def test_a_killed_run_resumes_to_the_same_collection(tmp_path):
    random.seed(20240)
    killed, calm = (f"qdrant+edge://{tmp_path / name}" for name in ("killed", "calm"))
    repo = write_tree(tmp_path / "repo", 0)
    died = 0
    for attempt in range(KILLS):
        if attempt == KILLS // 2:  # the others interrupt an update: edits, moves and deletions
            finish(start(repo, killed, TIED))
            write_tree(repo, 1)
        died += kill(start(repo, killed, TIED), 36)
    assert died >= KILLS // 2
    finish(start(repo, killed, TIED))
    assert finish(start(repo, killed, TIED)) == (0, 0, False)
    finish(start(repo, calm, TIED))
    assert_equal(contents_at(killed), contents_at(calm))


def test_a_killed_replacement_leaves_the_old_or_the_new_rows_whole_and_resumes(tmp_path):
    random.seed(20241)
    killed, calm = (f"qdrant+edge://{tmp_path / name}" for name in ("killed", "calm"))
    repo = write_tree(tmp_path / "repo", 0, files=20)
    finish(start(repo, killed, TIED))
    old = contents_at(killed)
    write_tree(repo, 1, files=20)
    finish(start(repo, calm, COMPRESSED))
    new = contents_at(calm)
    for _ in range((KILLS + 1) // 2):
        kill(start(repo, killed, COMPRESSED, "--replace"), 20)
        with open_store(killed) as store:
            assert_equal(contents(store), old if store.spec.width == old[1].shape[1] else new)
    assert finish(start(repo, killed, COMPRESSED, "--replace"))[2]
    assert_equal(contents_at(killed), new)
    assert finish(start(repo, killed, COMPRESSED)) == (0, 0, False)
