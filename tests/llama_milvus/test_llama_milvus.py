"""Our Milvus collections in LlamaIndex's own store, with the arguments that the README gives.

Run by `make test-llama-milvus`: that store wants an older pymilvus than the rest of the tests have.
"""

import numpy as np
import pytest

pytest.importorskip(
    "llama_index.vector_stores.milvus", reason="LlamaIndex's Milvus store wants pymilvus < 3: make test-llama-milvus"
)

from llama_index.core import VectorStoreIndex
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.vector_stores.milvus import MilvusVectorStore

from c2llm_integrations.llama_index import C2LLMEmbedding
from c2llm_integrations.stores.milvus.store import MilvusStore
from tests.conftest import ON_MILVUS
from tests.frameworks.stores import filled_milvus
from tests.golden import TIED

FIELDS = ["id", "repository", "path", "language", "symbol", "kind", "start_line", "end_line"]


@pytest.fixture(scope="module")
def embedding():
    return C2LLMEmbedding(model_name=str(TIED), dtype="float32", device="cpu")


@pytest.fixture(scope="module", params=["lite", pytest.param("server", marks=ON_MILVUS)])
def uri(request, embedding, tmp_path_factory):
    """What pymilvus calls a database that our ingest has filled."""
    address = None if request.param == "lite" else request.getfixturevalue("milvus_address")
    with filled_milvus(tmp_path_factory.mktemp("llama-milvus"), embedding.shared.embedder, address) as name:
        yield name


def open_theirs(uri):
    """LlamaIndex's store over our collection, as the README opens it."""
    from pymilvus import MilvusClient

    client = MilvusClient(uri)
    client.load_collection("code")
    store = MilvusVectorStore(
        uri=uri,
        collection_name=client.describe_collection("code")["collection_name"],
        embedding_field="vector",
        text_key="page_content",
        similarity_metric="COSINE",
        output_fields=FIELDS,
    )
    client.close()
    return store


@pytest.fixture(scope="module")
def theirs(uri):
    store = open_theirs(uri)
    yield store
    store.client.close()


@pytest.fixture(scope="module")
def index(theirs, embedding):
    return VectorStoreIndex.from_vector_store(theirs, embed_model=embedding)


@pytest.fixture
def hits(theirs, embedding):
    query = embedding.shared.embedder.encode_queries(["sum up prices"])[0]
    return MilvusStore.from_client(theirs.client, "code").search(query, 3)


def test_our_collection_answers_through_llama_indexs_store(index, hits):
    found = index.as_retriever(similarity_top_k=3).retrieve("sum up prices")
    np.testing.assert_allclose([node.score for node in found], [hit.score for hit in hits], atol=1e-5)
    for node, hit in zip(found, hits, strict=True):
        assert node.text == hit.chunk.text
        assert node.metadata == {name: getattr(hit.chunk, name) for name in FIELDS}


def test_the_store_itself_gives_the_rows_ids(theirs, embedding, hits):
    query = VectorStoreQuery(query_embedding=embedding.get_query_embedding("sum up prices"), similarity_top_k=3)
    assert theirs.query(query).ids == [hit.chunk.id for hit in hits]


def test_filters_name_the_fields_as_they_are(index):
    def paths(*filters):
        filters = MetadataFilters(filters=[MetadataFilter(key=key, value=value) for key, value in filters])
        return {node.metadata["path"] for node in index.as_retriever(filters=filters, similarity_top_k=9).retrieve("x")}

    assert paths(("path", "web/retry.js")) == {"web/retry.js"}
    assert paths(("language", "python"), ("symbol", "Cart")) == {"shop/prices.py"}
    assert paths(("path", "nowhere")) == set()


async def test_it_answers_on_an_event_loop_too(uri, index, embedding):
    store = open_theirs(uri)  # its asynchronous client belongs to the loop that it is made in
    there = VectorStoreIndex.from_vector_store(store, embed_model=embedding).as_retriever(similarity_top_k=2)
    found = await there.aretrieve("sum up prices")
    here = index.as_retriever(similarity_top_k=2).retrieve("sum up prices")
    assert [node.metadata["id"] for node in found] == [node.metadata["id"] for node in here]
    await store.aclient.close()
    store.client.close()
