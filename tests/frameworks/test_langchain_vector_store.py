"""Our stores as LangChain's vector store: what its own standard tests do not ask."""

import asyncio
import json
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.storage import InMemoryByteStore
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager, index

from c2llm_integrations import ingest_records
from c2llm_integrations.errors import InputError, RowsRefused, SpecMismatch
from c2llm_integrations.langchain import C2LLMCodeLoader, C2LLMEmbeddings, C2LLMRetriever, C2LLMVectorStore
from c2llm_integrations.retrieval.clashing_fields import PREFIX
from c2llm_integrations.retrieval.document_store import BATCH_TEXTS, Documents
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.qdrant.store import QdrantStore
from c2llm_integrations.stores.row_fields import RESERVED
from c2llm_integrations.stores.spec import CompactPlan
from tests.frameworks.stores import OBJECTS, OBJECTS_AS_JSON, STORES, url_of
from tests.golden import TIED

TINY = {"model": str(TIED), "dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def embeddings():
    return C2LLMEmbeddings(**TINY)


class Counting(C2LLMEmbeddings):
    """Notes which texts were embedded."""

    def embed_documents(self, texts):
        EMBEDDED.extend(texts)
        return super().embed_documents(texts)


EMBEDDED = []


@pytest.fixture(params=STORES)
def store(request, tmp_path, embeddings):
    with open_store(url_of(request.param, tmp_path), "answers") as opened:
        yield C2LLMVectorStore(opened, embedding=embeddings)


ANSWERS = [
    Document(
        page_content="def retry_delay(attempt): return 2 ** attempt",
        metadata={"tenant": "acme", "votes": 12, "tags": ["http", "retry"], "author": {"name": "Ada"}, "draft": None},
        id="doc-17",
    ),
    Document(page_content="class Cart: pass", metadata={"tenant": "globex", "votes": 3, "tags": []}, id="https://x/1"),
    Document(
        page_content="class Cart: pass",
        metadata={"tenant": "acme", "votes": 3.5},
        id="7b0e1b1c-7a53-4a53-9f0b-5d7a5a0f3a01",
    ),
]


def test_documents_come_back_as_they_were_given(store):
    assert store.add_documents(ANSWERS) == [one.id for one in ANSWERS]
    assert store.get_by_ids([ANSWERS[2].id, "nowhere", "doc-17", "https://x/1"]) == [ANSWERS[2], ANSWERS[0], ANSWERS[1]]
    found = store.similarity_search("retry delay", k=3)
    assert found[0] == ANSWERS[0]
    assert {one.id for one in found} == {one.id for one in ANSWERS}


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        ({"tenant": "acme"}, {0, 2}),
        ({"votes": {"gte": 3.5}}, {0, 2}),
        ({"tags": "retry"}, {0}),
        ({"tags": ["other", "http"], "tenant": "acme"}, {0}),
        ({"author.name": "Ada"}, {0}),
        ({"not": {"tenant": "acme"}}, {1}),
        ({"or": [{"votes": 3}, {"tags": {"exists": True}}]}, {0, 1}),
        ({"draft": {"exists": True}}, set()),
        ({"tenant": []}, set()),
    ],
)
def test_filters_are_mappings_on_any_field(store, chosen, ids):
    store.add_documents(ANSWERS)
    wanted = {ANSWERS[place].id for place in ids}
    for search_type in ("hybrid", "dense"):
        found = store.similarity_search("class Cart", k=9, filter=chosen, search_type=search_type)
        assert {one.id for one in found} == wanted
    by_vector = store.similarity_search_by_vector(store.embeddings.embed_query("x"), k=9, filter=chosen)
    assert {one.id for one in by_vector} == wanted
    assert {one.id for one in store.max_marginal_relevance_search("x", k=9, filter=chosen)} == wanted
    retriever = store.as_retriever(search_kwargs={"k": 9, "filter": chosen})
    assert {one.id for one in retriever.invoke("class Cart")} == wanted


