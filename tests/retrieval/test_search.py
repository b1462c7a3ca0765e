"""Questions, filters and bad input."""

import inspect
import warnings
from dataclasses import fields

import pytest

from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.errors import InputError, SpecMismatch, StoreError
from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.retrieval.lexical_index import LexicalIndex
from c2llm_integrations.retrieval.options import RULES, SearchOptions
from c2llm_integrations.retrieval.search import find, is_readable, search
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.records import Record, Row
from c2llm_integrations.stores.spec import GIVEN_VECTORS, CollectionSpec
from tests.golden import COMPRESSED, TIED

NASTY = "we ird'\" %or 1==1\\.py"


@pytest.fixture(scope="module")
def embedder():
    return C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32")


@pytest.fixture(scope="module")
def store(tmp_path_factory, embedder):
    root = tmp_path_factory.mktemp("searched")
    (root / "src" / "deep").mkdir(parents=True)
    (root / "src" / "one.py").write_text("def one():\n    return 1\n")
    (root / "src" / "deep" / "two.go").write_text("package main\n\nfunc Two() int { return 2 }\n")
    (root / NASTY.replace("\\", "")).write_text("def nasty():\n    return None\n")
    (root / "notes.md").write_text("# Notes\n\nSome words about one and two.\n")
    with open_store("qdrant+memory://") as opened:
        ingest(root, embedder, opened, repository="here")
        yield opened


def paths(hits):
    return {hit.chunk.path for hit in hits}


def test_the_text_itself_is_its_best_hit(embedder, store):
    # An untrained model still knows a text by itself, prompts apart.
    with open_store("qdrant+memory://") as empty:
        assert empty.spec is None
    hits = search("def one():\n    return 1\n", embedder, store)
    assert len(hits) == 4
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    chunk = next(hit.chunk for hit in hits if hit.chunk.symbol == "one")
    assert (chunk.path, chunk.start_line, chunk.end_line) == ("src/one.py", 1, 2)
    assert chunk.text == "def one():\n    return 1\n"


@pytest.mark.parametrize("fingerprint", [{}, GIVEN_VECTORS])
def test_vectors_whose_model_nobody_knows_are_compared_with_a_warning(embedder, fingerprint):
    with open_store("qdrant+memory://") as given:
        given.create(CollectionSpec(embedder.output_dim, fingerprint, analyzer=ANALYZER))
        given.upsert([Row(Record("a", "def one(): ..."), embedder.encode_documents(["def one(): ..."])[0])])
        for mode in ("hybrid", "dense"):
            with pytest.warns(UserWarning, match="given vectors of an unknown model") as told:
                assert [hit.record.id for hit in search("one", embedder, given, mode=mode)] == ["a"]
            assert (len(told), told[0].filename) == (1, __file__)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for model in (embedder, None):
                assert len(search("one", model, given, mode="lexical")) == 1
    with open_store("qdrant+memory://") as wider:
        wider.create(CollectionSpec(embedder.output_dim + 1, fingerprint))
        with pytest.warns(UserWarning, match="given vectors"), pytest.raises(SpecMismatch, match=r"width"):
            search("one", embedder, wider)


def test_vectors_of_a_known_model_are_compared_without_a_warning(embedder, store):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert search("one", embedder, store)


@pytest.mark.parametrize(
    ("filters", "want"),
    [
        ({"language": "python"}, {"src/one.py", NASTY.replace("\\", "")}),
        ({"language": "Go"}, {"src/deep/two.go"}),
        ({"language": ["golang", "md"]}, {"src/deep/two.go", "notes.md"}),
        ({"language": ()}, {"src/one.py", "src/deep/two.go", "notes.md", NASTY.replace("\\", "")}),
        ({"where": {"symbol": "Two"}}, {"src/deep/two.go"}),
        ({"where": {"end_line": {"gte": 3}}}, {"src/deep/two.go", "notes.md"}),
        ({"where": Filter({"language": "go"}) | Filter({"kind": "section"})}, {"src/deep/two.go", "notes.md"}),
        ({"where": {"language": "go"}, "path": "*.py"}, set()),
        ({"path": "src/"}, {"src/one.py", "src/deep/two.go"}),
        ({"path": "*.go"}, {"src/deep/two.go"}),
        ({"path": "src/**/*.py"}, {"src/one.py"}),
        ({"path": "*.rs"}, set()),
        ({"path": "./src/one.py"}, {"src/one.py"}),
        ({"path": "src/", "language": "python"}, {"src/one.py"}),
        ({"repository": "here"}, {"src/one.py", "src/deep/two.go", "notes.md", NASTY.replace("\\", "")}),
        ({"repository": "elsewhere"}, set()),
        ({"kind": "section"}, {"notes.md"}),
        ({"kind": "class"}, set()),
        ({"kind": "function", "language": "python", "path": "src/"}, {"src/one.py"}),
    ],
)
def test_filters(embedder, store, filters, want):
    assert paths(search("anything", embedder, store, **filters)) == want


