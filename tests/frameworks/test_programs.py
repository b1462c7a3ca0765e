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
    with pytest.raises(RowsRefused, match="name the tenant"):
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
