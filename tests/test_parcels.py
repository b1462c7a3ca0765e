"""The steps of a distributed run, in one process and without a cluster."""

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations import parcels
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.commit import Claim
from c2llm_integrations.errors import StoreError
from c2llm_integrations.parcels import Place, Sum
from c2llm_integrations.stores.base import CollectionSpec, Row
from tests.ingesting import write_tree

SPEC = CollectionSpec(4, {"model": "none"})


@pytest.fixture
def place(tmp_path):
    """A pass over an empty collection."""
    one = Place("qdrant+memory://", token=str(tmp_path))
    one.open().create(SPEC)
    return one


def again(place):
    """The next pass over the same store: whatever was read of it is forgotten."""
    parcels._claims.cache_clear()
    parcels._held_of.cache_clear()
    parcels._commit_of.cache_clear()
    return place


def through(parcel, place):
    """Chunk and store a parcel."""
    done = parcels.chunk(parcel, place)
    vectors = np.ones((len(done.new), 4), np.float32) if done.new else None
    return parcels.write(replace(done, vectors=vectors), place)


def store_tree(folder, place):
    again(place)
    return [through(parcel, place) for parcel in parcels.list_source(str(folder), place, False)]


@given(st.lists(st.uuids().map(str), unique=True), st.randoms())
def test_a_sum_knows_a_set_of_ids_in_any_order_and_parts(ids, random):
    whole = Sum().add(ids)
    cut = random.randint(0, len(ids))
    random.shuffle(ids)
    assert Sum().add(ids[:cut]) + Sum().add(ids[cut:]) == whole
    assert whole - Sum().add(ids[:cut]) == Sum().add(ids[cut:])


def test_a_file_that_cannot_be_chunked_costs_itself_and_keeps_its_rows(place, tmp_path, monkeypatch):
    tree = write_tree(tmp_path / "one", 0, files=6)
    store_tree(tree, place)
    held = place.open().count("one")

    def fail(name, path, text):
        if path == "file_3.py":
            raise RecursionError
        return chunk_source(name, path, text)

    monkeypatch.setattr(parcels, "chunk_source", fail)
    done = store_tree(tree, place)
    assert sum((parcel.ids for parcel in done), Sum()).count == held
    assert [path for parcel in done for path in parcel.skipped.get("unreadable", [])] == ["file_3.py"]
    assert [id for parcel in done for id in parcel.stale] == []


def test_where_the_folder_is_not_mounted_nothing_is_stale(place, tmp_path):
    tree = write_tree(tmp_path / "one", 0, files=6)
    store_tree(tree, place)
    listed = list(parcels.list_source(str(tree), again(place), False))
    shutil.rmtree(tree)
    done = [parcels.chunk(parcel, place) for parcel in listed]
    assert "vanished" in done[1].failed
    assert [id for parcel in done for id in parcel.stale] == []


def test_nothing_is_deleted_while_a_new_row_is_missing(place, tmp_path):
    tree = write_tree(tmp_path / "one", 0, files=6)
    store_tree(tree, place)
    write_tree(tree, 1, files=6)
    done = store_tree(tree, place)
    wanted = sum((parcel.ids for parcel in done), Sum())
    stale = [id for parcel in done for id in parcel.stale]
    assert stale
    [lost, *_] = [row.id for row in place.open().scan("one") if row.id not in stale]
    vector = place.open().vectors([lost])[lost]
    [chunk] = [row.chunk for row in place.open().rows("one") if row.chunk.id == lost]
    place.open().delete([lost])
    before = place.open().count()
    with pytest.raises(StoreError, match=f"holds {wanted.count - 1} rows of 'one' where {wanted.count} were meant"):
        parcels.finish("one", place, wanted, stale, None, Claim("me"))
    assert place.open().count() == before
    place.open().upsert([Row(chunk, vector)])
    for _ in range(2):  # a task may run twice
        parcels.finish("one", place, wanted, stale, None, Claim("me"))
        assert place.open().count() == wanted.count


def test_the_same_folder_and_url_have_one_owner_wherever_they_are_read():
    here, there = Place("x", host="driver"), Place("x", host="driver", token="other")
    for source in ("/shared/one", "https://example.org/a/b.git"):
        assert here.owner_of(source) == there.owner_of(source)
    assert here.owner_of("/shared/one") != Place("x", host="other").owner_of("/shared/one")
    assert here.owner_of("https://example.org/a/b.git") == Place("x").owner_of("https://me@example.org/a/b.git")


def test_texts_are_left_out_as_files_are(place):
    paths = ["a.py", "b.py", "c.py", "id_rsa", "e.py", "f.py"]
    texts = ["x = 1\n", None, "y" * 2_000_000, "secret", "\ud800", "x = 2\n"]
    parcel = parcels.list_texts("one", paths, texts, "x.parquet", place, False)
    assert (parcel.files, parcel.rows) == (["a.py", "f.py"], 6)
    assert parcel.skipped == {"no text": ["b.py"], "too large": ["c.py"], "secret": ["id_rsa"], "binary": ["e.py"]}


def test_texts_of_a_repository_that_another_source_fills_are_refused_without_force(place, tmp_path):
    store_tree(write_tree(tmp_path / "one", 0, files=6), place)
    refused = parcels.list_texts("one", ["a.py"], ["x = 1\n"], "x.parquet", again(place), False)
    assert "--force" in refused.failed
    taken = parcels.list_texts("one", ["a.py"], ["x = 1\n"], "x.parquet", again(place), True)
    assert (taken.failed, place.open().claims()["one"]) == ("", taken.owner)


def test_a_symbolic_link_in_a_clone_is_no_text(place, tmp_path):
    tree = write_tree(tmp_path / "work", 0, files=2)
    (tree / "link.py").symlink_to("file_1.py")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", *arguments], cwd=tree, check=True)
    listed = list(parcels.list_source((tree).as_uri(), place, False))
    assert [path for parcel in listed for path in parcel.texts] == ["file_1.py"]
    assert len({parcel.commit for parcel in listed}) == 1


def test_an_empty_folder_is_one_parcel(place, tmp_path):
    (tmp_path / "empty").mkdir()
    [parcel] = store_tree(tmp_path / "empty", place)
    assert (parcel.parcels, parcel.ids, parcel.failed) == (1, Sum(), "")
