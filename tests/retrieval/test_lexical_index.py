"""The lexical index in memory: the same order as the store's."""

import random
import threading

from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.lexical_terms import ANALYZER, query_terms
from c2llm_integrations.retrieval.lexical_index import LexicalIndex
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec

WORDS = "open close read write file buffer socket parse token retry delay cache flush lock".split()  # noqa: SIM905


def sources(count):
    chooser = random.Random(1)
    for number in range(count):
        body = " ".join(chooser.choices(WORDS, k=30))
        yield from chunk_source(
            "r", f"pkg/{chooser.choice(WORDS)}_{number}.py", f"def {WORDS[number % 14]}():\n    '''{body}'''\n"
        )


def test_the_scores_are_those_of_the_store(tmp_path):
    chunks = list(sources(60))
    index = LexicalIndex()
    index.add(chunks)
    import numpy as np

    with open_store(f"qdrant+edge://{tmp_path / 'index'}") as store:
        store.create(CollectionSpec(2, {"model": "none"}, analyzer=ANALYZER))
        store.upsert([Row(chunk, np.ones(2, np.float32)) for chunk in chunks])
        for question in ("retry delay", "parse_token", "where is the cache flushed? socket"):
            terms = query_terms(question)
            ours, theirs = index.candidates(None, terms, 10).lexical, store.candidates(None, terms, 10).lexical
            assert [round(hit.score, 3) for hit in ours] == [round(hit.score, 3) for hit in theirs]
            assert ours


def test_filters_and_limit():
    index = LexicalIndex()
    index.add(list(sources(20)))
    path = next(index.scan()).path
    assert len(index.candidates(None, ["def", "retry", "delay", "cache"], 3).lexical) == 3
    only = index.candidates(None, ["py"], 99, Filter({"path": path})).lexical
    assert {hit.chunk.path for hit in only} == {path}
    assert index.candidates(None, ["py"], 5, Filter({"repository": "other"})).lexical == []
    assert index.candidates(None, ["nosuchterm"], 5).lexical == []
    assert index.candidates(None, [], 5).lexical == []
    assert list(index.scan(source="other")) == []


def test_an_empty_index_has_no_answer():
    assert LexicalIndex().candidates(None, ["retry"], 5).lexical == []


def test_chunks_are_added_while_others_search():
    index = LexicalIndex()
    chunks = list(sources(300))
    adder = threading.Thread(target=lambda: [index.add([chunk]) for chunk in chunks])
    adder.start()
    found = [len(index.candidates(None, ["py"], 1000).lexical) for _ in range(30)]
    adder.join()
    assert found == sorted(found)
    assert len(index.candidates(None, ["py"], 1000).lexical) == index.count() == len(chunks)
