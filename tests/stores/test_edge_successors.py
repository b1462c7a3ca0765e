"""A collection on Edge that takes another's place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.errors import StoreError
from c2llm_integrations.stores import list_collections
from c2llm_integrations.stores.qdrant.edge import QdrantEdgeStore
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec
from tests.stores.test_edge_store import MakeRows, filled, rewrite, root

pytestmark = pytest.mark.slow
__all__ = ["filled", "root"]


@pytest.fixture
def replaced(filled: Path, spec: CollectionSpec, make_rows: MakeRows) -> Path:
    with QdrantEdgeStore(filled) as store:
        succeed(store, replace(spec, width=16, analyzer=ANALYZER), make_rows(7, repository="new"))
    return filled


def succeed(store: QdrantEdgeStore, spec: CollectionSpec, rows: list[Row]) -> None:
    successor = store.successor()
    successor.create(spec)
    successor.upsert(rows)
    successor.claim("new", "there")
    store.replace_by(successor)


def inside(root: Path) -> set[str]:
    return {child.name for child in (root / "code").iterdir()}


def test_a_successor_takes_the_place_in_one_rename(filled: Path, spec: CollectionSpec, make_rows: MakeRows) -> None:
    old = make_rows(1)[0]
    with QdrantEdgeStore(filled) as store:
        successor = store.successor()
        assert successor.spec is None
        successor.create(replace(spec, analyzer=ANALYZER))
        successor.upsert(make_rows(7, repository="new"))
        successor.claim("new", "there")
        assert (store.count(), store.claims(), successor.count()) == (20, {"repo": "here"}, 7)
        assert inside(filled) == {"c2llm.json", "shard", "next.json", "shard-2"}
        store.replace_by(successor)
        assert (store.count(), store.claims()) == (7, {"new": "there"})
        assert store.vectors([old.chunk.id]) == {}
        assert inside(filled) == {"c2llm.json", "shard-2"}
        with pytest.raises(StoreError, match="closed"):
            successor.count()
    with QdrantEdgeStore(filled) as store:
        assert (store.count(), store.spec) == (7, replace(spec, analyzer=ANALYZER))


def test_successors_follow_each_other(replaced: Path, spec: CollectionSpec, make_rows: MakeRows) -> None:
    with QdrantEdgeStore(replaced) as store:
        for n in (3, 4):
            succeed(store, spec, make_rows(n))
            assert store.count() == n
    assert inside(replaced) == {"c2llm.json", "shard-4", "shard-4.seal"}


def test_a_begun_successor_is_found_again(filled: Path, spec: CollectionSpec, make_rows: MakeRows) -> None:
    with QdrantEdgeStore(filled) as store:
        successor = store.successor()
        successor.create(spec)
        successor.upsert(make_rows(7, repository="new"))
        assert store.successor() is successor
    with pytest.raises(StoreError, match="closed"):  # it stood under the closed store's lock
        successor.count()
    with QdrantEdgeStore(filled) as store:
        assert (store.count(), store.successor().count()) == (20, 7)
        store.replace_by(store.successor())
        assert store.count() == 7


def test_a_dropped_successor_leaves_the_collection(filled: Path, spec: CollectionSpec, make_rows: MakeRows) -> None:
    with QdrantEdgeStore(filled) as store:
        successor = store.successor()
        successor.create(spec)
        successor.upsert(make_rows(7, repository="new"))
        successor.drop()
        successor.drop()
        assert (successor.spec, successor.count(), store.count()) == (None, 0, 20)
        assert inside(filled) == {"c2llm.json", "shard"}
        successor.create(replace(spec, width=4))
        assert successor.spec == replace(spec, width=4)


def test_dropping_a_collection_drops_its_successor(filled: Path, spec: CollectionSpec) -> None:
    with QdrantEdgeStore(filled) as store:
        successor = store.successor()
        successor.create(spec)
        store.drop()
        assert not (filled / "code").exists()
        store.create(spec)
        assert store.successor().spec is None


def test_shards_that_a_killed_run_left_are_swept(replaced: Path) -> None:
    for left in ("shard", "shard-3"):
        (replaced / "code" / left / "segments").mkdir(parents=True)
    with QdrantEdgeStore(replaced) as store:
        assert store.count() == 7
    assert inside(replaced) == {"c2llm.json", "shard-2", "shard-2.seal"}


def test_a_collection_that_names_no_shard_opens(filled: Path) -> None:
    rewrite(filled, shard=...)
    with QdrantEdgeStore(filled) as store:
        assert store.count() == 20


@pytest.mark.parametrize("shard", ["..", "shard/../..", "/tmp", "elsewhere", 7, None])
def test_a_shard_is_only_ever_a_folder_of_ours(filled: Path, shard: object) -> None:
    rewrite(filled, shard=shard)
    with pytest.raises(StoreError, match="shard"):
        QdrantEdgeStore(filled)
    assert (filled / "code" / "shard").exists()


def test_a_damaged_successor_is_one_clear_line(filled: Path) -> None:
    (filled / "code" / "next.json").write_text("{")
    with pytest.raises(StoreError, match=r"next.json cannot be read .*; delete .*next.json and index again") as caught:
        QdrantEdgeStore(filled)
    assert "\n" not in str(caught.value)


def test_collections_are_listed_by_name(replaced: Path, spec: CollectionSpec) -> None:
    url = f"qdrant+edge://{replaced}"
    (replaced / "notes").mkdir()
    (replaced / ".new-half").mkdir()
    (replaced / ".new-half" / "c2llm.json").touch()
    with QdrantEdgeStore(replaced, "another") as other:
        other.create(spec)
        assert list_collections(url) == ["another", "code"]
    assert list_collections(f"qdrant+edge://{replaced}/nowhere") == []