@pytest.mark.parametrize("name", sorted(RESERVED | {f"{PREFIX}id", f"{PREFIX}{PREFIX}vector", f"{PREFIX}votes"}))
def test_a_field_named_like_one_of_ours_comes_back_and_filters(name, embeddings):
    store = C2LLMVectorStore(embedding=embeddings)
    [id] = store.add_texts(["x = 1"], [{name: 5}])
    store.add_texts(["x = 2"], [{name: 6}])
    assert store.get_by_ids([id])[0].metadata == {name: 5}
    nested = {"or": [{"and": [{name: 5}]}, {"not": {name: {"exists": True}}}]}
    for chosen in ({name: 5}, {name: {"lt": 6}}, nested):
        assert [one.metadata for one in store.similarity_search("x", filter=chosen)] == [{name: 5}]


def test_an_integer_id_is_found_and_deleted_by_what_was_given_out(store):
    ids = store.add_texts(
        (text for text in ("a = 1", "b = 2")), (one for one in ({"n": 1}, {"n": 2})), ids=iter([5, 6])
    )
    assert ids == ["5", "6"]
    assert [one.metadata for one in store.get_by_ids(ids)] == [{"n": 1}, {"n": 2}]
    with store._documents.shared.opened() as opened:
        others = C2LLMVectorStore(opened, embedding=store.embeddings, source="others")
    others.delete(ids)  # the integers are rows of another source
    assert len(store.get_by_ids(ids)) == 2
    store.add_texts(["c = 3"], ids=["6"])
    store.delete(ids)
    assert [one.page_content for one in store.get_by_ids([6, "6"])] == ["b = 2", "b = 2"]


def test_words_alone_find_what_vectors_do_not(store):
    store.add_texts([f"def f{n}(): return {n}" for n in range(30)] + ["raise QuotaExceeded('zanzibar')"])
    [(best, score), *others] = store.similarity_search_with_score("zanzibar", k=2, search_type="lexical")
    assert "zanzibar" in best.page_content
    assert 0 < score <= 1
    assert not others


def test_a_text_without_id_gets_one_from_its_content(embeddings):
    store = C2LLMVectorStore(embedding=embeddings)
    twice = ["a = 1", "a = 1"]
    first = store.add_texts(twice, [{"tenant": "acme"}, {"tenant": "globex"}])
    assert len({*first}) == 2
    assert store.add_texts(twice, [{"tenant": "acme"}, {"tenant": "globex"}]) == first
    same = store.add_texts(["b = 1", "b = 1"])
    assert len({*same}) == 2
    assert store.add_texts(["b = 1", "b = 1"]) == same
    assert len(store.similarity_search("a", k=20)) == 4


def test_sources_share_a_collection_and_never_delete_each_others(tmp_path, embeddings):
    with open_store(url_of("edge", tmp_path)) as opened:
        one, other = (C2LLMVectorStore(opened, embedding=embeddings, source=name) for name in ("one", "other"))
        one.add_texts(["a = 1"], ids=["x"])
        other.add_texts(["b = 1"], ids=["x"])
        assert one.get_by_ids(["x"])[0].page_content == "a = 1"
        other.delete()
        assert [document.page_content for document in one.similarity_search("b", k=9)] == ["a = 1"]
        one.delete(filter={"nothing": 1})
        assert one.get_by_ids(["x"])
        one.delete(["x"])
        assert one.similarity_search("b") == []


def test_scores_and_thresholds_are_relevance(store):
    store.add_documents(ANSWERS)
    scored = store.similarity_search_with_relevance_scores("class Cart", k=3)
    assert all(0 <= score <= 1 for _, score in scored)
    retriever = store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.99})
    assert len(retriever.invoke("retry_delay")) < 3
    assert len(store.as_retriever(search_type="mmr", search_kwargs={"k": 2}).invoke("Cart")) == 2


