"""Our parts inside LlamaIndex's own: readers, parsers, postprocessors, pipelines, filters."""

import asyncio

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from c2llm_integrations.errors import InputError
from c2llm_integrations.llama_index import (
    C2LLMCodeReader,
    C2LLMEmbedding,
    C2LLMNodeParser,
    C2LLMRerank,
    C2LLMRetriever,
    C2LLMVectorStore,
    sparse_doc_fn,
    sparse_query_fn,
)
from c2llm_integrations.stores import open_store
from tests.golden import TIED

UNREADABLE = ["计算订单的运费", "カートの合計を計算", "คำนวณราคารวม", "장바구니의 합계"]


@pytest.fixture(scope="module")
def embedding():
    return C2LLMEmbedding(model_name=str(TIED), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def nano():
    return C2LLMEmbedding(dtype="float32", device="cpu")


def scored(texts):
    return [NodeWithScore(node=TextNode(id_=text, text=f"# {text}\ndef f(): ..."), score=0.5) for text in texts]


def test_one_string_is_not_a_list_of_its_characters(embedding):
    calls = [
        lambda: embedding.get_text_embedding_batch("abc"),
        lambda: asyncio.run(embedding.aget_text_embedding_batch(texts="abc")),
        lambda: sparse_doc_fn("abc"),
        lambda: sparse_query_fn("abc"),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"^expected a list of texts, got 'abc' \(str\)$"):
            call()
    for call in (
        lambda: embedding.get_agg_embedding_from_queries(queries="abc"),
        lambda: asyncio.run(embedding.aget_agg_embedding_from_queries("abc")),
    ):
        with pytest.raises(InputError, match=r"^expected a list of queries, got 'abc' \(str\)$"):
            call()
    with pytest.raises(InputError, match=r"^expected a list of nodes, got 'abc'"):
        C2LLMVectorStore(embed_model=embedding).add("abc")
    with pytest.raises(InputError, match=r"^expected a list of nodes, got "):
        C2LLMVectorStore(embed_model=embedding).add(TextNode(text="abc"))
    assert embedding.get_text_embedding_batch(["abc"]) == [embedding.get_text_embedding("abc")]


# ---- reader, parser and pipeline


def test_the_reader_gives_files_that_the_parser_cuts_into_their_chunks(project):
    documents = C2LLMCodeReader(project, repository="shop").load_data()
    assert {"shop:README.md", "shop:shop/prices.py", "shop:web/retry.js"} <= {one.id_ for one in documents}
    nodes = C2LLMNodeParser().get_nodes_from_documents(documents)
    for document in documents:
        own = [node for node in nodes if node.ref_doc_id == document.id_]
        assert "".join(node.text for node in own) == document.text
        assert all(node.metadata["repository"] == "shop" for node in own)
    assert "hunter2" not in str(documents)


def test_a_pipeline_embeds_and_replaces_only_what_changed(project, embedding):
    with open_store("qdrant+memory://", "code") as rows:
        pipeline = IngestionPipeline(
            transformations=[C2LLMNodeParser(), embedding],
            docstore=SimpleDocumentStore(),
            docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
            vector_store=C2LLMVectorStore(store=rows, embed_model=embedding),
            disable_cache=True,
        )

        def run():
            return {node.ref_doc_id for node in pipeline.run(documents=C2LLMCodeReader(project, "shop").load_data())}

        def paths():
            return sorted({record.metadata["path"] for record in rows.scroll()})

        every = run()
        assert "shop:web/retry.js" in every
        before = paths()
        assert run() == set()
        (project / "shop/prices.py").write_text("def with_tax(cents):\n    return cents + 1\n")
        (project / "web/retry.js").unlink()
        assert run() == {"shop:shop/prices.py"}
        assert paths() == [path for path in before if path != "web/retry.js"]
        prices = [record.text for record in rows.scroll({"path": "shop/prices.py"})]
        assert prices == ["def with_tax(cents):\n    return cents + 1\n"]


# ---- the postprocessor


def test_rerank_orders_nodes_in_a_query_engine(embedding):
    texts = {"retry": "def retry_delay(n): return 2 ** n", "cart": "class Cart: pass", "check": "assert retry_delay(1)"}
    nodes = [TextNode(id_=name, text=text) for name, text in texts.items()]
    index = VectorStoreIndex(nodes, embed_model=embedding)
    rerank = C2LLMRerank(embed_model=embedding, top_n=2)
    engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=3, node_postprocessors=[rerank])
    found = engine.query("retry_delay").source_nodes
    assert [one.node_id for one in found] == ["retry", "check"]
    assert 1 >= found[0].score > found[1].score >= 0


