"""Rows out of one store, through a file, into another: all of them, unchanged, once."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from qdrant_client import QdrantClient

from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.code.lexical_terms import ANALYZER, query_terms
from c2llm_integrations.errors import InputError, RepositoryError, SpecMismatch, StoreError
from c2llm_integrations.indexing.claims import Claim
from c2llm_integrations.indexing.export_import import export, import_rows
from c2llm_integrations.indexing.options import WriteOptions
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.parquet import contents_of, read_rows, write_rows
from c2llm_integrations.stores.qdrant.store import QdrantStore
from c2llm_integrations.stores.records import Record, Row
from c2llm_integrations.stores.spec import CollectionSpec, CompactPlan
from tests.qdrant_facade import serve

pytestmark = pytest.mark.slow

WIDTH = 8
SPEC = CollectionSpec(WIDTH, {"model": "nano", "weights": "abc", "projection": None}, analyzer=ANALYZER)
CHECKOUT, COMMIT = "0123456789abcdef", "c" * 40


def row(number, text=None, repository="github.com/a/shop", **fields):
    path = f"src/sub folder/ü{number // 10}.py"
    text = f"def f{number}():\n    return '\u202e{number} é\t'\r\n" if text is None else text
    key = chunk_id(repository, path, text, number)
    known = {
        "language": "python",
        "symbol": f"A.f{number}",
        "kind": "method",
        "start_line": 1 + number,
        "end_line": 2 + number,
    }
    chunk = CodeChunk(id=key, repository=repository, path=path, text=text, **{**known, **fields})
    vector = np.random.default_rng(int(key[:8], 16)).standard_normal(WIDTH).astype(np.float32)
    return Row(chunk, vector / np.linalg.norm(vector))


ROWS = [*(row(number) for number in range(30)), *(row(number, repository="other") for number in range(5))]


def fill(store, rows=ROWS, spec=SPEC, claim=f"{CHECKOUT}@{COMMIT}"):
    store.create(spec)
    store.upsert(rows)
    store.claim("github.com/a/shop", claim)
    return store


def held(store):
    """Id → chunk and vector of every row."""
    return {found.chunk.id: found for found in store.rows()}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for key, one in wanted.items():
        assert found[key].chunk == one.chunk
        np.testing.assert_allclose(found[key].vector, one.vector, atol=1e-6)


@pytest.fixture
def edge(tmp_path):
    with open_store(f"qdrant+edge://{tmp_path / 'edge'}") as store:
        yield fill(store)


@pytest.fixture
def file(edge, tmp_path):
    export(edge, tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


@pytest.fixture
def empty(tmp_path):
    with open_store(f"qdrant+edge://{tmp_path / 'empty'}") as store:
        yield store


def test_rows_pass_through_every_kind_of_store_unchanged(edge, tmp_path):
    file = tmp_path / "rows.parquet"
    source = edge
    with serve(tmp_path / "http") as address:
        for target in (
            open_store(f"milvus+lite://{tmp_path / 'lite.db'}"),
            QdrantStore.from_client(QdrantClient(":memory:")),
            open_store(f"qdrant+{address}"),
            open_store(f"qdrant+edge://{tmp_path / 'last'}"),
        ):
            written = export(source, file, replace=True)
            assert (written.rows, written.spec, written.claims) == (len(ROWS), SPEC, source.claims())
            report = import_rows(file, target)
            assert (report.rows, report.written, report.held, report.refused) == (len(ROWS), len(ROWS), 0, {})
            assert_same(held(target), held(edge))
            assert (target.spec, target.claims()) == (SPEC, edge.claims())
            best = target.candidates(ROWS[13].vector, query_terms("f13"), 1)
            assert best.dense[0].chunk == best.lexical[0].chunk == ROWS[13].chunk
            if source is not edge:
                source.close()
            source = target
        source.close()


def test_records_of_any_metadata_pass_through_a_file_unchanged(empty, tmp_path):
    records = [
        Record("doc-17", "text", {"votes": 5, "tags": ["a"], "author": {"name": "Ada"}, "none": None}, "answers"),
        Record(7, "", {}, "answers"),
        Record("doc-17", "text", {"path": "a.py", "votes": 1.5, "start_line": 0}, "other"),
        Record(ROWS[1].chunk.id, "x", {**ROWS[0].chunk.metadata, "stars": 3}, "answers"),
    ]
    with open_store("qdrant+memory://") as store:
        store.create(SPEC)
        store.upsert([*(Row(one, ROWS[0].vector) for one in records), ROWS[0]])
        contents = export(store, tmp_path / "rows.parquet")
    assert contents.rows == 5
    for written in (5, 0):
        assert import_rows(tmp_path / "rows.parquet", empty).written == written
    assert {one.row_id: one for one in empty.scroll()} == {one.row_id: one for one in [*records, ROWS[0].chunk]}


def test_what_another_database_is_told_of_its_index_stays_behind(tmp_path):
    file = tmp_path / "rows.parquet"
    with open_store(f"qdrant+edge://{tmp_path / 'a'}") as store:
        export(fill(store, spec=replace(SPEC, index={"m": 24})), file)
    for url, index in ((f"qdrant+edge://{tmp_path / 'b'}", {"m": 24}), (f"milvus+lite://{tmp_path / 'c.db'}", {})):
        with open_store(url) as store:
            import_rows(file, store)
            assert store.spec.index == index


def test_the_terms_of_another_release_are_made_anew(edge, empty, tmp_path):
    export(edge, tmp_path / "rows.parquet")
    contents = contents_of(tmp_path / "rows.parquet")
    with open(tmp_path / "newer.parquet", "wb") as stream:
        write_rows(stream, replace(contents, spec=replace(SPEC, analyzer="code-99")), edge.rows())
    assert import_rows(tmp_path / "newer.parquet", empty).written == len(ROWS)
    assert empty.spec == SPEC


def test_one_repository_is_exported_alone(edge, empty, tmp_path):
    contents = export(edge, tmp_path / "one.parquet", repository="other")
    assert (contents.rows, contents.claims) == (5, {})
    import_rows(tmp_path / "one.parquet", empty)
    assert {found.chunk.repository for found in held(empty).values()} == {"other"}


def test_an_interrupted_import_goes_on_where_it_stopped(file, empty, monkeypatch):
    monkeypatch.setattr("c2llm_integrations.stores.parquet.BATCH", 10)

    def stop(done, total, path):
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_rows(file, empty, WriteOptions(progress=stop))
    begun = empty.count()
    assert 0 < begun < len(ROWS)
    assert Claim.parse(empty.claims()["github.com/a/shop"]) == Claim(CHECKOUT)  # not yet as at the commit
    report = import_rows(file, empty)
    assert (report.held, report.written) == (begun, len(ROWS) - begun)
    assert empty.claims() == {"github.com/a/shop": f"{CHECKOUT}@{COMMIT}"}
    assert (import_rows(file, empty).written, empty.count()) == (0, len(ROWS))


def test_rows_of_before_stay_and_mean_that_no_commit_is_claimed(file, empty):
    fill(empty, [row(99)], claim=CHECKOUT)
    import_rows(file, empty)
    assert empty.count() == len(ROWS) + 1
    assert empty.claims() == {"github.com/a/shop": CHECKOUT}


def test_another_checkout_of_the_same_name_is_refused(file, empty):
    fill(empty, [row(99)], claim="fedcba9876543210")
    with pytest.raises(RepositoryError, match=r"fedcba9876543210.*0123456789abcdef.*--collection"):
        import_rows(file, empty)
    assert empty.count() == 1


def test_another_model_is_refused(file, empty):
    empty.create(replace(SPEC, fingerprint={**SPEC.fingerprint, "weights": "def"}))
    with pytest.raises(SpecMismatch, match=r"weights 'def'.*'abc'"):
        import_rows(file, empty)
    assert empty.count() == 0


def test_storage_is_adapted_only_when_told(file, empty, tmp_path):
    import_rows(file, empty, WriteOptions(compact=CompactPlan(WIDTH, quantization="int8")), lexical=False)
    assert empty.spec == replace(SPEC, quantization="int8", rescore=2.0, analyzer=None)
    assert import_rows(file, empty).held == len(ROWS)  # an existing collection keeps its own
    with pytest.raises(SpecMismatch, match="quantization"):
        import_rows(file, empty, WriteOptions(compact=CompactPlan(WIDTH, quantization="binary")))
    with (
        open_store(f"milvus+lite://{tmp_path / 'lite.db'}") as lite,
        pytest.raises(StoreError, match="'binary' is not supported here"),
    ):
        import_rows(file, lite, WriteOptions(compact=CompactPlan(WIDTH, quantization="binary")))


def test_rows_that_the_store_refuses_are_filed_and_the_rest_is_there(edge, tmp_path):
    long = row(77, text="x" * 70_000)
    edge.upsert([long])
    export(edge, tmp_path / "long.parquet")
    with open_store(f"milvus+lite://{tmp_path / 'lite.db'}") as lite:
        report = import_rows(tmp_path / "long.parquet", lite, WriteOptions(refused=tmp_path / "refused.jsonl"))
        assert (list(report.refused), report.written, lite.count()) == ([long.chunk.id], len(ROWS), len(ROWS))
        (line,) = (tmp_path / "refused.jsonl").read_text().splitlines()
        assert json.loads(line)["id"] == long.chunk.id
        lite.drop()
        assert import_rows(tmp_path / "long.parquet", lite, WriteOptions(long_text="cut")).shortened == 1
        assert lite.count() == len(ROWS) + 1


def test_a_failed_export_leaves_the_former_file_and_nothing_beside_it(edge, file):
    before = file.read_bytes()

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(edge, file, replace=True, progress=stop)
    assert file.read_bytes() == before
    assert not [one.name for one in file.parent.iterdir() if one.suffix == ".partial"]


@pytest.mark.parametrize("before", [None, b"the former one"])
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_killed_export_leaves_no_half_of_a_file(edge, tmp_path, before):
    file = tmp_path / "rows.parquet"
    if before:
        file.write_bytes(before)
    edge.close()
    program = """
