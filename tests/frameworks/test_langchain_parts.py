"""Our parts inside LangChain's own: compressors, parent documents, sparse search, ensembles."""

import asyncio
import re

import numpy as np
import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever, EnsembleRetriever, ParentDocumentRetriever
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.stores import InMemoryStore
from langchain_qdrant import QdrantVectorStore, RetrievalMode
from qdrant_client import QdrantClient, models

from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.errors import InputError
from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.langchain import (
    C2LLMCodeSplitter,
    C2LLMEmbeddings,
    C2LLMMilvusSparseEmbedding,
    C2LLMReranker,
    C2LLMRetriever,
    C2LLMSparseEmbeddings,
    C2LLMVectorStore,
    langchain_milvus_arguments,
)
from c2llm_integrations.model.shared_model import SharedModel
from c2llm_integrations.retrieval.clashing_fields import PREFIX
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.qdrant.store import QdrantStore
from c2llm_integrations.stores.row_fields import RESERVED
from c2llm_integrations.stores.spec import CollectionSpec
from tests.golden import TIED

CODE = {
    "retry": "def retry_delay(attempt):\n    return 2 ** attempt\n",
    "cart": "class Cart:\n    def total(self):\n        return sum(self.items)\n",
    "check": "def test_retry_delay():\n    assert retry_delay(1) == 2\n",
}
UNREADABLE = ["计算订单的运费", "カートの合計を計算", "คำนวณราคารวม", "장바구니의 합계"]