async def test_async_gives_what_sync_gives(store):
    ids = await store.aadd_documents(ANSWERS)
    assert [one.id for one in await store.aget_by_ids(ids)] == ids
    questions = ["retry", "class Cart", "acme"]
    every = len(ANSWERS)  # the same text for two tenants scores the same, so their order says nothing
    together = await asyncio.gather(*(store.asimilarity_search_with_score(one, k=every) for one in questions))
    for question, found in zip(questions, together, strict=True):
        alone = {one.id: score for one, score in store.similarity_search_with_score(question, k=every)}
        assert {one.id: score for one, score in found} == pytest.approx(alone, abs=1e-5)
    assert await store.amax_marginal_relevance_search("x", k=2) == store.max_marginal_relevance_search("x", k=2)
    assert await store.adelete(ids)
    assert await store.asimilarity_search("retry") == []


def holds_itself():
    metadata = {}
    metadata["again"] = metadata
    return metadata


# Neither a number of documents nor a share.
NAN = float("nan")
WRONG = ("s", NAN, True, -1, 2.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.similarity_search("x", filters={"a": 1}),
        lambda store: store.similarity_search("x", where={"a": 1}),
        lambda store: store.similarity_search("x", filter={"a": {"$gt": 1}}),
        lambda store: store.similarity_search("x", filter="a == 1"),
        lambda store: store.similarity_search("x", search_type="bm25"),
        lambda store: store.similarity_search("x", k=0),
        lambda store: store.similarity_search("x", k="1"),
        lambda store: store.similarity_search("x", k=1.5),
        lambda store: store.similarity_search("x", k=None),
        lambda store: store.similarity_search("x", k=True),
        *(
            lambda store, name=name, wrong=wrong: store.max_marginal_relevance_search("x", **{name: wrong})
            for name in ("k", "fetch_k", "lambda_mult")
            for wrong in WRONG
        ),
        *(
            lambda store, wrong=wrong: store.similarity_search_with_relevance_scores("x", score_threshold=wrong)
            for wrong in WRONG
        ),
        lambda store: asyncio.run(store.asimilarity_search_with_relevance_scores("x", score_threshold=NAN)),
        lambda store: store.similarity_search(5),
        lambda store: store.similarity_search(["x"]),
        lambda store: store.similarity_search_by_vector("x"),
        lambda store: store.add_texts(["a"], [holds_itself()]),
        lambda store: store.add_texts(["a"], [{}, {}]),
        lambda store: store.add_texts(["a"], ids=["a", "b"]),
        lambda store: store.add_texts(["a"], namespace="b"),
        lambda store: store.delete(["a"], filter={"a": 1}),
        lambda store: store.delete(filter={}),
        lambda store: store.delete(filter={"and": [{}]}),
        lambda store: C2LLMVectorStore(search_type="sparse"),
        lambda store: C2LLMVectorStore("somewhere").add_texts(["a"]),
        lambda store: C2LLMVectorStore(store.embeddings, "answers"),
        lambda store: C2LLMVectorStore(embedding=store.embeddings.embedder),
    ],
)
def test_bad_arguments_are_refused_in_one_line(call, embeddings):
    store = C2LLMVectorStore(embedding=embeddings)
    store.add_texts(["a"])
    with pytest.raises(InputError) as refused:
        call(store)
    assert "\n" not in str(refused.value)
    assert len(store.similarity_search("a")) == 1