@pytest.mark.parametrize("pattern", ["", "!src", "# note"])
def test_a_pattern_that_selects_nothing_is_refused(embedder, store, pattern):
    with pytest.raises(InputError, match="selects nothing"):
        search("x", embedder, store, path=pattern)


def test_limit(embedder, store):
    assert len(search("anything", embedder, store, limit=2)) == 2


@pytest.mark.parametrize("query", ["", "  \n"])
def test_an_empty_query_is_refused(embedder, store, query):
    with pytest.raises(InputError, match="query is empty"):
        search(query, embedder, store)


def test_bad_limit(embedder, store):
    with pytest.raises(InputError, match="limit is 0"):
        search("x", embedder, store, limit=0)


ODD = ["?!...", "找到排序函数", "a\x00b\x1b[31m", "x " * 500_000, "(" * 1_000_000, "\u202eone", "e\u0301" * 1000]


@pytest.mark.parametrize("mode", ["hybrid", "dense"])
@pytest.mark.parametrize("query", ODD)
def test_odd_queries_are_answered(embedder, store, query, mode):
    assert len(search(query, embedder, store, mode=mode)) == 4


@pytest.mark.parametrize("query", ["?!...", "\x00\x1b", "(" * 1_000_000, "a" * 100])
def test_a_lexical_search_without_a_word_is_refused(store, query):
    with pytest.raises(InputError, match="has no word that lexical search could look for") as caught:
        search(query, None, store, mode="lexical")
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_lexical_search_needs_no_model(store):
    hits = search("functions that return one", None, store, mode="lexical")
    assert hits[0].chunk.path == "src/one.py"
    assert "dense" not in hits[0].explanation
    assert search("zebra", None, store, mode="lexical") == []


def test_a_name_finds_its_definition_first(embedder, store):
    hits = search("Two", embedder, store)
    assert hits[0].chunk.path == "src/deep/two.go"
    assert {"lexical", "definition"} <= set(hits[0].explanation)


def test_modes_and_rules_say_what_a_score_is_made_of(embedder, store):
    vector = embedder.encode_queries(["def one"])[0]
    plain = search("def one", embedder, store, mode="dense", rules=())
    assert [hit.explanation for hit in plain] == [{"dense": hit.score} for hit in plain]
    cosines = {hit.chunk.id: max(hit.score, 0) for hit in store.search(vector, 10)}
    assert {hit.chunk.id: hit.score for hit in plain} == pytest.approx(cosines, abs=1e-6)
    for hit in search("def one", embedder, store):
        assert set(hit.explanation) <= {"dense", "lexical", *RULES}
        assert sum(hit.explanation.values()) == pytest.approx(hit.score)
        assert 0 <= hit.score <= 1


