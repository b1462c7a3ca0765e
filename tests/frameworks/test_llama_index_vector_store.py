"""Our stores as LlamaIndex's vector store: what its interface asks, under its indexes and pipelines."""

import asyncio
import warnings

import numpy as np
import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.schema import IndexNode, MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from llama_index.core.vector_stores.types import VectorStoreQueryMode

from c2llm_integrations import ingest, search
from c2llm_integrations.errors import InputError, RowsRefused, SpecMismatch
from c2llm_integrations.llama_index import C2LLMEmbedding, C2LLMNodeParser, C2LLMRetriever, C2LLMVectorStore
from c2llm_integrations.stores import open_store
from tests.frameworks.stores import OBJECTS, OBJECTS_AS_JSON, STORES, url_of
from tests.golden import TIED

TINY = {"model_name": str(TIED), "dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def embedding():
    return C2LLMEmbedding(**TINY)


@pytest.fixture(params=STORES)
def store(request, tmp_path, embedding):
    with open_store(url_of(request.param, tmp_path), "answers") as opened:
        yield C2LLMVectorStore(store=opened, embed_model=embedding)


def node(node_id, text, document, **metadata):
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)}
    return TextNode(
        id_=node_id, text=text, metadata=metadata, relationships=source, excluded_llm_metadata_keys=["votes"]
    )


def nodes():
    return [
        node("a", "def retry_delay(attempt): return 2 ** attempt", "one", tenant="acme", votes=12, tags=["http", "io"]),
        node("b", "class Cart: items = []", "two", tenant="globex", votes=3, tags=[], title="Shopping Cart"),
        node(
            "c", "class Cart: items = None", "two", tenant="acme", votes=3.5, title="A cart", id="own", author={"n": 1}
        ),
        node("d", "x = 1", "three", tenant="initech", ref_doc_id="mine"),
    ]


@pytest.fixture
def filled(store, embedding):
    made = embedding(nodes())
    assert store.add(made) == ["a", "b", "c", "d"]
    return store


def test_nodes_come_back_as_they_were_given(filled):
    for got, given in zip(
        filled.get_nodes(["d", "a", "nowhere", "c", "b"]), [nodes()[n] for n in (3, 0, 2, 1)], strict=True
    ):
        assert got == given
    assert {one.node_id for one in filled.get_nodes()} == {"a", "b", "c", "d"}


def test_other_kinds_of_nodes_come_back_as_their_kind(embedding):
    store = C2LLMVectorStore(embed_model=embedding)
    store.add(embedding([IndexNode(id_="i", text="see there", index_id="there")]))
    [got] = store.get_nodes(["i"])
    assert (type(got), got.index_id, got.text) == (IndexNode, "there", "see there")


def test_dates_uuids_and_numpys_numbers_become_json(embedding):
    store = C2LLMVectorStore(embed_model=embedding)
    document = Document(id_="d", text="a = 1\n", metadata={"path": "a.py", **OBJECTS})
    store.add(embedding(C2LLMNodeParser()([document])))
    [got] = store.get_nodes()
    assert got.metadata.items() >= OBJECTS_AS_JSON.items()
    assert got.source_node.metadata == {"path": "a.py", **OBJECTS_AS_JSON}


def test_a_document_is_deleted_with_all_its_nodes(filled):
    filled.delete("two")
    assert {one.node_id for one in filled.get_nodes()} == {"a", "d"}
    filled.delete("nowhere")
    filled.delete_nodes(["a", "nowhere"])
    assert {one.node_id for one in filled.get_nodes()} == {"d"}
    filled.clear()
    assert filled.get_nodes() == []


def test_filters_of_nothing_delete_nothing(filled):
    with pytest.raises(InputError, match="`clear` deletes all"):
        filled.delete_nodes(filters=MetadataFilters(filters=[]))
    assert len(filled.get_nodes()) == 4
    filled.delete_nodes(["a"], filters=MetadataFilters(filters=[]))
    assert len(filled.get_nodes()) == 3


def test_nodes_are_deleted_by_filter(filled):
    acme = MetadataFilters(filters=[MetadataFilter(key="tenant", value="acme")])
    filled.delete_nodes(["a", "b"], acme)
    assert {one.node_id for one in filled.get_nodes()} == {"b", "c", "d"}
    filled.delete_nodes(filters=acme)
    assert {one.node_id for one in filled.get_nodes()} == {"b", "d"}