def test_a_relative_url_is_meant_from_the_folder_where_it_was_given(tmp_path, monkeypatch, embeddings):
    stores = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        stores.append(C2LLMVectorStore("qdrant+edge://rows", embedding=embeddings))
        monkeypatch.chdir(tmp_path)
        stores[-1].add_texts([name])
    assert [store.similarity_search("which?")[0].page_content for store in stores] == ["one", "two"]
    monkeypatch.chdir(tmp_path / "one")
    retriever = C2LLMRetriever(store="qdrant+edge://rows", collection="documents", embeddings=embeddings)
    for folder in ("one", "two"):
        monkeypatch.chdir(tmp_path / folder)
        assert retriever.invoke("which?")[0].page_content == "one"
    monkeypatch.chdir(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


class Alike:
    """Embeddings that are none of LangChain's class."""

    def __init__(self, embeddings):
        self.embed_documents = embeddings.embed_documents
        self.embed_query = embeddings.embed_query


def test_whatever_embeds_documents_and_questions_will_do(embeddings):
    store = C2LLMVectorStore(embedding=Alike(embeddings))
    store.add_texts(["how to wait"], ids=["a"])
    assert store.similarity_search("wait")[0].id == "a"


@pytest.mark.parametrize("metadata", [{"a": object()}, {"a": float("nan")}, {"a": "x" * 70_000}, {'"': 1}, {1: 2}])
def test_metadata_that_cannot_be_stored_is_named(metadata, embeddings):
    store = C2LLMVectorStore(embedding=embeddings)
    with pytest.raises(RowsRefused, match="metadata"):
        store.add_texts(["a"], [metadata], ids=["x"])


def test_the_field_that_is_not_json_is_named(embeddings):
    store = C2LLMVectorStore(embedding=embeddings)
    with pytest.raises(RowsRefused, match=r"row x refused: .*field 'tags': set is not JSON"):
        store.add_texts(["a"], [{"votes": 1, "tags": {"http"}}], ids=["x"])


def test_dates_uuids_and_numpys_numbers_become_json(embeddings):
    store = C2LLMVectorStore(embedding=embeddings)
    store.add_documents([Document(id="x", page_content="a", metadata=OBJECTS)])
    [got] = store.get_by_ids(["x"])
    assert got.metadata == OBJECTS_AS_JSON


def test_vectors_whose_model_nobody_knows_are_compared_with_a_warning(tmp_path, embeddings):
    with open_store(url_of("edge", tmp_path), "answers") as opened:
        text = ANSWERS[0].page_content
        ingest_records(
            [{"id": "a", "text": text}], None, opened, source="s", vectors=embeddings.embed_documents([text])
        )
        store = C2LLMVectorStore(opened, embedding=embeddings)
        retriever = C2LLMRetriever(store=opened, embeddings=embeddings)
        for ask in (
            lambda: store.similarity_search("wait"),
            lambda: store.similarity_search("wait", search_type="dense"),
            lambda: asyncio.run(store.asimilarity_search("wait")),
            lambda: store.max_marginal_relevance_search("wait"),
            lambda: retriever.invoke("wait"),
        ):
            with pytest.warns(UserWarning, match="given vectors of an unknown model"):
                assert [one.page_content for one in ask()] == [text]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store.similarity_search("wait", search_type="lexical")
            store.similarity_search_by_vector(embeddings.embed_query("wait"))


def test_other_embeddings_fill_a_collection_and_keep_it(tmp_path, embeddings):
    url = url_of("edge", tmp_path)
    mine = C2LLMVectorStore(url, embedding=DeterministicFakeEmbedding(size=6), compact=CompactPlan(datatype="float16"))
    mine.add_texts(["a", "b"])
    with mine._documents.shared.opened() as store:
        assert (store.spec.width, store.spec.datatype) == (6, "float16")
    with pytest.raises(SpecMismatch, match="asked for"):
        C2LLMVectorStore(url, embedding=embeddings).add_texts(["c"])
    with pytest.raises(InputError, match="not made by C2LLM"):
        C2LLMRetriever(store=url, collection="documents").invoke("a")
    assert C2LLMRetriever(store=url, collection="documents", mode="lexical").invoke("a")


def test_a_search_with_another_model_of_the_same_width_is_refused(tmp_path, embeddings):
    with open_store(url_of("edge", tmp_path), "answers") as opened:
        C2LLMVectorStore(opened, embedding=embeddings).add_documents(ANSWERS)
        width = len(embeddings.embed_query("a"))
        for other, said in [
            (C2LLMEmbeddings(**TINY, max_length=9), "max_length"),
            (DeterministicFakeEmbedding(size=width), "DeterministicFakeEmbedding"),
        ]:
            store = C2LLMVectorStore(opened, embedding=other)
            for ask in (
                lambda store: store.similarity_search("wait"),
                lambda store: store.similarity_search("wait", search_type="dense"),
                lambda store: asyncio.run(store.asimilarity_search("wait")),
                lambda store: store.max_marginal_relevance_search("wait"),
                lambda store: store.as_retriever(search_type="mmr").invoke("wait"),
            ):
                with pytest.raises(SpecMismatch, match=said):
                    ask(store)
            assert store.similarity_search("retry delay", search_type="lexical")


def test_a_cache_around_a_model_is_that_model(embeddings):
    cached = CacheBackedEmbeddings.from_bytes_store(embeddings, InMemoryByteStore(), key_encoder="sha256")
    with open_store("qdrant+memory://", "answers") as opened:
        C2LLMVectorStore(opened, embedding=cached).add_texts(["wait"])
        store = C2LLMVectorStore(opened, embedding=embeddings)
        store.add_texts(["sum up"])
        assert len(store.similarity_search("wait")) == len(store.max_marginal_relevance_search("wait")) == 2


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"fields": {"tenant": "tenant"}}, "does not index the field 'tenant'"),
        ({"fields": {"votes": "float"}}, "indexes as integer the field 'votes', asked for float"),
        ({"compact": CompactPlan(quantization="int8")}, "has quantization None, asked for 'int8'; leave that out"),
    ],
)
def test_a_collection_made_without_what_is_asked_takes_no_documents(tmp_path, embeddings, asked, said):
    with open_store(url_of("edge", tmp_path), "answers") as opened:
        first = C2LLMVectorStore(opened, embedding=embeddings, fields={"votes": "integer"}, compact=CompactPlan())
        first.add_texts(["a"], [{"votes": 1}])
        for texts in (["a"], ["b"]):
            with pytest.raises(SpecMismatch, match=said):
                C2LLMVectorStore(opened, embedding=embeddings, **asked).add_texts(texts, [{"votes": 1}])
        assert opened.count() == 1
        assert first.add_texts(["b"], [{"votes": 2}])
        assert C2LLMVectorStore(opened, embedding=embeddings).add_texts(["c"], [{"votes": 3}])


