"""Freshness: what changed since indexing is always told, and what did not is not read again."""

import json
import os
import shutil
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.code import source_file
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.repository import checkout_id, iter_sources, open_tree
from c2llm_integrations.errors import RepositoryError, StoreBusy
from c2llm_integrations.indexing import claims, file_states, staleness
from c2llm_integrations.indexing.file_states import SnapshotWriter, record_file
from c2llm_integrations.indexing.staleness import Staleness, stale
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec
from tests.repositories import git

pytestmark = pytest.mark.slow


DEEP = "a/" * 200_000 + "b.py"


def fill(folder, store, finish=True, claim=False):
    """Do with the store what an indexing run does, with vectors that mean nothing; `claim` as of today."""
    tree = open_tree(folder)
    store.create(CollectionSpec(2, {"model": "none"}))
    if claim:
        claims.claim(tree, store)
    else:
        store.claim(tree.name, checkout_id(tree.root))
    with SnapshotWriter(tree, store) as recording:
        absent = {row.id for row in store.scan(source=tree.name)}
        for source in iter_sources(tree):
            chunks = chunk_source(tree.name, source.path, source.text)
            store.upsert([Row(chunk, np.ones(2, np.float32)) for chunk in chunks])
            absent -= {chunk.id for chunk in chunks}
        store.delete(sorted(absent))
        if finish:
            recording.finish(store.count(source=tree.name))


@given(st.lists(st.lists(st.sampled_from(["a", "b", "a-b", "ab"]), min_size=1, max_size=4).map("/".join)))
def test_each_folder_above_a_path_is_looked_at_once(paths):
    found = list(file_states.folders_above(paths))
    assert len(found) == len(set(found))
    assert set(found) == {"", *(path[:at] for path in paths for at, char in enumerate(path) if char == "/")}


def test_the_folders_above_deep_paths_are_not_all_kept(tmp_path):
    paths = [f"{number}/{'/'.join(['d' * 14] * 250)}/x.py" for number in range(200)]  # 100 MB of folders
    tracemalloc.start()
    try:
        assert file_states.ignore_rules(tmp_path, paths) == {}
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.fixture
def old(monkeypatch):
    """Take no file for one that was just written, as on the day after."""
    monkeypatch.setattr(source_file, "RACY_NS", -60_000_000_000)


@pytest.fixture
def repository(project):
    """A git repository of a few files."""
    git(project, "init")
    git(project, "add", "-A")
    git(project, "commit", "-m", "all")
    return project


@pytest.fixture
def store(repository):
    """The embedded index of the repository, filled."""
    with open_store(f"qdrant+edge://{repository / '.c2llm'}") as opened:
        fill(repository, opened)
        yield opened


def test_nothing_changed(repository, store):
    assert stale(repository, store) is None


def test_every_kind_of_change_is_named(repository, store):
    (repository / "shop" / "prices.py").write_text("price = 2\n")
    (repository / "web" / "retry.js").unlink()
    (repository / "new.py").write_text("new = 1\n")
    found = stale(repository, store)
    assert found == Staleness(("shop/prices.py",), ("new.py",), ("web/retry.js",))
    assert found.paths == {"shop/prices.py", "new.py", "web/retry.js"}
    assert str(found) == (
        "answers may be stale: 3 files differ from the index (1 changed, 1 new, 1 deleted); run: c2llm index"
    )


