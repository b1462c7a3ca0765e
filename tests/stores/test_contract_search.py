"""What every store promises of searching, filtering and compact vectors, run over every store."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2llm_integrations.code.lexical_terms import ANALYZER, query_terms
from c2llm_integrations.errors import InputError, StoreError
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.qdrant.payload import DENSE
from c2llm_integrations.stores.records import Candidates, Hit, Row
from c2llm_integrations.stores.spec import DATATYPES, OVERSAMPLING, QUANTIZATIONS, CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore
from tests.stores.conftest import SLOW, WIDTH, Database
from tests.stores.foreign_writers import write_foreign, write_words
from tests.stores.test_contract import as_stored, ids, unit
from tests.waiting import until

MakeRow = Callable[..., Row]
MakeRows = Callable[..., list[Row]]


def found(hits: list[Hit]) -> list[str]:
    return [hit.chunk.id for hit in hits]


@pytest.mark.core
def test_search_ranks_by_cosine(store: VectorStore, make_rows: MakeRows) -> None:
    # [langchain-milvus defaults to L2, llama-index's Milvus store to IP]
    rows = make_rows(200)
    store.upsert(rows)
    query = np.random.default_rng(1).standard_normal(WIDTH).astype(np.float32)
    matrix = np.stack([unit(row.vector) for row in rows])
    scores = matrix @ unit(query)
    best = np.argsort(-scores)[:10]
    for _ in range(2):
        hits = store.search(query, 10)
        assert [hit.chunk for hit in hits] == [rows[i].chunk for i in best]
        np.testing.assert_allclose([hit.score for hit in hits], scores[best], atol=1e-5)
        store.optimize()
    assert len(store.search(query, 1_000)) == 200


@pytest.mark.parametrize("limit", [0, -1])
def test_useless_limits_are_refused(store: VectorStore, make_row: MakeRow, limit: int) -> None:
    with pytest.raises(InputError, match=str(limit)):
        store.search(make_row().vector, limit)


@pytest.mark.core
def test_filters_combine(store: VectorStore, make_row: MakeRow) -> None:
    rows = [
        make_row(path, f"{repository}{language}", ordinal, repository=repository, language=language, kind=kind)
        for ordinal, (repository, path, language, kind) in enumerate(
            (repository, path, language, kind)
            for repository in ("one", "two")
            for path in ("a.py", "b.py", "c.py")
            for language in ("python", "go")
            for kind in ("function", "block")
        )
    ]
    store.upsert(rows)
    where = Filter({"repository": "one", "language": ["go"], "path": ["a.py", "c.py", "none"], "kind": "block"})
    expected = {
        row.chunk.id
        for row in rows
        if (row.chunk.repository, row.chunk.language, row.chunk.kind) == ("one", "go", "block")
        and row.chunk.path in {"a.py", "c.py"}
    }
    assert {hit.chunk.id for hit in store.search(rows[0].vector, 100, where)} == expected
    assert len(store.search(rows[0].vector, 100, Filter())) == len(rows)
    assert store.search(rows[0].vector, 100, Filter({"path": ["none"]})) == []


NASTY = [*"\"'\\%_*\n\r\t\0é😀", "e\u0301", "a/b", '" or 1==1', "$(x)", "null", ""]
strings = st.one_of(
    st.lists(st.sampled_from(NASTY), max_size=5).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)


def test_any_string_finds_and_deletes_exactly_itself(open_: Database, store: VectorStore, make_row: MakeRow) -> None:
    @settings(max_examples=4 if open_.kind in SLOW else 40)
    @given(paths=st.lists(strings, min_size=1, max_size=6, unique=True), repository=strings)
    def check(paths: list[str], repository: str) -> None:
        store.delete([row.id for row in store.scan()])
        rows = [make_row(path, path, repository=repository, symbol=path) for path in paths]
        store.upsert(rows)
        assert {row.id: row for row in store.scan(source=repository)} == {row.chunk.id: as_stored(row) for row in rows}
        for row in rows:
            where = Filter({"repository": repository, "path": row.chunk.path})
            assert [hit.chunk for hit in store.search(row.vector, 10, where)] == [row.chunk]
        store.delete([rows[0].chunk.id])
        assert store.count(source=repository) == store.count() == len(rows) - 1

    check()


@pytest.mark.core
def test_every_hostile_string_at_once_finds_exactly_itself(store: VectorStore, make_row: MakeRow) -> None:
    hostile = ["".join(NASTY), '" or 1==1', "a\\", "\\u0041", '\\" or "" == "', "100%", "\x01\x7f\u2028", "中文\r\n"]
    rows = [make_row(string, repository=string) for string in hostile]
    store.upsert(rows)
    for row in rows:
        where = Filter({"repository": row.chunk.repository, "path": row.chunk.path})
        assert [hit.chunk for hit in store.search(row.vector, 10, where)] == [row.chunk]
        assert store.count(source=row.chunk.repository) == 1


@pytest.mark.slow
@pytest.mark.core
def test_a_filter_may_name_very_many_paths(store: VectorStore, make_rows: MakeRows) -> None:
    rows = make_rows(50)
    store.upsert(rows)
    paths = [f"elsewhere/{i}.py" for i in range(100_000)] + ["src/file3.py"]
    hits = store.search(rows[0].vector, 100, Filter({"path": paths}))
    assert {hit.chunk.id for hit in hits} == set(ids(rows[30:40]))


# ---- what others wrote


@pytest.mark.core
def test_rows_of_others_are_found_but_never_listed_counted_or_kept_back(
    store: VectorStore, make_rows: MakeRows
) -> None:
    rows, theirs, vector = make_rows(5), str(uuid.uuid4()), np.ones(WIDTH, np.float32)
    store.upsert(rows)
    write_foreign(store, theirs, vector, "their text", {"source": "notes.md"})

    def look() -> list[Hit] | None:
        hits = store.search(vector, 10)
        return hits if theirs in {hit.chunk.id for hit in hits} else None

    [best, *_] = hits = until(look)  # a Milvus server shows what others wrote a moment later
    assert (best.chunk.id, best.chunk.text) == (theirs, "their text")
    assert (best.chunk.repository, best.chunk.path, best.chunk.symbol, best.chunk.start_line) == ("", "", "", 0)
    assert found(hits[1:]) == found(store.search(vector, 10, Filter({"repository": "repo"})))
    assert {row.id for row in store.scan()} == {row.chunk.id for row in store.rows()} == set(ids(rows))
    assert (store.count(), store.count(source="repo"), store.count(source=""), store.total()) == (5, 5, 0, 6)
    assert (store.known(theirs), [*store.get(theirs)], [*store.vectors(theirs)]) == ({theirs}, [theirs], [theirs])
    store.delete([row.id for row in store.scan()])
    assert (store.count(), store.total(), found(store.search(vector, 10))) == (0, 1, [theirs])
    assert (store.delete(theirs), store.total()) == (1, 0)  # by its id even a row of others goes


@pytest.mark.parametrize("url", ["qdrant+memory://", "qdrant+edge://{folder}"])
def test_a_row_of_others_without_a_vector_is_found_by_its_words(url: str, tmp_path: Path, make_rows: MakeRows) -> None:
    with open_store(url.format(folder=tmp_path)) as store:
        store.create(CollectionSpec(WIDTH, {}, analyzer=ANALYZER))
        mine, theirs = make_rows(3), str(uuid.uuid4())
        store.upsert(mine)
        write_words(store, theirs, "backoff")
        both = store.candidates(mine[0].vector, query_terms("backoff"), 1)
        assert ([hit.record.row_id for hit in both.lexical], len(both.dense)) == ([theirs], 1)
        assert store.vectors([theirs]) == {}


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("url", ["qdrant+memory://", "qdrant+edge://{folder}"])
def test_a_vector_of_zeros_that_others_wrote_has_no_cosine(url: str, tmp_path: Path, make_rows: MakeRows) -> None:
    with open_store(url.format(folder=tmp_path)) as store:
        store.create(CollectionSpec(WIDTH, {}, analyzer=ANALYZER))
        mine, theirs = make_rows(3), str(uuid.uuid4())
        store.upsert(mine)
        write_words(store, theirs, "backoff", {DENSE: [0.0] * WIDTH})
        both = store.candidates(mine[0].vector, query_terms("backoff"), 1)
        assert [hit.record.row_id for hit in both.lexical] == [theirs]
        assert [hit.chunk.id for hit in both.dense] == [mine[0].chunk.id]


# ---- lexical search


@pytest.mark.core
def test_lexical_search_is_there_or_refused_by_name(open_: Database, spec: CollectionSpec) -> None:
    store = open_()
    if store.capabilities.lexical:
        store.create(replace(spec, analyzer=ANALYZER))
        assert store.candidates(None, ["anything"], 1) == Candidates([], [])
        store.drop()
        store.capabilities = replace(store.capabilities, lexical=False)  # as of a database that has none
    with pytest.raises(StoreError, match="lexical search"):
        store.create(replace(spec, analyzer=ANALYZER))
    assert store.spec is None


def test_one_write_is_found_by_its_vector_and_by_its_words(lexical: VectorStore, make_row: MakeRow) -> None:
    rows = [
        make_row("net/http.py", "def max_pool_size():\n    return limit\n", 0),
        make_row("db/cursor.py", "def fetch(limit):\n    return rows\n", 1),
        make_row("db/pool.py", "class Pool:\n    limit = 3\n", 2),
    ]
    lexical.upsert(rows)
    both = lexical.candidates(rows[1].vector, query_terms("maxPoolSize"), 2)
    assert found(both.dense)[0] == rows[1].chunk.id
    assert both.dense[0].score == pytest.approx(1, abs=1e-5)
    assert both.lexical[0].chunk == rows[0].chunk
    assert set(found(both.lexical)) == {
        rows[0].chunk.id,
        rows[2].chunk.id,
    }  # "pool" is a part of one, a word of the other
    assert both.lexical[0].score > both.lexical[1].score > 0


def test_each_of_the_two_lists_comes_alone(lexical: VectorStore, make_rows: MakeRows) -> None:
    rows = make_rows(30)
    lexical.upsert(rows)
    words = lexical.candidates(None, query_terms("def f7"), 5)
    assert (words.dense, found(words.lexical)[0], len(words.lexical)) == ([], rows[7].chunk.id, 5)
    vector = lexical.candidates(rows[7].vector, [], 5)
    assert (found(vector.dense)[0], vector.lexical) == (rows[7].chunk.id, [])
    assert lexical.candidates(None, query_terms("nowhere"), 5) == lexical.candidates(None, [], 5) == Candidates([], [])


def test_words_are_filtered_and_isolated_by_repository(lexical: VectorStore, make_rows: MakeRows) -> None:
    mine, other = make_rows(20), make_rows(20, repository="other")
    lexical.upsert(mine + other)
    for repository, rows in (("repo", mine), ("other", other)):
        where = Filter({"repository": repository, "path": "src/file1.py"})
        lists = lexical.candidates(rows[3].vector, query_terms("def return"), 100, where)
        assert set(found(lists.dense)) == set(found(lists.lexical)) == set(ids(rows[10:]))


def test_words_follow_their_row(lexical: VectorStore, make_row: MakeRow) -> None:
    kept, gone = make_row("a.py", "alpha beta"), make_row("b.py", "alpha gamma")
    lexical.upsert([kept, gone])
    lexical.update([replace(kept.chunk, start_line=70, end_line=71)])
    lexical.upsert([kept, gone])
    lexical.delete([gone.chunk.id])
    assert lexical.candidates(None, ["gamma"], 5).lexical == []
    assert [hit.chunk for hit in lexical.candidates(None, ["alpha"], 5).lexical] == [kept.chunk]


def test_a_text_without_a_single_word_is_stored(lexical: VectorStore, make_row: MakeRow) -> None:
    row = make_row("_", "{};\n")
    lexical.upsert([row])
    assert found(lexical.candidates(row.vector, ["x"], 5).dense) == [row.chunk.id]


@pytest.mark.parametrize("nearest", range(5))
def test_each_list_scores_the_rows_of_the_other(lexical: VectorStore, make_row: MakeRow, nearest: int) -> None:
    texts = ["parse the date", "parse a number and a date", "write the log", "open the old door slowly", "date"]
    rows = [make_row(f"{n}.py", text, n) for n, text in enumerate(texts)]
    lexical.upsert(rows)
    vector, terms = rows[nearest].vector, query_terms("parse date")
    whole = lexical.candidates(vector, terms, 5)
    assert (len(whole.dense), len({hit.score for hit in whole.lexical})) == (5, 3)
    for limit in (1, 2, 3):
        found = lexical.candidates(vector, terms, limit)
        asked = {hit.chunk.text for hit in (*whole.dense[:limit], *whole.lexical[:limit])}
        assert {hit.chunk.text for hit in found.dense} == asked
        for some, every in ((found.dense, whole.dense), (found.lexical, whole.lexical)):
            scores = {hit.chunk.text: hit.score for hit in every if hit.chunk.text in asked}
            assert {hit.chunk.text: hit.score for hit in some} == pytest.approx(scores, abs=1e-5)
            assert [hit.score for hit in some] == sorted((hit.score for hit in some), reverse=True)


def test_words_are_scored_by_bm25(lexical: VectorStore, make_row: MakeRow) -> None:
    texts = ["alpha delta"] * 8 + ["alpha alpha", "beta delta", "gamma" + " delta" * 20, "gamma" + " gamma" * 20]
    rows = [make_row("_", text, n) for n, text in enumerate(texts)]
    lexical.upsert(rows)

    def scores(term: str) -> dict[int, float]:
        hits = lexical.candidates(None, [term], 20).lexical
        return {ids(rows).index(hit.chunk.id): hit.score for hit in hits}

    alpha, beta, gamma = map(scores, ("alpha", "beta", "gamma"))
    assert (alpha.keys(), beta.keys(), gamma.keys()) == ({*range(9)}, {9}, {10, 11})
    # A rare term counts more than a common one, by Robertson's IDF: 12 rows, of which 1 and 9 have the term.
    assert beta[9] / alpha[0] == pytest.approx(np.log(1 + 11.5 / 1.5) / np.log(1 + 3.5 / 9.5), rel=0.01)
    assert 1 < alpha[8] / alpha[0] < 2  # another occurrence counts, but less than the first
    assert 1 < gamma[11] / gamma[10] < 7  # 21 times as many
    both = lexical.candidates(None, ["alpha", "beta"], 20).lexical
    assert both[0].score == pytest.approx(beta[9], rel=1e-4)


def test_a_long_row_scores_less_for_its_words(lexical: VectorStore, make_row: MakeRow) -> None:
    rows = [make_row("_", "alpha" + " delta" * n, n) for n in (1, 10, 100)]
    lexical.upsert(rows)
    hits = lexical.candidates(None, ["alpha"], 3).lexical
    assert found(hits) == ids(rows)
    assert len({hit.score for hit in hits}) == 3


def test_without_an_analyzer_words_find_nothing(store: VectorStore, make_rows: MakeRows) -> None:
    rows = make_rows(3)
    store.upsert(rows)
    lists = store.candidates(rows[0].vector, query_terms("def f0"), 5)
    assert (len(lists.dense), lists.lexical) == (3, [])
    assert store.candidates(None, ["f0"], 5) == Candidates([], [])


# ---- compact vectors


@pytest.mark.parametrize(
    ("datatype", "quantization"),
    [
        *((datatype, None) for datatype in DATATYPES),
        *(("float32", quantization) for quantization in QUANTIZATIONS),
        ("float16", "int8"),
        ("turbo4", "binary2"),
    ],
)
def test_a_plan_is_honored_or_refused_by_name(
    open_: Database, spec: CollectionSpec, make_rows: MakeRows, datatype: str, quantization: str | None
) -> None:
    store = open_()
    rescore = OVERSAMPLING.get(quantization or "", 0.0)
    plan = replace(spec, datatype=datatype, quantization=quantization, rescore=rescore)
    can = store.capabilities
    refused = datatype if datatype not in can.datatypes else quantization
    if datatype not in can.datatypes or quantization not in {None, *can.quantizations}:
        with pytest.raises(StoreError, match=f"{refused}.* is not supported"):
            store.create(plan)
        assert store.spec is None
        return
    store.create(plan)
    rows = make_rows(300)
    with store.bulk():
        store.upsert(rows)
    assert store.spec == plan
    atol = {"float32": 1e-6, "float16": 1e-3, "turbo16": 1e-2, "turbo8": 1e-2, "turbo4": 0.1}[datatype]
    kept = store.vectors(ids(rows))
    for row in rows[:50]:
        np.testing.assert_allclose(kept[row.chunk.id], unit(row.vector), atol=atol)
        [hit] = store.search(row.vector, 1)
        assert (hit.chunk.id, hit.score) == (row.chunk.id, pytest.approx(1, abs=1e-2 if datatype == "turbo4" else 2e-3))


@pytest.mark.parametrize("change", [{"datatype": "uint8"}, {"quantization": "4711"}])
def test_a_plan_that_nobody_knows_is_refused_before_anything_is_made(
    open_: Database, spec: CollectionSpec, change: dict[str, str]
) -> None:
    # [unit vectors cast to uint8 lose everything]
    store = open_()
    with pytest.raises(StoreError, match=next(iter(change.values()))):
        store.create(replace(spec, **change))  # type: ignore[arg-type]
    assert store.spec is None
