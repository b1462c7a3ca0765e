"""C2LLM in LlamaIndex: the conformance suite, and what it does not ask."""

import asyncio
import subprocess
import sys

import numpy as np
import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.vector_stores.qdrant import QdrantVectorStore
from pydantic import ValidationError

from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.errors import InputError
from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.llama_index import C2LLMEmbedding, C2LLMNodeParser, C2LLMRetriever
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.retrieval.search import search
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.qdrant.store import QdrantStore
from tests.frameworks.embedding_conformance import EmbeddingConformance
from tests.frameworks.stores import filled_qdrant
from tests.golden import COMPRESSED, TIED

TINY = {"model_name": str(TIED), "dtype": "float32", "device": "cpu"}
SOURCE = "".join(f"def f{n}(x):\n    return x + {n}\n\n\n" for n in range(80))


class TestConformance(EmbeddingConformance):
    other_settings = {  # noqa: RUF012
        "model_name": str(COMPRESSED),
        "dtype": "bfloat16",
        "max_length": 1,
        "normalize": False,
        "truncate_dim": 8,
        "query_task": "CosQA",
        "revision": "main",
    }

    def make(self, **fields):
        return C2LLMEmbedding(**{**TINY, **fields})


class Naive(BaseEmbedding):
    """What the base class does by itself: one text at a time, on the loop, one cache for everything."""

    def _get_text_embedding(self, text):
        sum(range(10_000))
        return [float(len(text)), 1.0]

    def _get_query_embedding(self, query):
        return [0.0, 1.0]

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)


def test_the_suite_runs_on_other_classes_and_catches_their_faults():
    class Suite(EmbeddingConformance):
        def make(self, **fields):
            return Naive(**fields)

    suite = Suite()
    suite.test_a_batch_is_the_same_as_one_by_one_in_order(Naive())
    suite.test_async_gives_what_sync_gives(Naive())
    for caught in (
        suite.test_a_cache_never_answers_a_query_with_a_documents_vector,
        suite.test_the_loop_is_never_blocked_while_1000_texts_are_embedded,
    ):
        with pytest.raises(AssertionError):
            caught(Naive())


@pytest.fixture(scope="module")
def embedder():
    return C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def embedding():
    return C2LLMEmbedding(**TINY)


# ---- the embedding


def test_vectors_and_prompts_are_the_embedders_own(embedding, embedder):
    text = "def f(x):\n    return x\n"
    assert embedding.get_text_embedding(text) == embedder.encode_documents([text])[0].tolist()
    assert embedding.get_query_embedding(text) == embedder.encode_queries([text])[0].tolist()
    asked = C2LLMEmbedding(**TINY, query_task="CosQA").get_query_embedding(text)
    assert asked == embedder.encode_queries([text], "CosQA")[0].tolist()


def test_nothing_loads_before_it_is_needed_and_unknown_fields_are_refused():
    lazy = C2LLMEmbedding(model_name="/nowhere/at all")
    with pytest.raises(InputError, match="no model folder"):
        lazy.get_text_embedding("x")
    with pytest.raises(ValidationError, match="batch_sise"):
        C2LLMEmbedding(batch_sise=3)


def test_langchain_and_llama_index_share_one_model(embedding):
    from c2llm_integrations.langchain import C2LLMEmbeddings

    assert C2LLMEmbeddings(model=str(TIED), dtype="float32", device="cpu").shared is embedding.shared


async def test_concurrent_queries_are_answered_together(embedding, monkeypatch):
    sizes = []
    queries = embedding.shared.queries

    def counted(texts, task=None):
        sizes.append(len(texts))
        return queries(texts, task)

    monkeypatch.setattr(embedding.shared, "queries", counted)
    got = await asyncio.gather(*(embedding.aget_query_embedding(f"question {n}") for n in range(64)))
    assert len(got) == sum(sizes) == 64
    assert len(sizes) <= 16


# ---- the node parser