OPERATORS = [
    ("tenant", FilterOperator.EQ, "acme", "ac"),
    ("tenant", FilterOperator.NE, "acme", "bd"),
    ("votes", FilterOperator.GT, 3, "ac"),
    ("votes", FilterOperator.LT, 3.5, "b"),
    ("votes", FilterOperator.GTE, 3.5, "ac"),
    ("votes", FilterOperator.LTE, 3, "b"),
    ("tenant", FilterOperator.IN, ["globex", "initech"], "bd"),
    ("tenant", FilterOperator.NIN, ["globex", "initech"], "ac"),
    ("tags", FilterOperator.ANY, ["io", "other"], "a"),
    ("tags", FilterOperator.ALL, ["io", "http"], "a"),
    ("tags", FilterOperator.ALL, ["io", "other"], ""),
    ("tags", FilterOperator.CONTAINS, "http", "a"),
    ("title", FilterOperator.TEXT_MATCH, "Cart", "b"),
    ("title", FilterOperator.TEXT_MATCH_INSENSITIVE, "CART", "bc"),
    ("tags", FilterOperator.TEXT_MATCH, "htt", "a"),
    ("title", FilterOperator.TEXT_MATCH, "nothing", ""),
    ("tags", FilterOperator.IS_EMPTY, None, "bcd"),
    ("votes", FilterOperator.EQ, None, "d"),
    ("votes", FilterOperator.NE, None, "abc"),
    ("id", FilterOperator.EQ, "own", "c"),
    ("id", FilterOperator.TEXT_MATCH, "ow", "c"),
    ("author.n", FilterOperator.EQ, 1, "c"),
    ("ref_doc_id", FilterOperator.EQ, "two", "bc"),
]


@pytest.mark.parametrize("name", STORES)
def test_every_operator_means_the_same_everywhere(name, tmp_path, embedding):
    with open_store(url_of(name, tmp_path), "answers") as opened:
        store = C2LLMVectorStore(store=opened, embed_model=embedding)
        store.add(embedding(nodes()))
        vector = embedding.get_query_embedding("cart")
        assert {operator for _, operator, _, _ in OPERATORS} == set(FilterOperator)
        for key, operator, value, wanted in OPERATORS:
            filters = MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])
            found = store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=9, filters=filters))
            assert sorted(found.ids) == sorted(wanted), (key, operator, value)
            assert sorted(one.node_id for one in store.get_nodes(filters=filters)) == sorted(wanted)


def test_filters_nest(filled):
    def of(condition, *filters):
        return MetadataFilters(filters=list(filters), condition=condition)

    acme, cheap = MetadataFilter(key="tenant", value="acme"), MetadataFilter(key="votes", value=4, operator="<")
    cases = {
        "c": of(FilterCondition.AND, acme, cheap),
        "abc": of(FilterCondition.OR, acme, cheap),
        "d": of(FilterCondition.NOT, acme, cheap),
        "bd": of(FilterCondition.NOT, of(FilterCondition.AND, acme)),
        "ad": of(
            FilterCondition.OR, of(FilterCondition.NOT, acme, cheap), of(FilterCondition.AND, acme, of("not", cheap))
        ),
        "abcd": of(FilterCondition.AND),
    }
    for wanted, filters in cases.items():
        assert sorted(one.node_id for one in filled.get_nodes(filters=filters)) == list(wanted)


def test_the_default_mode_compares_vectors_alone(filled, embedding):
    vector = embedding.get_query_embedding("retry")
    found = filled.query(VectorStoreQuery(query_embedding=vector, query_str="retry", similarity_top_k=4))
    texts = {one.node_id: one.get_content(MetadataMode.EMBED) for one in nodes()}
    wanted = {id: float(np.dot(vector, embedding.get_text_embedding(text))) for id, text in texts.items()}
    np.testing.assert_allclose(found.similarities, [wanted[id] for id in found.ids], atol=1e-4)
    assert found.similarities == sorted(found.similarities, reverse=True)
    assert [one.node_id for one in found.nodes] == found.ids
    bound = filled.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=1, node_ids=["b", "d"]))
    assert bound.ids == [next(id for id in found.ids if id in "bd")]
    by_document = VectorStoreQuery(query_embedding=vector, similarity_top_k=9, doc_ids=["two", "three"])
    assert sorted(filled.query(by_document).ids) == ["b", "c", "d"]


