"""Cut, embed and query a repository with LlamaIndex's own pipeline, index and query engine.

    python examples/llama_index_pipeline.py PATH "where is the retry delay computed?" [--model codefuse-ai/C2LLM-0.5B]

The language model here is LlamaIndex's mock, which repeats its prompt, so that the example runs offline; put any
LlamaIndex LLM in its place.
"""

import argparse

from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM

from c2llm_integrations.llama_index import C2LLMCodeReader, C2LLMEmbedding, C2LLMNodeParser, C2LLMVectorStore


def main(folder: str, question: str, model: str, store: str) -> None:
    """Index `folder`, print the three places that fit `question` best, and what the model made of them."""
    documents = C2LLMCodeReader(folder).load_data()
    embedding = C2LLMEmbedding(model_name=model)
    vector_store = C2LLMVectorStore(store=store, embed_model=embedding)
    pipeline = IngestionPipeline(transformations=[C2LLMNodeParser(), embedding], vector_store=vector_store)
    nodes = pipeline.run(documents=documents)
    print(f"{len(documents)} files, {len(nodes)} nodes")
    index = VectorStoreIndex.from_vector_store(vector_store, embed_model=embedding)
    answer = index.as_query_engine(llm=MockLLM(), similarity_top_k=3).query(question)
    for found in answer.source_nodes:
        place = found.metadata
        print(f"{found.score:.3f}  {place['path']}:{place['start_line']}-{place['end_line']}  {place['symbol']}")
    print(f"the language model was given {len(str(answer))} characters")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("question")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--store", default="qdrant+memory://", help="a store URL; the default keeps nothing")
    main(**vars(parser.parse_args()))