def test_nodes_are_our_chunks_with_their_place():
    document = Document(text=SOURCE, id_="doc", metadata={"path": "src/many.py", "author": "me"})
    nodes = C2LLMNodeParser(repository="here").get_nodes_from_documents([document])
    chunks = chunk_source("here", "src/many.py", SOURCE)
    assert [node.text for node in nodes] == [chunk.text for chunk in chunks]
    assert "".join(node.text for node in nodes) == SOURCE
    for node, chunk in zip(nodes, chunks, strict=True):
        assert (node.metadata["start_line"], node.metadata["end_line"]) == (chunk.start_line, chunk.end_line)
        assert node.metadata["symbol"] == chunk.symbol
        assert node.metadata["author"] == "me"
        assert node.ref_doc_id == "doc"
        assert SOURCE[node.start_char_idx : node.end_char_idx] == node.text
        assert node.get_content(MetadataMode.EMBED).strip() == chunk.text.strip()
        assert "src/many.py" in node.get_content(MetadataMode.LLM)
    assert nodes[0].next_node.node_id == nodes[1].id_


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"id_": "a"}, {"id_": "b"}),
        ({"id_": "a", "metadata": {"tenant": 1}}, {"id_": "a", "metadata": {"tenant": 2}}),
        ({"id_": "a", "metadata": {"path": "x.py"}}, {"id_": "b", "metadata": {"path": "x.py"}}),
        ({"id_": "a", "metadata": {"repository": "r"}}, {"id_": "a", "metadata": {"repository": "s"}}),
    ],
)
def test_equal_texts_of_two_documents_are_two_nodes(one, other):
    first, second = (C2LLMNodeParser()([Document(text=SOURCE, **fields)]) for fields in (one, other))
    assert not {node.id_ for node in first} & {node.id_ for node in second}
    again = C2LLMNodeParser()([Document(text=SOURCE, **one)])
    assert [node.id_ for node in again] == [node.id_ for node in first]


def test_the_metadata_of_a_document_are_never_overwritten():
    own = {"path": "a.py", "language": "Python 3.12", "kind": "tutorial", "start_line": 1000, "symbol": None}
    for node in C2LLMNodeParser()([Document(text=SOURCE, metadata=own)]):
        assert {name: node.metadata[name] for name in own} == own
        assert node.metadata["chunk_language"] == "python"
        assert node.metadata["chunk_start_line"] <= node.metadata["end_line"]
        assert node.get_content(MetadataMode.EMBED).strip() == node.text.strip()


def test_a_node_parser_is_made_as_llama_index_makes_its_own():
    document = Document(text=SOURCE, metadata={"file_path": "many.py"})
    made, plain = C2LLMNodeParser.from_defaults(max_chars=300), C2LLMNodeParser(max_chars=300)
    assert [node.id_ for node in made([document])] == [node.id_ for node in plain([document])]
    named = C2LLMNodeParser.from_defaults(include_prev_next_rel=False, id_func=lambda number, node: f"{number}")
    nodes = named([document])
    assert [node.id_ for node in nodes] == [str(number) for number in range(len(nodes))]
    assert all(node.next_node is None for node in nodes)
    with pytest.raises(TypeError):
        C2LLMNodeParser.from_defaults(chunk_size=300)


def test_a_node_parser_round_trips_and_takes_other_ids():
    parser = C2LLMNodeParser(max_chars=300, repository="here")
    again = C2LLMNodeParser.from_dict({k: v for k, v in parser.to_dict().items() if k != "id_func"})
    document = Document(text=SOURCE, metadata={"file_path": "many.py"})
    assert [n.id_ for n in parser([document])] == [n.id_ for n in again([document])]
    named = C2LLMNodeParser(id_func=lambda number, node: f"{number}")([document])
    assert [node.id_ for node in named] == [str(number) for number in range(len(named))]


def test_a_pipeline_of_parser_and_embedding_over_several_processes(embedding):
    documents = [Document(text=SOURCE, id_=name, metadata={"path": f"{name}.py"}) for name in ("a", "b")]
    steps = [C2LLMNodeParser(max_chars=800), embedding]
    alone = IngestionPipeline(transformations=steps, disable_cache=True).run(documents=documents)
    shared = IngestionPipeline(transformations=steps, disable_cache=True).run(documents=documents, num_workers=2)
    assert {node.id_ for node in shared} == {node.id_ for node in alone}
    vectors = {node.id_: node.embedding for node in shared}
    np.testing.assert_allclose([node.embedding for node in alone], [vectors[n.id_] for n in alone], atol=1e-5)