def test_a_collection_of_ingest_opens_as_a_vector_store(project, embeddings, tmp_path):
    from c2llm_integrations import ingest, search

    with open_store(url_of("edge", tmp_path)) as opened:
        ingest(project, embeddings.embedder, opened, repository="shop")
        hits = search("sum up prices", embeddings.embedder, opened)
        found = C2LLMVectorStore(opened, embedding=embeddings).similarity_search_with_score("sum up prices", k=10)
        assert [(one.id, one.metadata) for one, _ in found] == [
            (hit.record.id, dict(hit.record.metadata)) for hit in hits
        ]
        np.testing.assert_allclose([score for _, score in found], [hit.score for hit in hits], atol=1e-5)


# ---- `index` with a record manager


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("ids", ["our own", "by content"])
def test_index_leaves_no_stale_places_and_embeds_nothing_twice(tmp_path, name, ids):
    root = tmp_path / "code"
    root.mkdir()
    body = "".join(f'def f{n}(x):\n    """{"word " * 200}"""\n    return x + {n}\n\n\n' for n in range(3))
    records = InMemoryRecordManager("moved")
    records.create_schema()
    options = {"key_encoder": lambda document: document.id} if ids == "our own" else {"key_encoder": "sha256"}
    with open_store(url_of(name, tmp_path)) as opened:
        store = C2LLMVectorStore(opened, embedding=Counting(**TINY))
        for head in ("", "import os\n\n\n" * 300, "", "# licence\n" * 3):
            (root / "code.py").write_text(head + body)
            EMBEDDED.clear()
            documents = C2LLMCodeLoader(root, repository="r").load()
            texts = {one.page_content for one in documents}
            known = {record.text for record in opened.scroll()}
            index(documents, records, store, cleanup="full", source_id_key="path", **options)
            assert {*EMBEDDED} == texts - known
            assert len(EMBEDDED) == len({*EMBEDDED})
            lines = (root / "code.py").read_text().splitlines()
            kept = list(opened.scroll())
            assert len(kept) == len(documents)
            for record in kept:
                assert record.text.splitlines()[0] == lines[record.metadata["start_line"] - 1]


