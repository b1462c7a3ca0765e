from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as edge

from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.errors import SpecMismatch, StoreBusy, StoreError
from c2llm_integrations.stores.qdrant import edge as qdrant_edge
from c2llm_integrations.stores.qdrant import edge_conversions, edge_files
from c2llm_integrations.stores.qdrant.edge import QdrantEdgeStore
from c2llm_integrations.stores.qdrant.edge_files import read_ahead
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec

pytestmark = pytest.mark.slow

MakeRow = Callable[..., Row]
MakeRows = Callable[..., list[Row]]


@pytest.fixture
def root(quick_path: Path) -> Path:
    return quick_path / "index"


@pytest.fixture
def filled(root: Path, spec: CollectionSpec, make_rows: MakeRows) -> Path:
    with QdrantEdgeStore(root) as store:
        store.create(spec)
        store.upsert(make_rows(20))
        store.claim("repo", "here")
    return root


# ---- the folder


def test_looking_at_a_missing_index_writes_nothing(tmp_path: Path) -> None:
    with QdrantEdgeStore(tmp_path / "index") as store:
        assert (store.spec, store.count(), store.claims()) == (None, 0, {})
    assert list(tmp_path.iterdir()) == []


def test_a_listing_of_all_rows_reads_the_payloads_ahead(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(edge_files, "read_ahead", lambda shard: (asked.append(shard), read_ahead(shard)))
    with QdrantEdgeStore(filled) as store:
        assert len(list(store.scan())) == len(list(store.scan(source="repo"))) == len(list(store.rows())) == 20
        assert asked == [filled / "code" / "shard"] * 3
        store.claim("other", "there")
        assert len(list(store.scan(source="repo"))) == 20  # of several repositories one may be few rows
        assert len(asked) == 3
    assert list(asked[0].glob("segments/*/payload_storage/page_*.dat"))  # where this engine keeps them


def test_more_than_memory_may_hold_is_not_read_ahead(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard, opened, real = filled / "code" / "shard", [], Path.open
    monkeypatch.setattr(Path, "open", lambda file, *a, **k: (opened.append(file), real(file, *a, **k))[1])
    read_ahead(shard)
    assert opened
    opened.clear()
    monkeypatch.setattr(edge_files, "READ_AHEAD_BYTES", 1)
    read_ahead(shard)
    assert opened == []


def test_the_folder_ignores_itself_in_git(filled: Path) -> None:
    assert (filled / ".gitignore").read_text() == "*\n"
    repository = filled.parent
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    status = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], cwd=repository, check=True, capture_output=True, text=True
    )
    assert status.stdout == ""


def test_a_folder_with_other_things_is_not_made_to_ignore_itself(root: Path, spec: CollectionSpec) -> None:
    root.mkdir()
    (root / "main.py").write_text("print()\n")
    with QdrantEdgeStore(root) as store:
        store.create(spec)
    assert not (root / ".gitignore").exists()


def test_a_folder_that_is_something_else_is_left_alone(root: Path, spec: CollectionSpec) -> None:
    (root / "code").mkdir(parents=True)
    (root / "code" / "main.py").write_text("print()\n")
    with QdrantEdgeStore(root) as store:
        with pytest.raises(StoreError, match="something else; choose another"):
            store.create(spec)
        store.drop()
    assert (root / "code" / "main.py").read_text() == "print()\n"


def test_the_spec_is_readable_beside_the_shard(filled: Path, spec: CollectionSpec) -> None:
    data = json.loads((filled / "code" / "c2llm.json").read_text())
    assert CollectionSpec.from_json(json.dumps(data["spec"])) == spec
    assert data["claims"] == {"repo": "here"}


def test_the_engine_holds_the_documented_payload(filled: Path, make_rows: MakeRows) -> None:
    shard = edge.EdgeShard.load(str(filled / "code" / "shard"))
    [row] = make_rows(1)
    [record] = shard.retrieve([row.chunk.id], True, True)
    indexed = set(shard.info().payload_schema)
    shard.close()
    assert record.payload == {
        "page_content": row.chunk.text,
        "metadata": {
            "repository": "repo",
            "path": "src/file0.py",
            "language": "python",
            "symbol": "f0",
            "kind": "function",
            "start_line": 1,
            "end_line": 2,
        },
    }
    assert isinstance(record.vector, list)
    assert indexed == {"metadata.repository", "metadata.path", "metadata.language", "metadata.kind", "c2llm_source"}