@pytest.fixture(scope="module")
def embeddings():
    return C2LLMEmbeddings(model=str(TIED), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def nano():
    return C2LLMEmbeddings(dtype="float32", device="cpu")


def documents():
    return [
        Document(id=name, page_content=text, metadata={"path": f"{'tests/' * (name == 'check')}{name}.py"})
        for name, text in CODE.items()
    ]


# ---- the reranker


def test_the_reranker_orders_what_others_found_by_words_too(embeddings):
    found = C2LLMReranker(embeddings=embeddings, top_n=2).compress_documents(documents()[::-1], "retry_delay")
    assert [one.id for one in found] == ["retry", "check"]
    first, second = (one.metadata["relevance_score"] for one in found)
    assert 1 >= first > second >= 0
    assert found[0].metadata["path"] == "retry.py"


def test_the_reranker_takes_any_embeddings_and_leaves_its_input_alone(embeddings):
    given = documents()
    for own in (embeddings, DeterministicFakeEmbedding(size=6)):
        reranker = C2LLMReranker(embeddings=own)
        found = reranker.compress_documents(given, "retry_delay")
        assert {one.id for one in found} == CODE.keys()
        again = asyncio.run(reranker.acompress_documents(given, "retry_delay"))
        assert [one.id for one in again] == [one.id for one in found]
        assert reranker.compress_documents([], "x") == []
    assert given == documents()


def test_a_compression_retriever_runs_the_reranker(embeddings):
    store = C2LLMVectorStore(embedding=embeddings)
    store.add_documents(documents())
    retriever = ContextualCompressionRetriever(
        base_compressor=C2LLMReranker(embeddings=embeddings, top_n=1),
        base_retriever=store.as_retriever(search_kwargs={"k": 3, "search_type": "dense"}),
    )
    assert [one.id for one in retriever.invoke("class Cart")] == ["cart"]


# ---- questions that the model cannot read


@pytest.mark.parametrize("question", UNREADABLE)
def test_the_reranker_compares_words_alone_where_the_model_cannot_read(nano, question):
    given = [Document(page_content=f"# {text}\ndef f(): ...", id=text) for text in UNREADABLE]
    with pytest.warns(UserWarning, match="does not know the script"):
        found = C2LLMReranker(embeddings=nano).compress_documents(given, question)
    assert found[0].id == question
    assert len(found) == len(given)
    assert [one.metadata["relevance_score"] for one in found[1:]] == [0.0] * (len(given) - 1)


@pytest.mark.parametrize("question", UNREADABLE)
def test_the_vector_store_and_the_retriever_step_aside_and_warn(nano, question):
    rows = open_store("qdrant+memory://")
    store = C2LLMVectorStore(rows, embedding=nano)
    store.add_texts([f"# {text}\ndef f{n}(): ..." for n, text in enumerate(UNREADABLE)], ids=UNREADABLE)
    retriever = C2LLMRetriever(store=rows, embeddings=nano)
    for ask in (store.similarity_search, retriever.invoke):
        with pytest.warns(UserWarning, match="answered by words alone.*does not know the script"):
            found = ask(question)
        assert [one.id for one in found] == [question]  # every vector would be as near
        with pytest.warns(UserWarning, match="meaningless vector: the model does not know the script.*search by words"):
            assert ask(question, **({"mode": "dense"} if ask == retriever.invoke else {"search_type": "dense"}))


def test_a_question_that_the_model_reads_gives_no_warning(nano, recwarn):
    store = C2LLMVectorStore(embedding=nano)
    store.add_documents(documents())
    for question in ("sum of a cart", "größe der übersicht", "按retryDelay重试"):
        assert len(store.similarity_search(question)) == 3
    assert not [one for one in recwarn if "script" in str(one.message)]


# ---- fields named like ours, and texts that are the question


@pytest.mark.parametrize("name", sorted(RESERVED | {f"{PREFIX}id"}))
def test_the_retriever_gives_fields_back_under_their_own_names(name, embeddings):
    rows = open_store("qdrant+memory://")
    C2LLMVectorStore(rows, embedding=embeddings).add_texts(["x = 1", "x = 2"], [{name: 5}, {name: 6}], ids=["a", "b"])
    retriever = C2LLMRetriever(store=rows, embeddings=embeddings, where={name: 5})
    [found] = retriever.invoke("x")
    assert found.id == "a"
    assert found.metadata.keys() == {name, "score", "_id"}
    assert found.metadata[name] == 5


@pytest.mark.parametrize("path", [None, "docs/notes.md", "tests/test_notes.py", "vendor/notes.py"])
def test_a_foreign_text_that_is_the_question_comes_first(path, project, embeddings):
    client = QdrantClient(":memory:")
    ours = QdrantStore.from_client(client)
    ingest(project, embeddings.embedder, ours, repository="shop")
    question = "def total(self): return sum(self.items)"
    theirs = QdrantVectorStore(client, "code", embedding=embeddings)
    texts = [*(f"{question}  # {n}" for n in range(9)), question]
    theirs.add_texts(texts, [{} if path is None else {"path": path}] * 10)
    first, second, *_ = C2LLMRetriever(store=ours, embeddings=embeddings).invoke(question)
    assert first.page_content == question
    assert first.metadata["score"] == pytest.approx(1, abs=0.05)  # lowered by coverage alone
    assert second.metadata["score"] < first.metadata["score"]


# ---- the splitter


def test_a_parent_document_retriever_cuts_with_our_splitter(embeddings):
    body = "".join(f"def f{n}(x):\n    return x + {n}\n\n\n" for n in range(40))
    parents = [
        Document(page_content=body + text, metadata={"source": f"{name}.py", "tenant": name})
        for name, text in CODE.items()
    ]
    store = C2LLMVectorStore(embedding=embeddings)
    retriever = ParentDocumentRetriever(
        vectorstore=store,
        docstore=InMemoryStore(),
        child_splitter=C2LLMCodeSplitter(max_chars=200),
        search_kwargs={"k": 1},
    )
    retriever.add_documents(parents, ids=list(CODE))
    for parent in parents:
        question = CODE[parent.metadata["tenant"]]
        [child] = store.similarity_search(question, k=1)
        assert child.metadata["doc_id"] == child.metadata["tenant"] == parent.metadata["tenant"]
        assert child.metadata["language"] == "python"
        assert retriever.invoke(question) == [parent]


# ---- sparse vectors in LangChain's Qdrant store


@pytest.mark.parametrize("mode", [RetrievalMode.SPARSE, RetrievalMode.HYBRID])
def test_our_terms_search_in_langchains_own_qdrant_store(mode, embeddings):
    client = QdrantClient(":memory:")
    vectors = {} if mode == RetrievalMode.SPARSE else {"": models.VectorParams(size=16, distance="Cosine")}
    width = len(embeddings.embed_query("x"))
    client.create_collection(
        "theirs",
        vectors_config={name: models.VectorParams(size=width, distance="Cosine") for name in vectors},
        sparse_vectors_config={"langchain-sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    store = QdrantVectorStore(
        client,
        "theirs",
        embedding=None if mode == RetrievalMode.SPARSE else embeddings,
        retrieval_mode=mode,
        sparse_embedding=C2LLMSparseEmbeddings(),
    )
    store.add_texts([f"def f{n}():\n    return {n}\n" for n in range(30)] + list(CODE.values()))
    # A part of a name, and a stem: what no analyzer of words finds.
    for question, name in (("delay of retries", "retry"), ("retryDelay", "retry"), ("sum items", "cart")):
        found = store.similarity_search(question, k=3)
        assert CODE[name] in [one.page_content for one in found]
    if mode == RetrievalMode.SPARSE:
        assert store.similarity_search("zanzibar") == []


def test_sparse_vectors_are_those_of_our_stores():
    sparse = C2LLMSparseEmbeddings()
    [document] = sparse.embed_documents(["def retry_delay(): ..."])
    question = sparse.embed_query("retry delays")
    assert set(question.indices) <= set(document.indices)
    assert set(question.values) == {1.0}
    assert list(document.indices) == sorted(set(document.indices))
    assert sparse.embed_documents([""])[0].indices == []


# ---- ensembles


ONE = "expected a list of texts, got 'abc' (str)"


def test_one_string_is_not_a_list_of_its_characters(embeddings):
    store = C2LLMVectorStore(embedding=embeddings)
    calls = [
        lambda: store.add_texts("abc"),
        lambda: C2LLMVectorStore.from_texts("abc", embeddings),
        lambda: asyncio.run(store.aadd_texts("abc")),
        lambda: C2LLMCodeSplitter().create_documents("abc"),
        lambda: C2LLMSparseEmbeddings().embed_documents("abc"),
        lambda: C2LLMMilvusSparseEmbedding().embed_documents("abc"),
    ]
    for call in calls:
        with pytest.raises(InputError, match=f"^{re.escape(ONE)}$"):
            call()
    with pytest.raises(InputError, match=r"^expected a list of ids, got 'ab' \(str\)$"):
        store.add_texts(["a", "b"], ids="ab")
    with pytest.raises(InputError, match=r"^expected a list of metadatas, got \{'votes': 1\} \(dict\)$"):
        store.add_texts(["a"], {"votes": 1})
    assert store.get_by_ids(["a"]) == []
    assert len(store.add_texts(text for text in ("abc", "x = 1"))) == 2
    assert embeddings.embed_documents("abc") == embeddings.embed_documents(["abc"])  # one string is one text there


def test_an_ensemble_knows_our_rows_again_by_their_id(project, embeddings):
    with open_store("qdrant+memory://") as store:
        ingest(project, embeddings.embedder, store, repository="shop")
        words, vectors = (
            C2LLMRetriever(store=store, embeddings=embeddings, k=4, mode=mode) for mode in ("lexical", "dense")
        )
        ensemble = EnsembleRetriever(retrievers=[words, vectors], weights=[0.5, 0.5], id_key="_id")
        found = ensemble.invoke("total of the cart")
        rows = [one.metadata["_id"] for one in found]
        assert len(rows) == len(set(rows)) == 4
        ranks = [[one.metadata["_id"] for one in each.invoke("total of the cart")] for each in (words, vectors)]
        fused = {row: sum(1 / (61 + each.index(row)) for each in ranks if row in each) for row in rows}
        np.testing.assert_array_less([-fused[row] for row in rows[:-1]], [-fused[row] + 1e-12 for row in rows[1:]])


def test_a_question_whose_embedding_panics_is_answered_with_that(monkeypatch):
    """Rust's libraries raise what is not an Exception."""

    class PanicException(BaseException):
        pass

    def queries(self, texts, task=None):
        raise PanicException("index out of bounds")

    monkeypatch.setattr(SharedModel, "queries", queries)
    with pytest.raises(PanicException, match="out of bounds"):
        asyncio.run(asyncio.wait_for(C2LLMEmbeddings().aembed_query("x"), 20))


def test_the_arguments_for_milvus_are_those_of_a_milvus_store(tmp_path, monkeypatch):
    spec = CollectionSpec(2, {}, analyzer=ANALYZER)
    with open_store(f"qdrant+edge://{tmp_path / 'milvus'}") as store:
        store.create(spec)
        with pytest.raises(InputError, match="is not a Milvus store"):
            langchain_milvus_arguments(store)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with open_store("milvus+lite://~/rows.db") as store:
        store.create(spec)
        assert langchain_milvus_arguments(store)["connection_args"] == {"uri": str(tmp_path / "rows.db")}


@pytest.mark.parametrize(
    "call",
    [
        lambda splitter: splitter.split_text(None),
        lambda splitter: splitter.split_documents(["x = 1"]),
        lambda splitter: splitter.split_documents(None),
        lambda splitter: splitter.create_documents([1]),
        lambda splitter: splitter.create_documents(["x = 1"], [None]),
        lambda splitter: splitter.create_documents(["x = 1", "y = 2"], [{}]),
    ],
)
def test_what_is_not_text_is_refused_in_one_line_by_the_splitter(call):
    with pytest.raises(InputError, match="expected") as refused:
        call(C2LLMCodeSplitter())
    assert "\n" not in str(refused.value)
