"""What comes with a checkout decides neither where an index is written nor which model is loaded; no false alarms."""

import json
import os
import shutil
import subprocess
import sys
import tracemalloc

import pytest

from c2llm_integrations.errors import InputError, RepositoryError, StoreError
from c2llm_integrations.indexing.claims import Claim
from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.server.live_index import LiveIndex, LiveIndexConfig
from c2llm_integrations.stores import open_store, own_index
from c2llm_integrations.stores.file_checksums import checksum_of
from tests.cli.running import answer, command, complaint
from tests.golden import TIED
from tests.ingesting import write_tree

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of this test's own."""
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def embedder():
    return C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A small tree, as the current folder."""
    folder = write_tree(tmp_path / "one", 0, files=2)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("link", ["", "code", "code/shard", "code/c2llm.json", ".code.lock", "code/shard/wal"])
def test_a_link_in_an_index_is_refused_and_nothing_is_written_behind_it(link, tree, embedder, tmp_path, capsys):
    with open_store(own_index(tree)) as store:
        ingest(tree, embedder, store)
    index, elsewhere = tree / ".c2llm", tmp_path / "elsewhere"
    place = index / link if link else index
    shutil.move(place, elsewhere)
    place.symlink_to(elsewhere)
    before = {path: path.read_bytes() for path in (elsewhere, *elsewhere.rglob("*")) if path.is_file()}
    (tree / "new.py").write_text("def new():\n    return 1\n")
    for arguments in (["index"], ["index", "--replace"], ["search", "new"], ["status"]):
        assert "is a symbolic link" in complaint(capsys, 1, *arguments)
    with pytest.raises(StoreError, match="is a symbolic link"), open_store(own_index(tree)) as store:
        ingest(tree, embedder, store)
    assert {path: path.read_bytes() for path in (elsewhere, *elsewhere.rglob("*")) if path.is_file()} == before


@pytest.mark.parametrize("name", ["code/c2llm.json", "code/shard.seal", "states", "chunks"])
def test_a_file_of_a_terabyte_in_an_index_is_not_read(name, tree, embedder):
    """A hole takes no room in an archive."""
    with open_store(own_index(tree)) as store:
        ingest(tree, embedder, store)
    (file,) = (tree / ".c2llm").glob(f"*.{name}") if "/" not in name else [tree / ".c2llm" / name]
    with file.open("r+b") as opened:
        opened.truncate(2**40)
    tracemalloc.start()
    try:
        if "/" in name:
            with pytest.raises(StoreError, match="1,099,511,627,776 bytes"):
                open_store(own_index(tree))
        else:
            with open_store(own_index(tree)) as store:
                assert ingest(tree, embedder, store).written == 0
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["code/c2llm.json", "code/shard.seal", ".code.lock", "code/shard/wal/pipe"])
def test_a_pipe_in_an_index_is_refused_and_not_waited_for(name, tree, embedder, capsys):
    with open_store(own_index(tree)) as store:
        ingest(tree, embedder, store)
    (record,) = (tree / ".c2llm").glob("*.states")
    for place in (tree / ".c2llm" / name, record):
        kept = place.read_bytes() if place.exists() else None
        place.unlink(missing_ok=True)
        os.mkfifo(place)
        for arguments in (["index"], ["search", "new"], ["status"]):
            assert f"{place} is neither a file nor a folder" in complaint(capsys, 1, *arguments)
        place.unlink()
        if kept is not None:
            place.write_bytes(kept)
    answer(capsys, "status")


DEEP = "[" * 200_000


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("c2llm.json", DEEP),
        ("shard.seal", DEEP),
        ("shard.seal", {"../../../tracker_journal.dat": [1, 2, 3]}),
        ("shard.seal", {"/etc/hostname": [1, 2, 3]}),
        ("shard.seal", {"shard/\0": [1, 2, 3]}),
        ("shard.seal", {"shard/wal": [1, 2]}),
        ("shard.seal", {"shard/wal": [1, 2, "x"]}),
        ("shard.seal", [1]),
    ],
)
def test_what_an_index_says_of_its_files_is_refused_in_one_line_and_deletes_none(
    name, entries, tree, embedder, tmp_path, capsys
):
    with open_store(own_index(tree)) as store:
        ingest(tree, embedder, store)
    precious = tmp_path / "tracker_journal.dat"  # a name that an index may delete in its own folder
    precious.write_text("kept")
    text = entries if isinstance(entries, str) else json.dumps([entries, checksum_of(entries)])
    (tree / ".c2llm" / "code" / name).write_text(text)
    for arguments in (["search", "x"], ["index"], ["status"]):
        assert f"delete {tree / '.c2llm' / 'code'} and index again" in complaint(capsys, 1, *arguments)
    assert precious.read_text() == "kept"


@pytest.mark.parametrize(
    "changes",
    [
        {"paths": ["a\0b", "\ud800"]},
        {"paths": [5, 6]},
        {"paths": ["../../../etc/hostname", "/etc/hostname"]},
        {"prefixes": [5]},
        {"prefixes": ["../.."]},
        {"prefixes": ["a\0"]},
        {"rows": "x"},
        {"branch": 5, "rules": {"a": [[2]]}},
        {"digest": [5, None], "modified": ["x", []]},
        {"layout": 1, "paths": DEEP},
        DEEP,
    ],
)
def test_a_record_of_file_states_that_came_along_can_only_make_an_index_look_stale(changes, tree, embedder, capsys):
    with open_store(own_index(tree)) as store:
        ingest(tree, embedder, store)
    (record,) = (tree / ".c2llm").glob("*.states")
    whole = json.loads(record.read_text())
    record.write_text(changes if isinstance(changes, str) else json.dumps({**whole, **changes}))
    assert answer(capsys, "search", "file")
    assert "hostname" not in capsys.readouterr().err
    answer(capsys, "index")
    capsys.readouterr()
    answer(capsys, "search", "file")
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to own files of somebody else")
def test_an_index_of_another_user_above_the_current_folder_decides_nothing(
    tree, embedder, tmp_path, monkeypatch, capsys
):
    with open_store(own_index(tree)) as store:
        ingest(tree, embedder, store)
    shared, mine = tmp_path / "shared", tmp_path / "shared" / "mine"
    mine.mkdir(parents=True)
    shutil.move(tree / ".c2llm", shared / ".c2llm")
    (shared / "private.py").write_text("def private():\n    return 1\n")
    (mine / "own.py").write_text("def own():\n    return 1\n")
    before = sorted(shared.rglob(".c2llm/**/*"))
    os.chown(shared / ".c2llm", 65534, 65534)
    monkeypatch.chdir(mine)
    assert "no .c2llm in" in complaint(capsys, 1, "search", "private")
    assert "own.py" in answer(capsys, "search", "--index", "own", "--model", TIED)
    assert sorted(shared.rglob(".c2llm/**/*"))[: len(before)] == before
    assert (mine / ".c2llm").is_dir()
    os.chown(shared / ".c2llm", os.geteuid(), -1)
    shutil.rmtree(mine / ".c2llm")
    answer(capsys, "search", "file", "--lexical")


def test_a_link_to_nowhere_in_place_of_an_index_creates_nothing(tree, tmp_path, capsys):
    (tree / ".c2llm").symlink_to(tmp_path / "made")
    complaint(capsys, 1, "index")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("model", ["evil/hub-id", "/tmp/evil", "./model", "../model", "evil"])
def test_a_model_that_only_the_index_names_is_not_loaded(model, tree, embedder, capsys):
    with open_store(own_index(tree)) as store:
        ingest(tree, embedder, store)
    file = tree / ".c2llm" / "code" / "c2llm.json"
    document = json.loads(file.read_text())
    document["spec"]["fingerprint"]["model"] = model
    del document["checksum"]
    file.write_text(json.dumps(document))
    shutil.copytree(TIED, tree / "model", dirs_exist_ok=True)
    (tree / "records.jsonl").write_text('{"text": "x"}\n')
    load = ["load", tree / "records.jsonl", "--source", "s", "--collection", "code"]
    for arguments in (["search", "x"], ["index"], ["search", "x", "--index"], ["browse", "--port", "0"], load):
        said = complaint(capsys, 1, *arguments)
        assert f"names the model '{model}', which you never used" in said
    answer(capsys, "search", "file", "--lexical")
    one = LiveIndex(LiveIndexConfig(folder=tree))
    with pytest.raises(InputError, match="never used on this machine"):
        _ = one.embedder
    assert one.search("file").hits
    one.close()


def test_a_model_named_once_is_known_from_then_on(tree, embedder, cache, capsys):
    with open_store(own_index(tree)) as store:
        ingest(tree, embedder, store)
    answer(capsys, "search", "file")
    shutil.rmtree(cache)
    complaint(capsys, 1, "search", "file")
    answer(capsys, "search", "file", "--model", TIED)
    answer(capsys, "search", "file")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MiB, less than the holes of an index of any size need."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = sys.platform == "linux" and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small file system can be mounted by root on Linux only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_copy_that_has_no_room_for_its_holes_is_refused(small_disk, tree, embedder, capsys):
    with open_store(own_index(tree)) as store:
        ingest(tree, embedder, store)
    index = tree / ".c2llm"
    subprocess.run(["mount", "--bind", str(index), str(index)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(index)], check=True)
    try:
        done = subprocess.run(
            command("search", "file"),
            cwd=tree,
            env={**os.environ, "TMPDIR": str(small_disk)},
            capture_output=True,
            text=True,
            check=False,
        )
        answer(capsys, "search", "file")
    finally:
        subprocess.run(["umount", "-l", str(index)], check=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "TMPDIR" in done.stderr
    assert list(small_disk.iterdir()) == []


def test_an_index_that_is_changed_and_read_again_and_again_is_never_taken_for_damaged(tree, embedder):
    for version in range(3):
        write_tree(tree, version, files=4)
        with open_store(own_index(tree)) as store:
            ingest(tree, embedder, store)
        for _ in range(2):
            with open_store(own_index(tree)) as store:
                assert len(list(store.scan())) == store.count() > 0


@pytest.fixture
def outside(tmp_path):
    """A folder beside the tree, of which nothing may be read."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "private.py").write_text("def private():\n    return 'of another folder'\n")
    return folder


