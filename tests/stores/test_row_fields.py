"""How rows are cut into calls, and the payload of one."""

import json
from datetime import date
from decimal import Decimal
from hashlib import blake2b
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from c2llm_integrations.stores.qdrant.payload import listed_of, payload_of, record_of, written_fields
from c2llm_integrations.stores.records import Record, digest_of
from c2llm_integrations.stores.row_fields import plain_record, runs


@given(sizes=st.lists(st.integers(0, 50)), most=st.integers(1, 100))
def test_runs_hold_everything_once_in_order_and_are_as_large_as_they_may_be(sizes, most):
    found = [sizes[run] for run in runs(sizes, most)]
    assert [size for run in found for size in run] == sizes
    assert all(run and (len(run) == 1 or sum(run) <= most) for run in found)
    assert all(sum(run) + following[0] > most for run, following in pairwise(found))


@pytest.mark.parametrize("names", [[], ["a"], ["a", "b, c", "größe"]])
def test_the_fields_that_we_wrote_are_read_back(names):
    payload = payload_of(Record("doc", "x", dict.fromkeys(names, 1), "answers"))
    assert list(written_fields(payload)) == names
    assert listed_of("x", payload).digest == digest_of(Record("doc", "x", dict.fromkeys(names, 1), "answers"))
    assert list(written_fields({**payload, "c2llm_fields": "former"})) == names
    assert list(written_fields({"c2llm_fields": names})) == names  # as they were kept before


@pytest.mark.parametrize("names", [[], ["a"], ["a", "b, c", "größe"]])
@pytest.mark.parametrize("id", ["doc", '"', '""a""', 'a"b', "ü\0", "A0000000-0000-5000-8000-000000000000", 7])
def test_an_id_is_read_back_from_behind_the_digest(names, id):
    record = Record(id, "x", dict.fromkeys(names, 1), "answers")
    payload = payload_of(record)
    assert record_of(record.row_id, payload) == record
    assert list(written_fields(payload)) == names
    assert listed_of(record.row_id, payload).digest == digest_of(record)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
@example({"b": [1, 2.5, True, None], "a": {"é": "\u2028", "\ud800": "x"}})
def test_a_digest_is_that_of_the_metadata_as_json(metadata):
    written = json.dumps(metadata, sort_keys=True, allow_nan=False)
    digests = [blake2b(text.encode(), digest_size=8).hexdigest() for text in ("the text", written)]
    assert digest_of(Record("a", "the text", metadata)) == "".join(digests)


def test_what_is_not_json_is_told():
    endless = {}
    endless["itself"] = endless
    for metadata in (endless, {"a": float("nan")}, {"a": {1, 2}}, {"a": object()}, {"a": Decimal("NaN")}):
        name = next(iter(metadata))
        whole = {"day": date(2026, 1, 31), **metadata}
        assert f"its metadata is not JSON (field {name!r}: " in plain_record("a", "x", whole, "", "a")
    assert plain_record("a", "x", {"b": 1}, "", "a").json_bytes == len('{"b": 1}')
