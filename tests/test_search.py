"""Questions, filters and bad input."""

import pytest

from c2llm_integrations.embedder import C2LLMEmbedder
from c2llm_integrations.errors import InputError, SpecMismatch, StoreError
from c2llm_integrations.ingest import ingest
from c2llm_integrations.search import search
from c2llm_integrations.stores import open_store
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


@pytest.mark.parametrize(
    ("filters", "want"),
    [
        ({"language": "python"}, {"src/one.py", NASTY.replace("\\", "")}),
        ({"language": "Go"}, {"src/deep/two.go"}),
        ({"path": "src/"}, {"src/one.py", "src/deep/two.go"}),
        ({"path": "*.go"}, {"src/deep/two.go"}),
        ({"path": "src/**/*.py"}, {"src/one.py"}),
        ({"path": "*.rs"}, set()),
        ({"path": "./src/one.py"}, {"src/one.py"}),
        ({"path": "src/", "language": "python"}, {"src/one.py"}),
        ({"repository": "here"}, {"src/one.py", "src/deep/two.go", "notes.md", NASTY.replace("\\", "")}),
        ({"repository": "elsewhere"}, set()),
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


@pytest.mark.parametrize("query", ["?!...", "找到排序函数", "a\x00b\x1b[31m", "x " * 200_000])
def test_odd_queries_are_answered(embedder, store, query):
    assert len(search(query, embedder, store)) == 4


def test_another_model_is_refused(store):
    with pytest.raises(SpecMismatch, match="collection has"):
        search("x", C2LLMEmbedder.from_pretrained(str(COMPRESSED), dtype="float32"), store)


def test_nothing_indexed_says_what_to_run(embedder):
    with open_store("qdrant+memory://") as store, pytest.raises(StoreError, match="c2llm index"):
        search("x", embedder, store)