import os, signal, sys
from pathlib import Path
from c2llm_integrations.indexing.export_import import export
from c2llm_integrations.stores import open_store

with open_store(sys.argv[1]) as store:
    export(store, Path(sys.argv[2]), replace=True, progress=lambda *step: os.kill(os.getpid(), signal.SIGKILL))
"""
    done = subprocess.run([sys.executable, "-c", program, edge.url, str(file)])
    assert done.returncode == -signal.SIGKILL
    assert (file.read_bytes() if file.exists() else None) == before
    with open_store(edge.url) as again:
        export(again, file, replace=True)
        assert sum(map(len, read_rows(file))) == again.count()
    assert [one.name for one in tmp_path.glob("rows.parquet*")] == ["rows.parquet"]


def test_a_file_that_exists_is_written_over_only_on_demand(edge, tmp_path):
    file = tmp_path / "rows.parquet"
    file.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"rows\.parquet exists; name another file, or write over it with --replace"):
        export(edge, file)
    assert file.read_bytes() == b"mine"
    export(edge, file, replace=True)
    assert contents_of(file).rows == len(ROWS)


def test_a_collection_that_changes_while_it_is_read_is_no_export(empty, tmp_path):
    rows = [row(number) for number in range(3000)]
    fill(empty, rows)

    def delete(done, total, path):
        if done:
            empty.delete([one.chunk.id for one in rows])

    with pytest.raises(StoreError, match=r"3000 rows were counted.*export again"):
        export(empty, tmp_path / "torn.parquet", progress=delete)
    assert not list(tmp_path.glob("torn.*"))


def test_nothing_to_export_says_so(empty, tmp_path):
    with pytest.raises(StoreError, match="nothing to export"):
        export(empty, tmp_path / "none.parquet")


def test_an_empty_collection_is_moved_too(empty, tmp_path):
    empty.create(SPEC)
    assert export(empty, tmp_path / "none.parquet").rows == 0
    with open_store(f"qdrant+edge://{tmp_path / 'other'}") as other:
        assert import_rows(tmp_path / "none.parquet", other).written == 0
        assert other.spec == SPEC


# ---- files that are not what they should be


def rewritten(file, **changes):
    """Write the table of a file again, with other metadata or columns."""
    table = pq.read_table(file)
    metadata = {**table.schema.metadata, **{key.encode(): value for key, value in changes.get("metadata", {}).items()}}
    for name, column in changes.get("columns", {}).items():
        at = table.schema.get_field_index(name)
        table = table.remove_column(at) if column is None else table.set_column(at, name, column)
    pq.write_table(table.replace_schema_metadata(metadata), file)
    return file


def spec_json(**fields):
    return json.dumps({**json.loads(SPEC.to_json()), **fields}).encode()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"c2llm.format": b"c2llm-rows-9"}, "layout 'c2llm-rows-9', expected 'c2llm-rows-2'"),
        ({"c2llm.spec": b"{"}, "damaged metadata"),
        ({"c2llm.spec": b"[" * 100_000}, "damaged metadata"),
        ({"c2llm.spec": b"\xff"}, "damaged metadata"),
        ({"c2llm.spec": spec_json(width="8")}, "damaged metadata"),
        ({"c2llm.spec": spec_json(width=10**9)}, "column 'vector'"),
        ({"c2llm.spec": spec_json(layout=2)}, "layout 2"),
        ({"c2llm.spec": spec_json(quantization=["int8"])}, "damaged metadata"),
        ({"c2llm.spec": spec_json(datatype="float8")}, "float8"),
        ({"c2llm.spec": spec_json(fingerprint=3)}, "damaged metadata"),
        ({"c2llm.claims": b"[]"}, "damaged metadata"),
        ({"c2llm.claims": b'{"repo": 3}'}, "damaged metadata"),
        ({"c2llm.claims": json.dumps(dict.fromkeys(map(str, range(5000)), "a")).encode()}, "claims 5,000 repositories"),
    ],
)
def test_metadata_that_cannot_be_right_is_one_line(file, empty, metadata, message):
    with pytest.raises(InputError, match=message) as caught:
        import_rows(rewritten(file, metadata=metadata), empty)
    assert len(str(caught.value).splitlines()) == 1
    assert empty.spec is None


@pytest.mark.parametrize("name", ["id", "text", "vector"])
def test_a_missing_column_is_named(file, name):
    with pytest.raises(InputError, match=f"column '{name}' missing, expected"):
        contents_of(rewritten(file, columns={name: None}))


def test_a_column_of_another_type_is_named(file):
    with pytest.raises(InputError, match="'start_line' string, expected int32"):
        contents_of(rewritten(file, columns={"start_line": pa.array(["1"] * len(ROWS))}))


def test_rows_without_a_value_are_refused(file, empty):
    texts = pa.array([None, *(["x"] * (len(ROWS) - 1))])
    with pytest.raises(InputError, match="without a value"):
        import_rows(rewritten(file, columns={"text": texts}), empty)


def test_vectors_that_no_store_may_hold_cost_only_their_rows(file, empty):
    rows = [one for batch in read_rows(file) for one in batch]
    vectors = np.stack([one.vector for one in rows])
    vectors[3, 3], vectors[4] = np.nan, 0
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), WIDTH)
    report = import_rows(rewritten(file, columns={"vector": column}), empty)
    assert report.refused.keys() == {rows[3].chunk.id, rows[4].chunk.id}
    assert empty.count() == len(ROWS) - 2


def test_an_id_that_is_none_is_named(file, empty):
    ids = pa.array(["../../x", *(one.chunk.id for one in ROWS[1:])])
    with pytest.raises(InputError, match=r"damaged: id '../../x'"):
        import_rows(rewritten(file, columns={"id": ids}), empty)


def test_what_is_no_parquet_file_is_one_line(tmp_path, file):
    data = file.read_bytes()
    for number, damaged in enumerate((b"", b"PAR1", b"{}", data[:1000], data[:-20], b"PAR1" + bytes(500) + b"PAR1")):
        other = tmp_path / f"{number}.parquet"
        other.write_bytes(damaged)
        with pytest.raises(InputError, match="not a readable Parquet file"):
            contents_of(other)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes among its files")
def test_a_pipe_in_place_of_a_parquet_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.parquet")
    for place, what in ((tmp_path / "pipe.parquet", "not a file"), (tmp_path, "a folder")):
        with pytest.raises(InputError, match=f"is {what}; name a file of Parquet"):
            contents_of(place)


def test_a_flipped_byte_is_found_or_harmless(file, tmp_path):
    data, good = file.read_bytes(), {one.chunk.id: one for one in ROWS}
    chance = random.Random(0)
    complaints = []
    for _ in range(300):
        damaged = bytearray(data)
        damaged[chance.randrange(4, len(data) - 8)] ^= 1 << chance.randrange(8)
        file.write_bytes(damaged)
        try:
            rows = [one for batch in read_rows(file) for one in batch]
        except InputError as error:
            complaints.append(str(error))
        else:  # it changed what is not read: statistics, names of encodings
            assert all(one.chunk == good[one.chunk.id].chunk for one in rows)
    assert len(complaints) > 200
    assert all(len(line.splitlines()) == 1 for line in complaints)


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_memory_is_bounded_both_ways(tmp_path):
    program = """