# ---- the retriever and LlamaIndex's own Qdrant store


@pytest.fixture
def client(project, embedder):
    """An in-memory Qdrant that our ingest has filled."""
    with filled_qdrant(project, embedder) as client:
        yield client


def test_the_retriever_gives_what_search_gives(client, embedding, embedder):
    store = QdrantStore.from_client(client)
    hits = search("sum up", embedder, store, limit=3)
    retriever = C2LLMRetriever(store, embed_model=embedding, similarity_top_k=3)
    found = retriever.retrieve("sum up")
    assert [node.node_id for node in found] == [hit.chunk.id for hit in hits]
    # qdrant-client in memory scores one question twice with a difference of some 5e-8.
    assert [node.score for node in found] == pytest.approx([hit.score for hit in hits], abs=1e-6)
    assert found[0].text == hits[0].chunk.text
    assert found[0].metadata["path"] == hits[0].chunk.path
    assert found[0].metadata["start_line"] == hits[0].chunk.start_line
    assert [node.node_id for node in asyncio.run(retriever.aretrieve("sum up"))] == [node.node_id for node in found]
    only = C2LLMRetriever(store, embed_model=embedding, language="javascript").retrieve("wait")
    assert {node.metadata["path"] for node in only} == {"web/retry.js"}
    assert C2LLMRetriever(store, embed_model=embedding, score_threshold=1.0).retrieve("wait") == []


def test_the_retriever_opens_a_url_with_the_collections_own_model(project, embedder, tmp_path):
    url = f"qdrant+edge://{tmp_path / 'rows'}"
    with open_store(url) as store:
        ingest(project, embedder, store, repository="shop")
    engine = RetrieverQueryEngine.from_args(C2LLMRetriever(url, similarity_top_k=2), llm=MockLLM())
    answer = engine.query("sum up prices")
    assert len(answer.source_nodes) == 2
    assert "shop/prices.py" in str(engine.retrieve("class Cart"))


def test_our_collection_answers_through_llama_indexs_own_store(client, embedding, embedder):
    store = QdrantVectorStore(collection_name="code", client=client, text_key="page_content")
    index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
    hits = QdrantStore.from_client(client).search(embedder.encode_queries(["sum up"])[0], 3)
    found = index.as_retriever(similarity_top_k=3).retrieve("sum up")
    assert [node.node_id for node in found] == [hit.chunk.id for hit in hits]
    assert found[0].text == hits[0].chunk.text
    filters = MetadataFilters(filters=[MetadataFilter(key="metadata.path", value="web/retry.js")])
    only = index.as_retriever(filters=filters).retrieve("sum up")
    assert {node.metadata["metadata"]["path"] for node in only} == {"web/retry.js"}


def test_nodes_of_others_are_found_by_our_search_and_never_deleted(client, project, embedding, embedder):
    store = QdrantVectorStore(collection_name="code", client=client, text_key="page_content")
    index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
    node = TextNode(text="def borrowed(): ...", metadata={"author": "me"})
    index.insert_nodes([node])
    ours = QdrantStore.from_client(client)
    found = {hit.chunk.id: hit.chunk for hit in search("def borrowed(): ...", embedder, ours, limit=50)}[node.node_id]
    assert (found.text, found.path, found.symbol, found.start_line) == (node.text, "", "", 0)
    retrieved = C2LLMRetriever(ours, embed_model=embedding, similarity_top_k=50).retrieve("def borrowed(): ...")
    assert node.node_id in {one.node_id for one in retrieved}
    (project / "web/retry.js").unlink()
    report = ingest(project, embedder, ours, repository="shop")
    assert (report.written, report.deleted, ours.count()) == (0, 1, report.unchanged)
    (kept,) = index.as_retriever(similarity_top_k=1).retrieve("def borrowed(): ...")
    assert (kept.node_id, kept.metadata) == (node.node_id, node.metadata)


def test_without_the_framework_the_extra_is_named():
    code = """
import sys
sys.modules["llama_index"] = None
import c2llm_integrations.llama_index
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith('run: pip install "c2llm-integrations[llama-index]"')
