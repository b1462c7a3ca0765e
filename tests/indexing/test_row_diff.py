"""A tree against what is held of it: every row is told new, moved or unchanged by its id, whatever its bytes."""

import uuid
from dataclasses import asdict, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.indexing.row_diff import Change, StoredRows
from c2llm_integrations.stores.ids import packed
from c2llm_integrations.stores.row_fields import Stored

# NUL bytes at an id's end and start are what a packed string could lose.
ids = st.one_of(
    st.uuids().map(str),
    st.integers(0, 2**24 - 1).map(lambda n: str(uuid.UUID(int=n << 104))),
    st.integers(0, 2**24 - 1).map(lambda n: str(uuid.UUID(int=n))),
    st.integers(0, 2**64 - 1),
)


def chunk(id, path="a.py", **fields):
    known = {"language": "python", "symbol": "f", "kind": "function", "start_line": 1, "end_line": 2}
    return CodeChunk(id=id, repository="repo", path=path, text="", **{**known, **fields})


def stored(one):
    fields = asdict(one)
    return Stored(**{name: fields[name] for name in Stored._fields if name in fields})


@given(st.lists(ids, unique=True, min_size=1), st.data())
def test_every_row_is_new_moved_unchanged_or_left(all_ids, data):
    there = data.draw(st.sets(st.sampled_from(all_ids)))
    moved = data.draw(st.sets(st.sampled_from(all_ids)))
    gone = data.draw(st.sets(st.sampled_from(all_ids)))
    held = StoredRows(stored(chunk(id, path=f"{id}.py")) for id in there)
    assert len(held) == len(there)
    for id in set(all_ids) - gone:
        seen = chunk(id, path=f"{id}.py", start_line=9 if id in moved else 1)
        wanted = Change.NEW if id not in there else Change.MOVED if id in moved else Change.NONE
        assert held.take(seen) is wanted
    assert set(held.left()) == {(id, f"{id}.py") for id in there & gone}


@given(st.lists(ids.filter(lambda id: isinstance(id, str)), unique=True, min_size=1), st.data())
def test_rows_are_counted_among_written_ones(written, data):
    there = data.draw(st.sets(st.sampled_from(written)))
    held = StoredRows(stored(chunk(id)) for id in {*there, str(uuid.uuid4())})
    assert held.among(np.unique(np.array([packed(id) for id in written], "S16"))) == len(there)


def test_each_field_but_text_and_path_can_move_a_row():
    before = chunk(str(uuid.uuid4()))
    for change in ({"language": "go"}, {"symbol": "g"}, {"kind": "class"}, {"start_line": 2}, {"end_line": 3}):
        assert StoredRows([stored(before)]).take(replace(before, **change)) is Change.MOVED
    assert StoredRows([stored(before)]).take(before) is Change.NONE


def test_nothing_held_makes_every_chunk_new():
    assert StoredRows().take(chunk(str(uuid.uuid4()))) is Change.NEW
    assert list(StoredRows().left()) == []


def test_a_row_that_a_store_lists_twice_is_held_once():
    row = stored(chunk(str(uuid.uuid4())))
    assert len(StoredRows([row, row])) == 1