def test_changed_metadata_alone_are_written_without_embedding(embeddings):
    store = C2LLMVectorStore(embedding=Counting(**TINY))
    store.add_texts(["a = 1", "b = 2"], [{"votes": 1}, {"votes": 2}], ids=["a", "b"])
    EMBEDDED.clear()
    store.add_texts(["a = 1", "b = 3"], [{"votes": 5}, {"stars": 2}], ids=["a", "b"])
    assert EMBEDDED == ["b = 3"]
    assert [one.metadata for one in store.get_by_ids(["a", "b"])] == [{"votes": 5}, {"stars": 2}]


def test_two_thousand_documents_go_in_and_come_out(embeddings):
    store = C2LLMVectorStore(embedding=DeterministicFakeEmbedding(size=8))
    texts = [json.dumps({"n": n}) for n in range(2000)]
    ids = store.add_texts(texts, [{"n": n} for n in range(2000)])
    assert len(set(ids)) == 2000
    assert store.similarity_search(texts[1234], k=1, filter={"n": {"gte": 1000}})[0].metadata == {"n": 1234}


def test_any_number_of_equal_texts_is_stored(embeddings):
    store = C2LLMVectorStore(embedding=embeddings)
    ids = store.add_texts(["pass", "pass", "pass", "x = 1", "pass"])
    assert len({*ids}) == 5
    assert store.add_texts(["pass"] * 4) == [*ids[:3], ids[4]]
    assert [one.page_content for one in store.get_by_ids(ids)] == ["pass", "pass", "pass", "x = 1", "pass"]


@pytest.mark.parametrize("text", [None, 5, ["x"]])
def test_what_is_not_a_text_is_refused(embeddings, text):
    with pytest.raises(InputError, match="expected a list of texts"):
        C2LLMVectorStore(embedding=embeddings).add_texts(["fine", text])


def test_a_document_that_is_deleted_during_a_search_is_left_out(embeddings, monkeypatch):
    store = C2LLMVectorStore(embedding=embeddings)
    ids = store.add_texts(["one", "two", "three"])
    real = Documents.nearest

    def nearest(self, *asked):
        found = real(self, *asked)
        store.delete(ids[:1])
        return found

    monkeypatch.setattr(Documents, "nearest", nearest)
    assert {one.page_content for one in store.max_marginal_relevance_search("one", k=3)} == {"two", "three"}


def test_a_server_answers_several_threads_at_once(embeddings):
    """As many as its capabilities let in; without that, this waits until the barrier breaks."""
    together = threading.Barrier(3, timeout=20)

    class Server(QdrantStore):
        def _candidates(self, *asked):
            together.wait()
            return super()._candidates(*asked)

    with Server.in_memory("documents") as opened:
        store = C2LLMVectorStore(opened, embedding=embeddings)
        store.add_texts(["one", "two"])
        opened.capabilities = replace(opened.capabilities, uploads=3)

        async def ask():
            return await asyncio.gather(*(store.asimilarity_search("one", k=1) for _ in range(3)))

        assert [[one.page_content for one in found] for found in asyncio.run(ask())] == [["one"]] * 3


def test_a_refused_document_is_named_by_its_place_in_the_call():
    store = C2LLMVectorStore(embedding=DeterministicFakeEmbedding(size=16))
    texts, ids = ([f"{sign}{number}" for number in range(BATCH_TEXTS + 9)] for sign in ("x = ", "n"))
    place = BATCH_TEXTS + 5
    store.add_texts(texts[place - 2 : place], ids=ids[place - 2 : place])
    ids[place + 1] = ids[place]
    with pytest.raises(RowsRefused, match=ids[place]) as caught:
        store.add_texts(texts, ids=ids)
    assert list(caught.value.places) == [place + 1]