def test_an_index_in_memory_is_searched_alike(store):
    index = LexicalIndex()
    index.add(chunk_source("here", "src/one.py", "def one():\n    return 1\n"))
    index.add(chunk_source("here", "src/two.py", "def two():\n    return 2\n"))
    assert find("one", None, index, SearchOptions(mode="lexical"))[0].chunk.symbol == "one"
    [hit] = find("return", None, index, SearchOptions(path="src/two.py", mode="lexical"))
    assert hit.chunk.symbol == "two"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "pyhton"}, "no language 'pyhton'; did you mean python"),
        ({"language": "klingon"}, "no language 'klingon'"),
        ({"language": ["go", "klingon"]}, "no language 'klingon'"),
        ({"where": {"votes": {"above": 3}}}, "'votes' has 'above'"),
        ({"where": "votes > 3"}, "a filter is a mapping"),
        ({"kind": "functions"}, "no kind 'functions'; did you mean function"),
        ({"mode": "fuzzy"}, "mode is 'fuzzy', must be one of: hybrid, dense, lexical"),
        ({"rules": ["files"]}, "no ranking rule 'files'"),
        ({"limit": -3}, "limit is -3"),
        ({"limit": "3"}, "limit is '3', must be a whole number of at least 1"),
        ({"limit": 1.5}, "limit is 1.5, must be a whole number of at least 1"),
        ({"language": 5}, "expected the name of a language, or several, got 5"),
        ({"language": ["go", 5]}, "expected the name of a language, got 5"),
        ({"path": 5}, "expected a path as a string, got 5"),
    ],
)
def test_unknown_options_are_refused_in_one_line(embedder, store, options, message):
    with pytest.raises(InputError, match=message) as caught:
        search("one", embedder, store, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("query", [None, 5, b"one", ["one"]])
def test_a_question_is_a_string(embedder, store, query):
    with pytest.raises(InputError, match="expected a question as a string"):
        search(query, embedder, store)


def test_languages_may_be_given_in_one_string(embedder, store):
    assert search("one", embedder, store, language="go, python") == search(
        "one", embedder, store, language=("go", "py")
    )


def test_an_embedder_in_the_place_of_the_store_is_refused(embedder, store):
    with pytest.raises(InputError, match="expected an open store"):
        search("x", store, embedder)


def test_a_lone_surrogate_is_refused(embedder, store):
    with pytest.raises(InputError, match="surrogate"):
        search("one \ud800", embedder, store)


def test_a_collection_without_terms_is_searched_by_vectors(embedder):
    chunks = chunk_source("here", "src/one.py", "def one():\n    return 1\n")
    with open_store("qdrant+memory://") as bare:
        bare.create(CollectionSpec(embedder.output_dim, embedder.fingerprint))
        bare.upsert([Row(chunk, embedder.encode_documents([chunk.text])[0]) for chunk in chunks])
        hits = search("return one", embedder, bare, rules=())
        assert [hit.explanation for hit in hits] == [{"dense": hits[0].score}]
        with pytest.raises(StoreError, match=r"no lexical index.*--lexical"):
            search("return one", embedder, bare, mode="lexical")


def test_only_lexical_search_goes_without_an_embedder(store):
    with pytest.raises(InputError, match="needs an embedder"):
        search("one", None, store)


def test_another_model_is_refused(store):
    with pytest.raises(SpecMismatch, match="collection has"):
        search("x", C2LLMEmbedder.from_pretrained(str(COMPRESSED), dtype="float32"), store)


@pytest.mark.parametrize("url", ["qdrant+edge://{}/rows", "milvus+lite://{}/rows.db"])
def test_a_collection_that_is_not_there_says_which_are(url, tmp_path, embedder):
    url = url.format(tmp_path)
    with open_store(url, "answers") as there:
        there.create(CollectionSpec.for_embedder(embedder))
        with open_store(url, "code") as store, pytest.raises(StoreError, match="no collection 'code', only 'answers'"):
            search("x", embedder, store)


def test_nothing_indexed_says_what_to_run(embedder):
    with open_store("qdrant+memory://") as store, pytest.raises(StoreError, match="c2llm index"):
        search("x", embedder, store)


def test_search_spells_out_exactly_the_options():
    spelled = [one for one in inspect.signature(search).parameters.values() if one.kind is one.KEYWORD_ONLY]
    declared = fields(SearchOptions)
    assert [(one.name, one.default, one.annotation) for one in spelled] == [
        (one.name, one.default, one.type) for one in declared
    ]


def test_records_that_are_not_chunks_are_searched(embedder):
    texts = {"How to retry": 12, "How to sort": 3, "How to wait": 12.5}
    vectors = embedder.encode_documents(list(texts))
    records = [Record(text, text, {"votes": votes, "tags": ["help"]}, "answers") for text, votes in texts.items()]
    with open_store("qdrant+memory://") as store:
        store.create(CollectionSpec(embedder.output_dim, embedder.fingerprint))
        store.upsert([Row(*pair) for pair in zip(records, vectors, strict=True)])
        hits = search("retry", embedder, store, where={"votes": {"gte": 10}, "tags": "help"})
        assert {hit.record.id for hit in hits} == {"How to retry", "How to wait"}
        assert search("retry", embedder, store, where={"votes": {"gte": 100}}) == []


def test_paths_are_scanned_once_until_the_collection_changes(embedder, monkeypatch):
    files = ["src/a.py", "src/b.py", "lib/c.py"]
    chunks = [chunk for path in files for chunk in chunk_source("here", path, f"x = '{path}'\n")]
    rows = [Row(one, embedder.encode_documents([one.text])[0]) for one in chunks]
    with open_store("qdrant+memory://") as store:
        store.create(CollectionSpec(embedder.output_dim, embedder.fingerprint))
        store.upsert(rows[:2])
        scans = []
        scan = store.scan
        monkeypatch.setattr(store, "scan", lambda **a: scans.append(a) or scan(**a))
        for pattern in ("src/", "*.py", "a.py", "src/"):
            assert search("x", embedder, store, path=pattern)
        assert len(scans) == 1
        store.upsert(rows[2:])
        assert paths(search("x", embedder, store, path="lib/")) == {"lib/c.py"}
        renamed = [Row(replace_path(row.chunk, "src/d.py"), row.vector) for row in rows[:1]]
        store.delete([rows[0].record.id])
        store.upsert(renamed)
        assert paths(search("x", embedder, store, path="src/")) == {"src/b.py", "src/d.py"}


def test_a_path_that_another_process_renamed_is_found(embedder):
    """The number of rows stays the same, so what is remembered is looked up again before nothing is answered."""
    [old] = chunk_source("here", "old.py", "x = 1\n")
    vector = embedder.encode_documents([old.text])[0]
    with open_store("qdrant+memory://") as store:
        store.create(CollectionSpec(embedder.output_dim, embedder.fingerprint))
        store.upsert([Row(old, vector)])
        assert search("x", embedder, store, path="old.py")
        changes = store.changes
        store.delete([old.id])
        store.upsert([Row(replace_path(old, "new.py"), vector)])
        store.changes = changes
        assert paths(search("x", embedder, store, path="new.py")) == {"new.py"}


def test_a_path_among_others_that_another_process_wrote_is_the_only_one(embedder):
    """As many rows as before, and more paths: the pattern is compared with these, not with the cached ones."""
    [old], [other] = (chunk_source("here", "a.py", f"x = {number}\n") for number in range(2))
    vector = embedder.encode_documents([old.text])[0]
    with open_store("qdrant+memory://") as store:
        store.create(CollectionSpec(embedder.output_dim, embedder.fingerprint))
        store.upsert([Row(old, vector), Row(other, vector)])
        assert search("x", embedder, store, path="a.py")
        changes = store.changes
        store.delete(where={"path": "a.py"})
        store.upsert([Row(replace_path(old, path), vector) for path in ("b.py", "x.py")])
        store.changes = changes
        assert paths(search("x", embedder, store, path="b.py")) == {"b.py"}


def replace_path(chunk, path):
    [moved] = chunk_source(chunk.repository, path, chunk.text)
    return moved


# ---- questions in a script that the model does not know


@pytest.fixture(scope="module")
def nano():
    return C2LLMEmbedder.from_pretrained("nano", dtype="float32")


@pytest.mark.parametrize(
    "question",
    ["計算訂單的運費", "カートの合計", "ยอดรวมในตะกร้า", "სულ ჯამი", "вычислить сумму", "fee是什么意思怎么算"],
)
def test_vectors_step_aside_for_a_script_that_the_model_does_not_know(nano, question):
    others = ["データベース接続", "连接数据库", "def fee(): ...", "ฐานข้อมูล"]
    assert not is_readable(question, nano)
    spec = CollectionSpec(nano.output_dim, nano.fingerprint, analyzer=ANALYZER)
    with open_store("qdrant+memory://") as store:
        store.create(spec)
        texts = [f"# {text}\n" for text in [*others, question]]
        vectors = nano.encode_documents(texts)
        store.upsert(
            [Row(Record(n, text), vector) for n, (text, vector) in enumerate(zip(texts, vectors, strict=True))]
        )
        hits = search(question, nano, store)
        assert hits[0].record.text == f"# {question}\n"
        assert not any("dense" in hit.explanation for hit in hits)
        assert any("dense" in hit.explanation for hit in search(question, nano, store, mode="dense"))


@pytest.mark.parametrize(
    "question", ["", "sum of a cart", "größe", "naïve café ☕", "computeFee计算", "compute fee 计算"]
)
def test_a_question_that_the_model_mostly_reads_is_compared(nano, question):
    assert is_readable(question, nano)


def test_a_question_of_unknown_signs_alone_is_refused(nano):
    with open_store("qdrant+memory://") as store:
        store.create(CollectionSpec(nano.output_dim, nano.fingerprint, analyzer=ANALYZER))
        with pytest.raises(InputError, match="has no word"):
            search("🚀🔥🎉", nano, store)


def test_names_glued_to_another_script_are_read(nano):
    assert nano.unknown_share("按retryDelay重试") > 0.9  # one token to the model
    assert is_readable("按retryDelay重试", nano)