def test_rows_of_others_are_found_but_not_counted(filled: Path, make_rows: MakeRows) -> None:
    foreign: list[dict[str, Any]] = [
        {},
        {"page_content": "x"},
        {"metadata": {"path": "p"}},
        {"metadata": None},
        {"metadata": {"repository": "r"}},
    ]
    shard = edge.EdgeShard.load(str(filled / "code" / "shard"))
    points = [edge.Point(str(uuid.uuid4()), [1.0] * 16, payload) for payload in foreign]
    shard.update(edge.UpdateOperation.upsert_points(points))
    shard.close()
    with QdrantEdgeStore(filled) as store:
        assert store.count() == len(list(store.scan())) == len(list(store.rows())) == 20
        hits = store.search(np.ones(16, np.float32), 100)
    assert len(hits) == 25
    assert [hit.chunk.path for hit in hits[:5]].count("p") == 1
    assert {hit.chunk.text for hit in hits[:5]} == {"", "x"}


def test_dropping_leaves_the_other_collections(filled: Path, spec: CollectionSpec) -> None:
    with QdrantEdgeStore(filled, "other") as other:
        other.create(spec)
    with QdrantEdgeStore(filled) as store:
        store.drop()
        assert store.spec is None
    assert not (filled / "code").exists()
    with QdrantEdgeStore(filled, "other") as other:
        assert other.spec == spec


# ---- one at a time


def test_a_second_opening_in_this_process_is_refused(filled: Path) -> None:
    with QdrantEdgeStore(filled) as store:
        with pytest.raises(StoreBusy) as caught:
            QdrantEdgeStore(filled)
        assert "\n" not in str(caught.value)
        assert str(filled / "code") in str(caught.value)
        assert store.count() == 20
    with QdrantEdgeStore(filled) as store:
        assert store.count() == 20


def test_a_second_process_is_refused_until_the_first_is_gone(filled: Path) -> None:
    code = (
        "import sys; from c2llm_integrations.stores.qdrant.edge import QdrantEdgeStore\n"
        f"store = QdrantEdgeStore({str(filled)!r}); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"open"
        with pytest.raises(StoreBusy, match=r"another process.*wait=10"):
            QdrantEdgeStore(filled)
        holder.kill()
    with QdrantEdgeStore(filled) as store:
        assert store.count() == 20


def test_two_makers_at_once_get_one_collection(root: Path, spec: CollectionSpec, make_rows: MakeRows) -> None:
    first, second = QdrantEdgeStore(root), QdrantEdgeStore(root)
    first.create(spec)
    with pytest.raises(StoreBusy):
        second.create(spec)
    first.upsert(make_rows(3))
    first.close()
    assert second.count() == 3
    second.close()


# ---- half states


def test_what_a_killed_maker_leaves_is_repaired(root: Path, spec: CollectionSpec) -> None:
    for step in ("folder", "lock", "scratch", "shard", "spec", "empty", "trash"):
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        if step != "folder":
            (root / ".code.lock").touch()
        if step in ("scratch", "shard", "spec"):
            (root / ".new-code" / "shard").mkdir(parents=True)
        if step in ("shard", "spec"):
            (root / ".new-code" / "shard" / "segments").mkdir()
            (root / ".gitignore.0.tmp").touch()
        if step == "spec":
            (root / ".new-code" / "c2llm.json.tmp").write_text('{"spec"')
        if step == "empty":
            (root / "code").mkdir()  # not our doing, but harmless
        if step == "trash":
            (root / ".old-code" / "shard").mkdir(parents=True)
        with QdrantEdgeStore(root) as store:
            assert store.spec is None, step
            store.create(spec)
            assert store.count() == 0, step
        left = {child.name for child in root.iterdir()} - {".gitignore.0.tmp"}
        assert left - {".gitignore"} == {"code", ".code.lock"}, step


def rewrite(root: Path, **changes: object) -> None:
    """Change what c2llm.json says, as a release that wrote no checksum."""
    file = root / "code" / "c2llm.json"
    data = {**json.loads(file.read_text()), **changes}
    del data["checksum"]
    file.write_text(json.dumps({name: value for name, value in data.items() if value is not ...}))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"spec": {}}', '{"spec": {"layout": 1}, "claims": {}}'])