def test_a_change_that_leaves_size_and_time_as_they_were(repository, store, old):
    fill(repository, store)
    file = repository / "shop" / "prices.py"
    before = file.stat()
    file.write_bytes(file.read_bytes().replace(b"rate", b"quota"[:4]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert stale(repository, store).changed == ("shop/prices.py",)


def test_a_file_read_just_after_it_was_written_is_read_again(repository, store, monkeypatch):
    """It may have been written once more in the same tick of the clock, which would leave no trace."""
    monkeypatch.setattr(source_file, "RACY_NS", 600_000_000_000)
    file = repository / "tick.py"
    file.write_text("a = 1\n")
    fill(repository, store)
    assert file_states.load(record_file(repository, store)).states["tick.py"][:2] == (0, 0)
    assert stale(repository, store) is None
    file.write_text("b = 2\n")
    assert stale(repository, store).changed == ("tick.py",)


def test_a_touched_file_is_read_once_and_then_known(repository, store, old, monkeypatch):
    fill(repository, store)
    read = []
    real = staleness.read_file
    monkeypatch.setattr(staleness, "read_file", lambda root, path: read.append(path) or real(root, path))
    assert (stale(repository, store), read) == (None, [])
    (repository / "README.md").touch()
    assert (stale(repository, store), read) == (None, ["README.md"])
    assert (stale(repository, store), read) == (None, ["README.md"])


def test_without_time_to_look_a_touched_file_is_told_as_not_compared(repository, store, old):
    fill(repository, store)
    (repository / "README.md").touch()
    found = stale(repository, store, patience=0)
    assert (found.changed, found.unread, found.paths) == ((), ("README.md",), {"README.md"})
    assert "1 file was touched and not compared yet" in str(found)
    assert stale(repository, store) is None


@pytest.mark.parametrize("ahead", [60, 86_400, 400 * 86_400])
def test_times_ahead_of_the_clock_are_believed(ahead, repository, store, monkeypatch):
    """Set by hand, or written while the clock was ahead: then the inode's own time lies there too."""
    real = source_file.time.time_ns
    file = repository / "README.md"
    os.utime(file, ns=(real(), real() + ahead * 10**9))
    monkeypatch.setattr(source_file.time, "time_ns", lambda: real() - ahead * 10**9 // 2)
    fill(repository, store)
    assert all(state[0] for state in file_states.load(record_file(repository, store)).states.values())
    assert stale(repository, store, patience=0) is None
    file.write_text("# Changed\n")
    assert stale(repository, store).changed == ("README.md",)


def test_progress_in_comparing_is_kept_beside_a_new_file(repository, store, old, monkeypatch):
    fill(repository, store)
    (repository / "new.py").write_text("new = 1\n")
    (repository / "README.md").touch()
    assert stale(repository, store).new == ("new.py",)
    monkeypatch.setattr(staleness, "read_file", lambda *_: pytest.fail("read twice"))
    monkeypatch.setattr(source_file, "RACY_NS", -(10**18))
    assert stale(repository, store, patience=0).unread == ()


@pytest.mark.parametrize("change", ["moved", "copied", "another host"])
def test_the_index_in_a_checkout_stays_its_own(change, repository, tmp_path, monkeypatch):
    with open_store(f"qdrant+edge://{repository / '.c2llm'}") as store:
        fill(repository, store, claim=True)
    there = repository
    if change == "another host":
        monkeypatch.setattr("socket.gethostname", lambda: "c0ffee")
    else:
        there = tmp_path / "there"
        (shutil.move if change == "moved" else shutil.copytree)(repository, there)
    with open_store(f"qdrant+edge://{there / '.c2llm'}") as store:
        assert stale(there, store, patience=60) is None
        (there / "README.md").write_text("# Changed\n")
        assert stale(there, store, patience=60).changed == ("README.md",)


def test_a_store_elsewhere_says_that_another_host_filled_it(repository, tmp_path, monkeypatch):
    with open_store(f"qdrant+edge://{tmp_path / 'index'}") as store:
        fill(repository, store)
        monkeypatch.setattr("socket.gethostname", lambda: "c0ffee")
        assert "another checkout or host" in str(stale(repository, store))


def test_another_branch(repository, store):
    git(repository, "checkout", "-b", "other")
    assert stale(repository, store) is None  # the same files
    (repository / "new.py").write_text("new = 1\n")
    assert str(stale(repository, store)) == (
        "answers may be stale: 1 file differs from the index (1 new), "
        "branch 'other' instead of 'main'; run: c2llm index"
    )
    git(repository, "checkout", "main")
    (repository / "new.py").unlink()
    assert stale(repository, store) is None


def test_ignored_files_and_secrets_are_no_news(repository, store):
    (repository / ".git" / "info" / "exclude").write_text("*.log\n")
    (repository / "run.log").write_text("x\n")
    (repository / "web" / ".env").write_text("KEY=1\n")
    assert stale(repository, store) is None


def test_a_file_that_git_now_ignores_is_gone_from_the_tree(repository, store):
    git(repository, "rm", "--cached", "web/retry.js")
    (repository / ".git" / "info" / "exclude").write_text("web/\n")
    assert stale(repository, store).deleted == ("web/retry.js",)


def test_an_ignore_file_of_ours_that_git_hides(repository, store):
    (repository / ".git" / "info" / "exclude").write_text(".c2llmignore\n")
    (repository / "web" / ".c2llmignore").write_text("retry.js\n")
    assert stale(repository, store).deleted == ("web/retry.js",)


def test_an_ignore_file_that_hides_nothing_is_judged_once(repository, store, monkeypatch, old):
    (repository / ".git" / "info" / "exclude").write_text(".c2llmignore\n")
    fill(repository, store)
    (repository / "web" / ".c2llmignore").write_text("nothing.js\n")
    assert stale(repository, store) is None
    assert list(file_states.load(record_file(repository, store)).rules) == ["web/.c2llmignore"]


def test_a_large_file_that_shrinks_is_new(repository, store):
    large = repository / "large.py"
    large.write_text("x = 1\n" * 300_000)
    fill(repository, store)
    assert stale(repository, store) is None
    large.write_text("x = 1\n")
    assert stale(repository, store).new == ("large.py",)


def test_a_file_that_becomes_a_link_is_never_read(repository, store, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret\n")
    (repository / "README.md").unlink()
    (repository / "README.md").symlink_to(secret)
    assert stale(repository, store).changed == ("README.md",)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_no_news_until_it_can_be_read(repository, store):
    closed = repository / "README.md"
    closed.chmod(0)
    fill(repository, store)
    assert stale(repository, store) is None
    closed.chmod(0o644)
    assert stale(repository, store).changed == ("README.md",)


def test_a_run_that_did_not_finish_is_told(repository, store):
    fill(repository, store, finish=False)
    assert "did not finish" in str(stale(repository, store))
    fill(repository, store)
    assert stale(repository, store) is None


def test_rows_that_went_missing_are_told(repository, store):
    store.delete([next(store.scan()).id])
    assert "did not finish" in str(stale(repository, store))


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"layout": 99}', b'{"layout": 1, "paths": ["a"]}', b"\xff"])
def test_a_damaged_record_claims_nothing(damage, repository, store):
    record_file(repository, store).write_bytes(damage)
    assert "did not finish" in str(stale(repository, store))


def test_a_run_in_between_keeps_its_record_from_a_search_that_verifies(repository, store, old, monkeypatch):
    fill(repository, store)
    (repository / "README.md").touch()
    real = staleness.read_file

    def read_while_a_run_begins(root, path):
        with SnapshotWriter(open_tree(repository), store):
            pass
        return real(root, path)

    monkeypatch.setattr(staleness, "read_file", read_while_a_run_begins)
    assert stale(repository, store) is None
    assert not record_file(repository, store).exists()


def test_another_checkout_has_nothing_to_compare(repository, store, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    assert stale(other, store) is None


def test_a_moved_checkout_is_told(repository, tmp_path):
    url = f"qdrant+edge://{repository / '.c2llm'}"
    with open_store(url) as store:
        fill(repository, store)
    moved = tmp_path / "moved"
    shutil.move(repository, moved)
    with open_store(f"qdrant+edge://{moved / '.c2llm'}") as store:
        assert "elsewhere" in str(stale(moved, store))


def test_a_root_that_vanished_is_told(repository, tmp_path):
    with open_store(f"qdrant+edge://{tmp_path / 'index'}") as store:
        fill(repository, store)
        shutil.rmtree(repository)
        assert "cannot list" in str(stale(repository, store))


def test_folders_indexed_one_after_the_other(repository, tmp_path):
    with open_store(f"qdrant+edge://{tmp_path / 'index'}") as store:
        fill(repository / "shop", store)
        (repository / "web" / "unseen.js").write_text("let a = 1\n")
        assert stale(repository, store) is None
        fill(repository / "web", store)
        (repository / "shop" / "new.py").write_text("new = 1\n")
        (repository / "web" / "unseen.js").unlink()
        found = stale(repository, store)
        assert (found.new, found.deleted) == (("shop/new.py",), ("web/unseen.js",))
        fill(repository, store)
        assert stale(repository, store) is None


def test_without_git(project, tmp_path):
    with open_store(f"qdrant+edge://{tmp_path / 'index'}") as store:
        fill(project, store)
        assert stale(project, store) is None
        (project / "web" / "new.js").write_text("let a = 1\n")
        (project / "web" / "retry.js").unlink()
        found = stale(project, store)
        assert (found.new, found.deleted) == (("web/new.js",), ("web/retry.js",))


def test_a_store_elsewhere_keeps_its_record_in_the_users_cache(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", str(tmp_path / "cache"))
    with open_store(f"milvus+lite://{tmp_path / 'index.db'}") as store:
        fill(repository, store)
        assert Path(record_file(repository, store)).parent == tmp_path / "cache" / "c2llm"
        assert stale(repository, store) is None
        (repository / "README.md").unlink()
        assert stale(repository, store).deleted == ("README.md",)


def test_a_search_that_verifies_waits_for_nobody(repository, store):
    file = record_file(repository, store)
    with file_states.locked(file), pytest.raises(StoreBusy), file_states.locked(file):
        raise AssertionError
    assert stale(repository, store) is None


def test_one_run_on_a_checkout_at_a_time(repository, store):
    with SnapshotWriter(open_tree(repository), store), pytest.raises(StoreBusy, match="a run that indexes"):
        fill(repository, store)
    fill(repository, store)
    assert stale(repository, store) is None


def record_of(repository):
    (record,) = (repository / ".c2llm").glob("*.states")
    return record, json.loads(record.read_text())


def test_a_folder_that_a_record_repeats_is_listed_once(repository, store, monkeypatch):
    record, whole = record_of(repository)
    record.write_text(json.dumps({**whole, "prefixes": ["", "shop", ""] * 40_000}))
    listed = []
    real = staleness.list_again
    monkeypatch.setattr(staleness, "list_again", lambda *about: (listed.append(about[1]), real(*about))[1])
    assert stale(repository, store) is None
    assert listed == [""]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_the_place_of_a_record_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "record")
    waiting = threading.Thread(target=file_states.load, args=(tmp_path / "record",), daemon=True)
    waiting.start()
    waiting.join(20)
    assert not waiting.is_alive()


def test_a_record_of_very_many_folders_is_none(repository, store, monkeypatch):
    record, whole = record_of(repository)
    monkeypatch.setattr(staleness, "list_again", lambda *_: pytest.fail("nothing may be listed"))
    record.write_text(json.dumps({**whole, "prefixes": [f"f{number}" for number in range(claims.MAX_FOLDERS + 1)]}))
    assert "did not finish" in str(stale(repository, store))


@pytest.mark.parametrize("more", [0, 1])
def test_as_many_folders_as_a_claim_tells_apart(more, repository, store):
    """What a run writes of many folders reads as it was written, or as all of the checkout."""
    count = claims.MAX_FOLDERS + more
    folders = claims.outermost([f"f{number}{part}" for number in range(count) for part in ("", "/a")])
    assert len(folders) == (0 if more else count)
    assert claims.Claim.parse(str(claims.Claim(".", None, folders))).folders == folders
    shipped = ":".join([".", *(f"f{number}" for number in range(count)), *["f1"] * 100_000])
    assert len(claims.Claim.parse(shipped).folders) == (0 if more else count)


def test_folders_in_others_are_not_outermost():
    assert claims.outermost(["a/b", "a", "a-b", "a.b/c", "a/b/c", "b/a"]) == ("a", "a-b", "a.b/c", "b/a")


@pytest.mark.parametrize(
    "path",
    [DEEP, "a/" * 300 + "b.py", "a" * 5000, "../b.py", "a/../../b.py", "/etc/b.py", "./b.py", ""],
    ids=lambda path: path[:20],
)
@pytest.mark.parametrize("field", ["paths", "prefixes"])
def test_a_record_with_a_path_that_no_run_writes_is_none(field, path, repository, store, monkeypatch):
    record, whole = record_of(repository)
    if field == "prefixes" and not path:
        return  # the whole checkout
    changed = [path, *whole["paths"][1:]] if field == "paths" else [path]
    record.write_text(json.dumps({**whole, field: changed}))
    monkeypatch.setattr(staleness, "_compare", lambda *_: pytest.fail("nothing may be looked at"))
    assert file_states.load(record) is None
    assert "did not finish" in str(stale(repository, store))


@pytest.mark.parametrize("name", ["a\0b", "\ud8ff"])
def test_a_record_with_a_folder_that_no_system_names_is_read(name, repository, store):
    record, whole = record_of(repository)
    record.write_text(json.dumps({**whole, "paths": [f"{name}/b.py", *whole["paths"][1:]]}))
    assert f"{name}/b.py" in stale(repository, store).deleted


@pytest.mark.parametrize("path", [DEEP, "a/" * 300 + "b", "a" * 300, "a" * 5000], ids=len)
def test_a_claim_of_a_long_place_is_of_no_known_checkout(path, repository, store):
    claim = claims.Claim.parse(str(claims.Claim(f"./{path}", None, (path, "shop"))))
    known = claims.folders_of({"one": claim}, store)
    assert known == {"one": None}
    assert [folder for folder in claim.folders if len(folder) != 300] == ["shop"]
    store.claim(open_tree(repository).name, str(claim))
    with pytest.raises(RepositoryError) as error:
        claims.require_claim(open_tree(repository), store, force=False)
    assert len(str(error.value)) < 500
