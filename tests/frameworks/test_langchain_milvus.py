"""Our Milvus collections in LangChain's own store, with the arguments that the README gives."""

import uuid

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_milvus import BM25BuiltInFunction, Milvus
from pymilvus import Function, FunctionType

from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.langchain import C2LLMEmbeddings, C2LLMRetriever, langchain_milvus_arguments
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.retrieval.search import search
from c2llm_integrations.stores.milvus.store import MilvusStore
from tests.conftest import ON_MILVUS
from tests.frameworks.stores import filled_milvus
from tests.golden import TIED
from tests.waiting import until

TINY = {"model": str(TIED), "dtype": "float32", "device": "cpu"}
ARGUMENTS = {
    "collection_name": "code",
    "primary_field": "id",
    "text_field": "page_content",
    "enable_dynamic_field": True,
}


@pytest.fixture(scope="module")
def embedder():
    return C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def embeddings():
    return C2LLMEmbeddings(**TINY)


@pytest.fixture(scope="module", params=["lite", pytest.param("server", marks=ON_MILVUS)])
def uri(request, embedder, tmp_path_factory):
    """What pymilvus calls a database that our ingest has filled."""
    address = None if request.param == "lite" else request.getfixturevalue("milvus_address")
    with filled_milvus(tmp_path_factory.mktemp("langchain-milvus"), embedder, address) as name:
        yield name


@pytest.fixture(scope="module")
def theirs(uri, embeddings):
    """LangChain's store over our collection, as the README opens it."""
    store = Milvus(
        embeddings,
        connection_args={"uri": uri},
        vector_field="vector",
        search_params={"metric_type": "COSINE"},
        **ARGUMENTS,
    )
    store.fields = [name for name in store.fields if name not in ("terms", "lexical")]
    yield store
    store.client.close()


@pytest.fixture
def ours(theirs):
    """Our store over LangChain's client: a folder of Milvus Lite is open once a process."""
    return MilvusStore.from_client(theirs.client, "code")


def test_our_collection_opens_in_langchains_store(theirs, ours, embedder):
    hits = ours.search(embedder.encode_queries(["sum up prices"])[0], 3)
    found = theirs.similarity_search_with_score("sum up prices", k=3)
    assert [document.metadata["id"] for document, _ in found] == [hit.chunk.id for hit in hits]
    np.testing.assert_allclose([score for _, score in found], [hit.score for hit in hits], atol=1e-5)
    for (document, _), hit in zip(found, hits, strict=True):
        assert document.page_content == hit.chunk.text
        names = ("repository", "path", "language", "symbol", "kind", "start_line", "end_line")
        document.metadata.pop("c2llm_source", None)  # a column of Milvus that chunks leave empty
        assert document.metadata == {"id": hit.chunk.id, **{name: getattr(hit.chunk, name) for name in names}}


def test_mmr_and_metadata_filters_work(theirs):
    diverse = theirs.max_marginal_relevance_search("sum up prices", k=2, fetch_k=4, lambda_mult=0.0)
    assert len({document.metadata["id"] for document in diverse}) == 2
    only = theirs.similarity_search("wait", expr='language == "javascript"')
    assert [document.metadata["path"] for document in only] == ["web/retry.js"]
    assert theirs.similarity_search("wait", expr='path like "shop/%" and start_line > 100') == []


async def test_langchains_store_answers_on_an_event_loop_too(theirs):
    here, there = theirs.similarity_search("sum up prices", k=2), await theirs.asimilarity_search("sum up prices", k=2)
    assert here == there


def test_documents_of_others_are_found_and_never_deleted(theirs, ours, embedder, embeddings, tmp_path):
    for name in ("kept", "deleted"):
        (tmp_path / f"{name}.py").write_text(f"def {name}(): ...\n")
    ingest(tmp_path, embedder, ours, repository="more")
    stranger, before = str(uuid.uuid4()), ours.count()
    note = Document(page_content="def borrowed(): ...", metadata={"source": "elsewhere", "stars": 3})
    theirs.add_documents([note], ids=[stranger])

    def look():
        hits = search("def borrowed(): ...", embedder, ours, limit=50)
        return next((hit for hit in hits if hit.chunk.id == stranger), None)

    found = until(look).chunk  # a server shows what others wrote a moment later
    assert found.text == "def borrowed(): ..."
    assert (found.path, found.symbol, found.start_line) == ("", "", 0)
    retrieved = C2LLMRetriever(store=ours, embeddings=embeddings, k=50).invoke("def borrowed(): ...")
    assert stranger in {document.id for document in retrieved}

    (tmp_path / "deleted.py").unlink()
    report = ingest(tmp_path, embedder, ours, repository="more")
    assert (report.written, report.deleted, ours.count()) == (0, 1, before - 1)
    assert stranger not in {row.id for row in ours.scan()}
    (same,) = theirs.similarity_search("x", k=50, expr="stars == 3")
    assert (same.page_content, same.metadata["source"]) == (note.page_content, "elsewhere")
    theirs.delete([stranger])
    ours.delete([row.id for row in ours.scan(source="more")])


@pytest.mark.parametrize("key_encoder", ["sha256", "blake2b"])
def test_langchains_index_keeps_its_documents_up_to_date(theirs, ours, key_encoder):
    records = InMemoryRecordManager("c2llm")
    records.create_schema()
    before = ours.count()

    def run(*texts):
        documents = [Document(page_content=text, metadata={"source": "elsewhere"}) for text in texts]
        done = index(documents, records, theirs, cleanup="full", key_encoder=key_encoder)
        return done["num_added"], done["num_skipped"], done["num_deleted"]

    assert [run("a", "b"), run("a", "b"), run("b", "c")] == [(2, 0, 0), (0, 2, 0), (1, 1, 1)]
    left = theirs.similarity_search("x", k=50, expr='source == "elsewhere"')
    assert {document.page_content for document in left} == {"b", "c"}
    assert run() == (0, 0, 2)
    assert ours.count() == before


def test_langchain_searches_words_and_vectors_together(uri, theirs, embeddings):
    if "lexical" not in {field["name"] for field in theirs.client.describe_collection("code")["fields"]}:
        pytest.skip("a Milvus server before 2.5 has no lexical search")
    both = Milvus(
        embeddings,
        connection_args={"uri": uri},
        vector_field=["vector", "lexical"],
        builtin_function=BM25BuiltInFunction(input_field_names="terms", output_field_names="lexical"),
        search_params=[{"metric_type": "COSINE"}, {"metric_type": "BM25"}],
        **ARGUMENTS,
    )
    rrf = Function("rrf", FunctionType.RERANK, [], params={"reranker": "rrf", "k": 60})
    found = both.similarity_search("retry delay", k=3, reranker=rrf)
    assert (len(found), found[0].metadata["path"]) == (3, "web/retry.js")
    only = both.similarity_search("retry delay", k=3, reranker=rrf, expr='language == "python"')
    assert {document.metadata["language"] for document in only} == {"python"}
    both.client.close()


def test_langchains_store_answers_one_question_after_another(uri, theirs, ours, embeddings):
    if ours.spec.analyzer is None:
        pytest.skip("a Milvus server before 2.5 has no lexical search")
    both = Milvus(embeddings, connection_args={"uri": uri}, **langchain_milvus_arguments(ours))
    for _ in range(3):
        found = both.similarity_search("retry delay", k=50, fetch_k=50)
        assert (len(found), found[0].metadata["path"]) == (ours.total(), "web/retry.js")