def test_words_vectors_and_both_are_modes(filled, embedding):
    vector = embedding.get_query_embedding("retry_delay")

    def ids(mode, **fields):
        query = VectorStoreQuery(
            query_embedding=vector,
            query_str="retry_delay",
            similarity_top_k=4,
            mode=VectorStoreQueryMode(mode),
            **fields,
        )
        return filled.query(query).ids

    assert ids("sparse") == ids("text_search") == ["a"]
    assert ids("hybrid")[0] == "a"
    assert len(ids("hybrid")) == 4
    assert ids("hybrid", hybrid_top_k=2) == ids("hybrid")[:2]
    assert ids("hybrid", alpha=1.0) == ids("default")
    assert ids("hybrid", alpha=0.0)[0] == "a"
    assert sorted(ids("mmr")) == ["a", "b", "c", "d"]
    assert ids("mmr", mmr_threshold=1.0) == ids("default")
    with pytest.raises(InputError, match="query mode 'svm' is not supported"):
        ids("svm")


@pytest.mark.parametrize("wrong", ["s", float("nan"), True, -1, 2.5])
def test_numbers_that_mean_nothing_are_refused_by_name(store, wrong):
    def query(mode, more=(), **fields):
        asked = VectorStoreQuery(query_str="x", query_embedding=[1.0], mode=VectorStoreQueryMode(mode), **fields)
        with pytest.raises(InputError, match=f"{[*fields, *more][0]} is {wrong!r}, must be a .*number"):
            store.query(asked, **dict(more))

    for mode in ("default", "mmr", "sparse", "hybrid"):
        query(mode, similarity_top_k=wrong)
    query("sparse", sparse_top_k=wrong)
    query("hybrid", hybrid_top_k=wrong)
    query("hybrid", alpha=wrong)
    query("mmr", mmr_threshold=wrong)
    query("mmr", {"mmr_threshold": wrong})
    query("mmr", {"mmr_prefetch_k": wrong})


async def test_async_gives_what_sync_gives(store, embedding):
    made = await embedding.acall(nodes())
    assert await store.async_add(made) == ["a", "b", "c", "d"]
    assert [one.node_id for one in await store.aget_nodes(["b", "a"])] == ["b", "a"]
    query = VectorStoreQuery(query_embedding=made[0].embedding, query_str="x", similarity_top_k=3)
    there = await asyncio.gather(*(store.aquery(query) for _ in range(3)))
    assert all(one.ids == store.query(query).ids for one in there)
    await store.adelete("two")
    await store.adelete_nodes(["a"])
    assert [one.node_id for one in await store.aget_nodes()] == ["d"]
    await store.aclear()
    assert (await store.aquery(query)).ids == []


def test_an_index_inserts_refreshes_and_deletes(store, embedding):
    context = StorageContext.from_defaults(vector_store=store)
    same = "def handler(request):\n    return request.get(1)\n"
    documents = [Document(id_=f"repo{n}:x.py", text=same, metadata={"file_path": "src/x.py"}) for n in (1, 2)]
    index = VectorStoreIndex.from_documents(
        documents, storage_context=context, transformations=[C2LLMNodeParser()], embed_model=embedding
    )

    def found():
        return sorted(one.node.ref_doc_id for one in index.as_retriever(similarity_top_k=9).retrieve("handler"))

    assert found() == ["repo1:x.py", "repo2:x.py"]
    index.delete_ref_doc("repo1:x.py")
    assert found() == ["repo2:x.py"]
    index.update_ref_doc(Document(id_="repo2:x.py", text="def other(): ...\n", metadata={"file_path": "src/x.py"}))
    assert found() == ["repo2:x.py"]
    [only] = index.as_retriever().retrieve("other")
    assert "def other" in only.text
    again = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
    assert [one.node_id for one in again.as_retriever().retrieve("other")] == [only.node_id]
    hybrid = again.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=2).retrieve("other")
    assert [one.node_id for one in hybrid] == [only.node_id]