import resource, sys
from pathlib import Path
import numpy as np
from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.stores.vector_store import CollectionSpec, Row
from c2llm_integrations.stores.parquet import Contents, read_rows, write_rows

def rows(number):
    vectors = np.random.default_rng(0).standard_normal((1000, 256)).astype(np.float32)
    for at in range(number):
        text = f"def f{at}(): pass\\n" * 40
        chunk = CodeChunk(chunk_id("r", "p", text, 0), "r", "p", "python", "f", "function", 1, 2, text)
        yield Row(chunk, vectors[at % 1000])

def peak(number):
    file = Path(sys.argv[1])
    with open(file, "wb") as stream:
        write_rows(stream, Contents(CollectionSpec(256, {}), {}, number), rows(number))
    assert sum(map(len, read_rows(file))) == number
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

small = peak(10_000)
print((peak(50_000) - small) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "x")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 20  # MiB for 40,000 more rows, of 40 MiB of vectors


@pytest.mark.parametrize("key", [b"c2llm.spec", b"c2llm.claims", b"ARROW:schema"])
def test_a_damaged_name_in_the_footer_is_refused(key, tmp_path):
    file = tmp_path / "rows.parquet"
    with open_store("qdrant+memory://") as store:
        export(fill(store), file)
    data = file.read_bytes()
    at = data.rindex(key)
    file.write_bytes(data[:at] + b"d" + data[at + 1 :])
    with open_store("qdrant+memory://") as store:
        with pytest.raises(InputError, match=r"rows\.parquet"):
            import_rows(file, store)
        assert store.spec is None