def test_rerank_takes_any_embedding_and_needs_the_question():
    handler = LlamaDebugHandler(print_trace_on_end=False)
    rerank = C2LLMRerank(embed_model=MockEmbedding(embed_dim=4), callback_manager=CallbackManager([handler]))
    given = scored(["sum of items", "delay of a retry"])
    assert rerank.postprocess_nodes(given, query_str="retry delay")[0].node_id == "delay of a retry"
    assert [one.score for one in given] == [0.5, 0.5]
    ((_, end),) = handler.get_event_pairs(CBEventType.RERANKING)
    assert [one.node_id for one in end.payload[EventPayload.NODES]] == ["delay of a retry", "sum of items"]
    with pytest.raises(InputError, match="needs the query"):
        rerank.postprocess_nodes(given)


# ---- questions that the model cannot read


@pytest.mark.parametrize("question", UNREADABLE)
def test_words_alone_are_compared_where_the_model_cannot_read(nano, question):
    with open_store("qdrant+memory://", "answers") as rows:
        store = C2LLMVectorStore(store=rows, embed_model=nano)
        index = VectorStoreIndex.from_vector_store(store, embed_model=nano)
        index.insert_nodes([one.node for one in scored(UNREADABLE)])
        hybrid = index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=4)
        for ask in (hybrid, C2LLMRetriever(rows, embed_model=nano)):
            with pytest.warns(UserWarning, match="does not know the script"):
                assert [one.node_id for one in ask.retrieve(question)] == [question]
        with pytest.warns(UserWarning, match="vectors of such questions are alike"):
            assert len(index.as_retriever(similarity_top_k=4).retrieve(question)) == 4
    with pytest.warns(UserWarning, match="does not know the script"):
        first, *others = C2LLMRerank(embed_model=nano).postprocess_nodes(scored(UNREADABLE), query_str=question)
    assert first.node_id == question
    assert [one.score for one in others] == [0.0] * 3


# ---- filters


@pytest.mark.parametrize("operator", [FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE])
def test_a_text_filter_sees_what_a_query_sees_of_every_source(operator, embedding):
    with open_store("qdrant+memory://", "answers") as rows:
        for source in ("one", "other"):
            store = C2LLMVectorStore(store=rows, embed_model=embedding, source=source)
            for title in (f"title of {source}", "elsewhere"):
                node = TextNode(id_=f"{source} {title}", text="x", metadata={"title": title})
                node.embedding = embedding.get_text_embedding("x")
                store.add([node])
        filters = MetadataFilters(filters=[MetadataFilter(key="title", value="title of", operator=operator)])
        for mode in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.SPARSE):
            asked = VectorStoreQuery(
                query_embedding=embedding.get_query_embedding("x"),
                query_str="x",
                mode=mode,
                similarity_top_k=9,
                filters=filters,
            )
            assert sorted(store.query(asked).ids) == ["one title of one", "other title of other"]
        store.delete_nodes(filters=filters)  # of its own source alone
        assert sorted(record.id for record in rows.scroll()) == ["one elsewhere", "one title of one", "other elsewhere"]


def test_the_retriever_gives_and_filters_fields_named_like_ours(embedding):
    with open_store("qdrant+memory://", "answers") as rows:
        store = C2LLMVectorStore(store=rows, embed_model=embedding)
        index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
        index.insert_nodes([TextNode(text="x", metadata={"id": n, "vector": "y"}) for n in (5, 6)])
        [found] = C2LLMRetriever(rows, embed_model=embedding, where={"id": 5}).retrieve("x")
        assert found.metadata == {"id": 5, "vector": "y"}


def test_documents_of_equal_text_are_nodes_of_their_own_in_our_store(embedding):
    documents = [Document(text="def f(x):\n    return x\n", id_=name, metadata={"tenant": name}) for name in "ab"]
    with open_store("qdrant+memory://", "answers") as rows:
        store = C2LLMVectorStore(store=rows, embed_model=embedding)
        index = VectorStoreIndex.from_vector_store(store, embed_model=embedding, transformations=[C2LLMNodeParser()])
        for document in documents:
            index.insert(document)
        index.delete_ref_doc("a")
        assert [record.metadata["tenant"] for record in rows.scroll()] == ["b"]