def test_a_pipeline_with_a_docstore_updates_what_changed(store, embedding):
    class Counting(C2LLMEmbedding):
        def _get_text_embeddings(self, texts):
            embedded.extend(texts)
            return super()._get_text_embeddings(texts)

    embedded = []
    pipeline = IngestionPipeline(
        transformations=[C2LLMNodeParser(), Counting(**TINY)],
        docstore=SimpleDocumentStore(),
        vector_store=store,
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
        disable_cache=True,
    )

    def run(**texts):
        embedded.clear()
        pipeline.run(documents=[Document(id_=name, text=text, metadata={"path": name}) for name, text in texts.items()])
        return sorted(embedded), sorted(one.text for one in store.get_nodes())

    assert run(a="a = 1\n", b="b = 1\n") == (["a = 1\n", "b = 1\n"], ["a = 1\n", "b = 1\n"])
    assert run(a="a = 1\n", b="b = 1\n") == ([], ["a = 1\n", "b = 1\n"])
    assert run(a="a = 2\n", b="b = 1\n") == (["a = 2\n"], ["a = 2\n", "b = 1\n"])
    assert run(b="b = 1\n") == ([], ["b = 1\n"])


def test_a_persisted_storage_context_finds_the_rows_again(tmp_path, embedding):
    store = C2LLMVectorStore(store=url_of("edge", tmp_path), embed_model=embedding)
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes(), storage_context=context, embed_model=embedding)
    index.storage_context.persist(persist_dir=str(tmp_path / "kept"))
    context = StorageContext.from_defaults(persist_dir=str(tmp_path / "kept"), vector_store=store)
    again = load_index_from_storage(context, embed_model=embedding)
    assert len(again.as_retriever(similarity_top_k=9).retrieve("cart")) == 4
    twin = C2LLMVectorStore.from_dict(store.to_dict())
    assert len(twin.get_nodes()) == 4


def test_a_collection_of_ingest_opens_as_a_vector_store(project, embedding, tmp_path):
    with open_store(url_of("edge", tmp_path)) as opened:
        ingest(project, embedding.embedder, opened, repository="shop")
        store = C2LLMVectorStore(store=opened, embed_model=embedding)
        index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
        hits = search("sum up prices", embedding.embedder, opened)
        found = index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=10).retrieve("sum up prices")
        assert [(one.node_id, one.metadata) for one in found] == [
            (hit.record.id, dict(hit.record.metadata)) for hit in hits
        ]


def test_our_retriever_gives_nodes_back_whole(filled, embedding):
    retriever = C2LLMRetriever(filled.store, embed_model=embedding, where={"tenant": "acme"})
    found = {one.node_id: one.node for one in retriever.retrieve("class Cart")}
    assert found["c"] == nodes()[2]


def test_vectors_of_another_model_are_refused(tmp_path, embedding):
    url = url_of("edge", tmp_path)
    C2LLMVectorStore(store=url, embed_model=embedding).add(embedding(nodes()))
    with pytest.raises(SpecMismatch, match="max_length"):
        C2LLMVectorStore(store=url, embed_model=C2LLMEmbedding(**TINY, max_length=9)).add(embedding(nodes()))
    others = C2LLMVectorStore(store=url, embed_model=C2LLMEmbedding(**TINY, max_length=9))
    asked = {"query_str": "retry delay", "query_embedding": embedding.get_query_embedding("retry delay")}
    for mode in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.MMR):
        with pytest.raises(SpecMismatch, match="max_length"):
            others.query(VectorStoreQuery(**asked, mode=mode))
    assert others.query(VectorStoreQuery(**asked, mode=VectorStoreQueryMode.SPARSE)).ids
    plain = C2LLMVectorStore(store=url)
    plain.add([TextNode(id_="z", text="z", embedding=embedding.get_text_embedding("z"))])
    with pytest.raises(RowsRefused, match="shape"):
        plain.add([TextNode(id_="y", text="y", embedding=[1.0, 2.0])])


def test_a_collection_made_without_the_fields_asked_for_takes_no_nodes(tmp_path, embedding):
    url = url_of("edge", tmp_path)
    C2LLMVectorStore(store=url, embed_model=embedding).add(embedding(nodes()))
    tenants = C2LLMVectorStore(store=url, embed_model=embedding, fields={"tenant": "tenant"})
    with pytest.raises(SpecMismatch, match="does not index the field 'tenant'"):
        tenants.add(embedding(nodes()))


