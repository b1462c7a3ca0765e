"""Cut, embed and query a repository with LlamaIndex's own pipeline, index and query engine.

    python examples/llama_index_pipeline.py PATH "where is the retry delay computed?" [--model codefuse-ai/C2LLM-0.5B]

The language model here is LlamaIndex's mock, which repeats its prompt, so that the example runs offline; put any
LlamaIndex LLM in its place.
"""

import argparse

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM

from c2llm_integrations.code.repository import iter_sources, open_tree
from c2llm_integrations.llama_index import C2LLMEmbedding, C2LLMNodeParser


def main(folder: str, question: str, model: str) -> None:
    """Index `folder` in memory, print the three places that fit `question` best, and what the model made of them."""
    tree = open_tree(folder)
    documents = [
        Document(text=source.text, id_=source.path, metadata={"path": source.path}) for source in iter_sources(tree)
    ]
    embedding = C2LLMEmbedding(model_name=model)
    pipeline = IngestionPipeline(transformations=[C2LLMNodeParser(repository=tree.name), embedding])
    nodes = pipeline.run(documents=documents)
    print(f"{len(documents)} files, {len(nodes)} nodes")
    index = VectorStoreIndex(nodes, embed_model=embedding)
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
    main(**vars(parser.parse_args()))