@pytest.mark.parametrize("others", [("sub",), ()])
@pytest.mark.parametrize("part", ["../outside", "sub/../../outside", "/OUTSIDE", "link", "loop"])
def test_a_claim_that_came_along_cannot_lead_out_of_the_checkout(part, others, tree, embedder, outside, capsys):
    subprocess.run(["git", "init", "-q"], check=True)
    with open_store(own_index(tree)) as store:
        ingest(tree, embedder, store)
    (tree / "link").symlink_to(outside)
    (tree / "loop").symlink_to("loop")
    part = part.replace("/OUTSIDE", str(outside))
    settings = tree / ".c2llm/code/c2llm.json"
    changed = json.loads(settings.read_text())
    del changed["checksum"]
    changed["claims"] = {"one": str(Claim(".", None, (part, *others)))}
    settings.write_text(json.dumps({**changed, "checksum": checksum_of(changed)}))
    (tree / "sub").mkdir()
    (tree / "sub/new.py").write_text("def new():\n    return 1\n")
    for record in (tree / ".c2llm").glob("*.states"):  # as if all files had to be read
        record.unlink()

    LiveIndex(LiveIndexConfig(folder=tree)).refresh(lambda done, total: None)
    assert answer(capsys, "search", "--index", "--lexical", "private") == ""
    assert os.listdir(outside) == ["private.py"]
    with open_store(own_index(tree)) as store:
        assert list(store.claims()) == ["one"]
        assert "sub/new.py" in {row.path for row in store.scan()}


@pytest.mark.parametrize("is_git", [True, False])
def test_a_folder_that_became_a_link_is_not_followed(is_git, tree, embedder, outside):
    if is_git:
        subprocess.run(["git", "init", "-q"], check=True)
    part = tree / "part"
    part.mkdir()
    (part / "inside.py").write_text("def inside():\n    return 1\n")
    index = LiveIndex(LiveIndexConfig(folder=part, model=str(TIED)))
    assert index.search("inside").hits
    shutil.rmtree(part)
    part.symlink_to(outside)
    index.release()

    answer = index.search("private")
    assert not answer.hits
    assert any("when it was chosen" in note for note in answer.notes)
    with pytest.raises(RepositoryError, match="when it was chosen"):
        index.chunk_at("private.py", 1)
    with pytest.raises(RepositoryError, match="when it was chosen"):
        index.refresh(lambda done, total: None)