def test_vectors_whose_model_nobody_knows_are_compared_with_a_warning(tmp_path, embedding):
    query = {"query_str": "wait", "query_embedding": embedding.get_query_embedding("wait")}
    default, hybrid, sparse = (
        VectorStoreQuery(**query, mode=mode)
        for mode in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.SPARSE)
    )
    with open_store(url_of("edge", tmp_path), "answers") as opened:
        plain, own = C2LLMVectorStore(opened), C2LLMVectorStore(opened, embed_model=embedding)
        plain.add([TextNode(id_="z", text="wait", embedding=embedding.get_text_embedding("wait"))])
        retriever = C2LLMRetriever(opened, embed_model=embedding)
        for ask in (lambda: own.query(default).nodes, lambda: own.query(hybrid).nodes, lambda: retriever.retrieve("z")):
            with pytest.warns(UserWarning, match="given vectors of an unknown model"):
                assert [one.node_id for one in ask()] == ["z"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for store, asked in ((own, sparse), (plain, default), (plain, hybrid)):
                assert store.query(asked).ids == ["z"]


def test_a_store_is_named_by_position_and_wrong_arguments_are_told_in_one_line(tmp_path, embedding):
    store = C2LLMVectorStore(url_of("edge", tmp_path), "answers", embed_model=embedding, source="mine")
    assert (store.collection, store.source) == ("answers", "mine")
    again = C2LLMVectorStore.from_dict(store.to_dict())
    assert (again.store, again.collection, again.source) == (store.store, "answers", "mine")
    for call, said in (
        (lambda: C2LLMVectorStore(url="x"), "there is no argument 'url'"),
        (lambda: C2LLMVectorStore("x", colection="y"), "did you mean collection"),
        (lambda: C2LLMVectorStore("x", 5), "collection is 5: input should be a valid string"),
        (lambda: C2LLMVectorStore("x", embed_model="nano"), "embed_model is 'nano': "),
    ):
        with pytest.raises(InputError, match=said) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_relative_url_is_meant_from_the_folder_where_it_was_given(tmp_path, monkeypatch, embedding):
    stores = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        stores.append(C2LLMVectorStore("qdrant+edge://rows", embed_model=embedding))
        monkeypatch.chdir(tmp_path)
        stores[-1].add([TextNode(id_=name, text=name, embedding=embedding.get_text_embedding(name))])
    assert [[node.text for node in store.get_nodes()] for store in stores] == [["one"], ["two"]]


def test_an_id_that_cannot_be_one_is_a_refused_row(embedding):
    node = TextNode(id_="", text="a", embedding=[1.0] * embedding.embedder.output_dim)
    with pytest.raises(RowsRefused, match=r"id '' .* cannot be one"):
        C2LLMVectorStore("qdrant+memory://", embed_model=embedding).add([node])


def test_unknown_arguments_are_refused(filled):
    for call in (
        lambda: filled.add([], batch=1),
        lambda: filled.delete("a", cascade=True),
        lambda: filled.delete_nodes(),
        lambda: filled.query(VectorStoreQuery(query_embedding=[1.0]), top=3),
        lambda: filled.query(VectorStoreQuery(query_str="x", mode=VectorStoreQueryMode.HYBRID)),
        lambda: filled.query(VectorStoreQuery(query_str="x")),
    ):
        with pytest.raises(InputError):
            call()


@pytest.mark.parametrize("mode", ["default", "sparse", "hybrid", "mmr"])
def test_of_chosen_nodes_no_others_are_read(filled, mode, monkeypatch):
    """All rows are more than a database gives at once."""
    other = MetadataFilter(key="tenant", value="acme", operator=FilterOperator.NE)
    with filled._shared().opened() as opened:
        monkeypatch.setattr(opened, "candidates", None)
        [vector] = opened.vectors(["b"], source=filled.source).values()
    query = VectorStoreQuery(
        query_embedding=vector.tolist(),
        query_str="class Cart items",
        similarity_top_k=2,
        node_ids=["b", "c", "d", "missing"],
        filters=MetadataFilters(filters=[other]),
        mode=VectorStoreQueryMode(mode),
    )
    found = filled.query(query)
    assert found.ids[0] == "b"
    assert set(found.ids) <= {"b", "d"}
    assert found.similarities[0] > 0
