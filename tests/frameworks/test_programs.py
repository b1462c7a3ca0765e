"""Programs as users of the frameworks write them from the README and docs: a service with tenants, a pipeline."""

import asyncio

import pytest
from langchain_core.documents import Document
from llama_index.core import Document as LlamaDocument
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.storage.docstore import SimpleDocumentStore

from c2llm_integrations import RowsRefused, open_store
from c2llm_integrations.langchain import C2LLMEmbeddings, C2LLMVectorStore
from c2llm_integrations.llama_index import C2LLMEmbedding, C2LLMNodeParser
from c2llm_integrations.llama_index import C2LLMVectorStore as LlamaVectorStore

pytestmark = pytest.mark.slow

WAIT = "def wait(attempt):\n    return 2**attempt\n"
TOTAL = "def total(items):\n    return sum(items)\n"


@pytest.fixture(params=["qdrant+edge", "qdrant+memory", "milvus+lite"])
def store(request, tmp_path):
    """An open store of each kind; what is in memory is one object for as long as it lives."""
    with open_store(f"{request.param}://{'' if 'memory' in request.param else tmp_path / 'rows.db'}", "answers") as one:
        yield one


class Service:
    """Answers questions of customers, each from its own documents."""

    def __init__(self, store, model):
        fields = {"tenant": "tenant"}
        self.rows = C2LLMVectorStore(store, embedding=C2LLMEmbeddings(model=str(model)), fields=fields)

    def learn(self, tenant, texts):
        documents = [
            Document(page_content=text, metadata={"tenant": tenant, "name": name}) for name, text in texts.items()
        ]
        return self.rows.add_documents(documents)

    async def ask(self, tenant, question):
        retriever = self.rows.as_retriever(search_kwargs={"k": 5, "filter": {"tenant": tenant}})
        return [(one.metadata["tenant"], one.metadata["name"]) for one in await retriever.ainvoke(question)]


def test_a_service_keeps_its_tenants_apart(store, tiny_model):
    service = Service(store, tiny_model)
    acme = service.learn("acme", {"wait.py": WAIT, "total.py": TOTAL})
    service.learn("umbrella", {"wait.py": WAIT})

    async def questions():
        return await asyncio.gather(*(service.ask(tenant, "how long to wait?") for tenant in ("acme", "umbrella", "x")))

    assert list(map(sorted, asyncio.run(questions()))) == [
        [("acme", "total.py"), ("acme", "wait.py")],
        [("umbrella", "wait.py")],
        [],
    ]
    service.rows.delete(acme)
    assert asyncio.run(service.ask("acme", "how long to wait?")) == []
    assert asyncio.run(service.ask("umbrella", "how long to wait?")) == [("umbrella", "wait.py")]
    with pytest.raises(RowsRefused, match="tenant is '', but it is the tenant"):
        service.learn("", {"wait.py": WAIT})
    assert store.spec.tenant == "tenant"


def test_a_pipeline_follows_its_documents(store, tiny_model):
    embedding = C2LLMEmbedding(model_name=str(tiny_model))
    rows = LlamaVectorStore(store=store, embed_model=embedding)
    pipeline = IngestionPipeline(
        transformations=[C2LLMNodeParser(), embedding],
        vector_store=rows,
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
    )

    def documents(**texts):
        return [LlamaDocument(text=text, id_=name, metadata={"path": f"{name}.py"}) for name, text in texts.items()]

    def held():
        found = VectorStoreIndex.from_vector_store(rows, embed_model=embedding).as_retriever(similarity_top_k=9)
        return sorted((one.metadata["path"], one.metadata["symbol"]) for one in found.retrieve("how long to wait?"))

    pipeline.run(documents=documents(wait=WAIT, total=TOTAL))
    assert held() == [("total.py", "total"), ("wait.py", "wait")]
    assert store.spec.fields == {"ref_doc_id": "keyword"}
    assert pipeline.run(documents=documents(wait=WAIT, total=TOTAL)) == []
    pipeline.run(documents=documents(wait=WAIT.replace("wait", "pause"), total=TOTAL))
    assert held() == [("total.py", "total"), ("wait.py", "pause")]
    pipeline.run(documents=documents(total=TOTAL))
    assert held() == [("total.py", "total")]


def test_sources_never_take_or_delete_each_others_rows(store, tiny_model):
    one, other = (
        C2LLMVectorStore(store, embedding=C2LLMEmbeddings(model=str(tiny_model)), source=name) for name in ("a", "b")
    )
    [mine], [theirs] = one.add_texts([WAIT]), other.add_texts([WAIT])
    assert mine != theirs
    assert one.add_texts([WAIT]) == [mine]
    assert store.count() == 2
    with pytest.raises(RowsRefused, match=r"row of source 'a'; UUIDs .* use others") as caught:
        other.add_texts([TOTAL, "x = 1", TOTAL], ids=["total", mine.upper(), "last"])
    assert list(caught.value.places) == [1]
    other.delete([mine, "never"])
    assert [document.page_content for document in one.get_by_ids([mine])] == [WAIT]
    other.delete([theirs])
    assert [record.source for record in store.scroll()] == ["a"]


def test_pipelines_of_two_sources_never_take_each_others_nodes(store, tiny_model):
    model = C2LLMEmbedding(model_name=str(tiny_model))
    stores = [LlamaVectorStore(store, embed_model=model, source=name) for name in ("a", "b")]
    nodes = model(C2LLMNodeParser()([LlamaDocument(text=WAIT, id_="readme")]))
    [mine] = stores[0].add(nodes)
    with pytest.raises(RowsRefused, match="row of source 'a'"):
        stores[1].add(nodes)
    stores[1].delete_nodes([mine])
    stores[1].delete("readme")
    assert [node.text for node in stores[0].get_nodes()] == [WAIT]