def test_a_damaged_spec_is_one_clear_line(filled: Path, text: str) -> None:
    (filled / "code" / "c2llm.json").write_text(text)
    with pytest.raises(StoreError) as caught:
        QdrantEdgeStore(filled)
    assert "index again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_newer_layout_is_named(filled: Path, spec: CollectionSpec) -> None:
    rewrite(filled, spec={**asdict(spec), "layout": 2})
    with pytest.raises(SpecMismatch, match="layout 2, this release reads 1"):
        QdrantEdgeStore(filled)


def test_a_damaged_shard_is_one_clear_line(filled: Path) -> None:
    shutil.rmtree(filled / "code" / "shard")
    with pytest.raises(StoreError, match="shard") as caught:
        QdrantEdgeStore(filled)
    assert "\n" not in str(caught.value)


# ---- the disk


def test_a_full_disk_stops_writing_but_not_reading(
    filled: Path, make_rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(30)
    with QdrantEdgeStore(filled) as store:
        with monkeypatch.context() as full:
            full.setattr(qdrant_edge, "RESERVE_BYTES", 2**62)
            writes: list[Callable[[], None]] = [
                lambda: store.upsert(rows),
                lambda: store.update([rows[0].chunk]),
                lambda: store.delete([rows[0].chunk.id]),
                lambda: store.claim("repo", "there"),
                store.optimize,
                lambda: QdrantEdgeStore(filled, "more").create(CollectionSpec(4, {})),
            ]
            for write in writes:
                with pytest.raises(StoreError, match="MiB of disk free"):
                    write()
            assert (store.count(), store.claims()) == (20, {"repo": "here"})
            assert len(store.search(rows[0].vector, 5)) == 5
        store.upsert(rows)
        assert store.count() == 30


@pytest.mark.parametrize("spare", [2**40, 0])
def test_holes_that_a_full_disk_may_not_back_are_read_in_a_copy_where_there_is_room(
    filled: Path, make_rows: MakeRows, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    [row] = make_rows(1)
    real = shutil.disk_usage

    def usage(path: str | Path) -> Any:
        return real(path)._replace(free=0 if Path(path).is_relative_to(filled) else spare)

    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", usage)
        with QdrantEdgeStore(filled) as store:
            assert len(store.search(row.vector, 5)) == 5
            assert (store._copy is not None) == bool(spare)
            with pytest.raises(StoreError, match=r"has 0 MiB of disk free.*make room"):
                store.upsert([row])
    with QdrantEdgeStore(filled) as store:
        store.upsert([row])


# ---- compact vectors


def parts_of(root: Path) -> set[str]:
    """Names of the files that hold a collection's vectors, codes and graph."""
    folders = (root / "code" / "shard" / "segments").glob("*/vector_*")
    return {file.name for folder in folders if "lexical" not in folder.name for file in folder.iterdir()}


@pytest.mark.parametrize(
    ("quantization", "bytes_per_row"),
    [
        ("int8", 64 + 4),
        ("turbo8", 64 + 8),
        ("turbo", 32 + 8),
        ("turbo2", 16 + 8),
        ("turbo1.5", 12 + 8),
        ("turbo1", 8 + 8),
        ("product", 16),
        ("binary2", 16),
        ("binary1.5", 16),
        ("binary", 16),
    ],
)
def test_codes_are_made_and_searched(
    root: Path, spec: CollectionSpec, make_row: MakeRow, quantization: str, bytes_per_row: int
) -> None:
    n, width = 2_000, 64
    vectors = np.random.default_rng(0).standard_normal((n, width)).astype(np.float32)
    rows = [Row(make_row(text=str(i), ordinal=i).chunk, vector) for i, vector in enumerate(vectors)]
    cosines = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ (vectors[7] / np.linalg.norm(vectors[7]))
    scores = {}
    for rescore in (0.0, 10.0):
        folder = root / str(rescore)
        with QdrantEdgeStore(folder) as store:
            store.create(replace(spec, width=width, quantization=quantization, rescore=rescore))
            store.upsert(rows)
            assert "quantized.data" not in parts_of(folder)
            store.optimize()
            assert "quantized.data" in parts_of(folder)
            assert store.client.info().indexed_vectors_count == n
            scores[rescore] = {hit.chunk.text: hit.score for hit in store.search(vectors[7], 10)}
    [codes] = (root / "0.0").glob("code/shard/segments/*/vector_storage/quantized.data")
    assert codes.stat().st_size <= n * bytes_per_row + 4096
    errors = {
        rescore: max(abs(score - cosines[int(text)]) for text, score in found.items())
        for rescore, found in scores.items()
    }
    assert errors[10.0] < 1e-5
    assert errors[0.0] > 1e-4  # nothing but the codes was compared
    assert next(iter(scores[10.0])) == "7"


def test_a_graph_is_built_where_comparing_every_row_would_be_slow(
    root: Path, spec: CollectionSpec, make_rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(2_000)
    with QdrantEdgeStore(root) as store:
        store.create(replace(spec, quantization="int8", rescore=2.0))
        store.upsert(rows)
        store.optimize()
        few = linked_bytes(root)
        monkeypatch.setattr(edge_conversions, "GRAPH_BYTES", 16 * 1_000)
        store.optimize()
        assert linked_bytes(root) > 5 * few
        assert [store.search(row.vector, 1)[0].chunk for row in rows[:50]] == [row.chunk for row in rows[:50]]
        assert store.count() == 2_000
    with QdrantEdgeStore(root) as store:
        store.optimize()
        assert linked_bytes(root) > 5 * few


def test_the_spec_says_how_many_links_a_row_has(
    root: Path, spec: CollectionSpec, make_rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_conversions, "GRAPH_BYTES", 16 * 1_000)
    sizes = []
    for links in (8, 32):
        with QdrantEdgeStore(root / str(links)) as store:
            store.create(replace(spec, quantization="int8", rescore=2.0, index={"m": links}))
            store.upsert(make_rows(2_000))
            store.optimize()
        sizes.append(linked_bytes(root / str(links)))
    assert sizes[1] > sizes[0]


def linked_bytes(root: Path) -> int:
    links = root.glob("code/shard/segments/*/vector_index/links*.bin")
    return sum(file.stat().st_size for file in links)


def test_a_long_load_is_rewritten_on_the_way(
    root: Path, spec: CollectionSpec, make_rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant_edge, "TIDY_ROWS", 500)
    monkeypatch.setattr(edge_conversions, "LEXICAL_ROWS", 20)
    rows = make_rows(1_200)
    with QdrantEdgeStore(root) as store:
        store.create(replace(spec, analyzer=ANALYZER))
        for start in range(0, 1_200, 200):
            store.upsert(rows[start : start + 200])
        assert store.client.info().segments_count > 1
        assert store.count() == 1_200
        [hit] = store.candidates(None, ["f777"], 5).lexical
        assert hit.chunk == rows[777].chunk


@pytest.mark.skipif(sys.platform != "linux", reason="makes a small disk with mount")
@pytest.mark.parametrize("quantization", [None, "int8"])
def test_a_disk_that_fills_up_stops_the_load_and_loses_nothing(
    tmp_path: Path, spec: CollectionSpec, make_rows: MakeRows, quantization: str | None
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=330m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        rows, written = make_rows(40_000, language="x" * 2_000), 0
        with QdrantEdgeStore(disk / "index") as store:
            store.create(replace(spec, analyzer=ANALYZER, quantization=quantization))
            refusal = ""
            while not refusal:
                try:
                    store.upsert(rows[written : written + 500])
                    written += 500
                except StoreError as error:
                    refusal = str(error)
            assert re.search(r"has \d+ MiB of disk free, writing needs \d+ MiB; make room", refusal)
            assert 0 < written == store.count() == len(list(store.rows()))
        subprocess.run(["mount", "-o", "remount,size=660m", str(disk)], check=True)
        with QdrantEdgeStore(disk / "index") as store:
            store.upsert(rows[written : written + 500])
            store.optimize()
            assert store.count() == written + 500
    finally:
        subprocess.run(["umount", str(disk)], check=True)


FREES_MUCH = """
import ctypes
from pathlib import Path
from c2llm_integrations.stores.qdrant.edge_files import give_back_freed_memory

def own_memory_mb():
    return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) // 1024

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
size, before = 64 * 1024, own_memory_mb()  # small enough not to be the system's own
blocks = [libc.malloc(size) for _ in range(2_000)]
for block in blocks:
    ctypes.memset(block, 1, size)
for block in blocks[:-1]:  # the last keeps those before it from going back by themselves
    libc.free(block)
kept = own_memory_mb()
give_back_freed_memory()
print(kept - before, own_memory_mb() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed")
def test_freed_memory_goes_back_to_the_system() -> None:
    # a process of its own: a long one has free memory of old to give
    done = subprocess.run([sys.executable, "-c", FREES_MUCH], capture_output=True, text=True, check=True)
    kept, left = map(int, done.stdout.split())
    assert kept > 100
    assert left < 25
