"""LangChain's own standard tests over our stores."""

import pytest
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from c2llm_integrations.langchain import C2LLMVectorStore
from c2llm_integrations.stores import open_store
from tests.frameworks.stores import url_of


class Standard(VectorStoreIntegrationTests):
    search_type = "hybrid"
    store = ""

    @pytest.fixture
    def vectorstore(self, tmp_path):
        with open_store(url_of(self.store, tmp_path), "standard") as store:
            yield C2LLMVectorStore(store, embedding=self.get_embeddings(), search_type=self.search_type)


class TestStandardOnEdge(Standard):
    store = "edge"


class TestStandardInMemory(Standard):
    store = "memory"


class TestStandardOnMilvusLite(Standard):
    store = "lite"


class TestStandardDense(Standard):
    store = "memory"
    search_type = "dense"
