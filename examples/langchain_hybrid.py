"""Hybrid search with LangChain: in this package's vector store, and in LangChain's own for the same database.

    python examples/langchain_hybrid.py PATH "where is the retry delay computed?" [--url milvus+lite://rows.db]
        [--model codefuse-ai/C2LLM-0.5B]

URLs are qdrant+memory://, qdrant+http://HOST:PORT, milvus+lite://FILE.db and milvus+http://HOST:PORT. Both stores read
the same rows. Ours also ranks by rules for code; LangChain's only fuse the two lists.
"""

import argparse

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from c2llm_integrations import open_store
from c2llm_integrations.langchain import (
    C2LLMCodeLoader,
    C2LLMEmbeddings,
    C2LLMVectorStore,
    langchain_milvus_arguments,
    langchain_qdrant_arguments,
)


def show(name: str, found: list[Document]) -> None:
    """Print the places of documents."""
    for document in found:
        print(f"{name}  " + "{path}:{start_line}-{end_line}  {symbol}".format(**document.metadata))


def main(folder: str, question: str, url: str, model: str) -> None:
    """Write the chunks of `folder`, and print the three that each store finds best."""
    embeddings = C2LLMEmbeddings(model=model)
    theirs: VectorStore
    with open_store(url, "hybrid") as rows:
        ours = C2LLMVectorStore(rows, embedding=embeddings)
        ours.add_documents(C2LLMCodeLoader(folder).load())
        show("ours  ", ours.similarity_search(question, k=3))
        if url.startswith("qdrant"):
            from langchain_qdrant import QdrantVectorStore

            theirs = QdrantVectorStore(embedding=embeddings, **langchain_qdrant_arguments(rows))
            return show("theirs", theirs.similarity_search(question, k=3))
        arguments = langchain_milvus_arguments(rows)
    from langchain_milvus import Milvus  # after the store is closed: one process opens Milvus Lite's file once

    theirs = Milvus(embeddings, **arguments)
    return show("theirs", theirs.similarity_search(question, k=3))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("question")
    parser.add_argument("--url", default="qdrant+memory://")
    parser.add_argument("--model", default="nano")
    main(**vars(parser.parse_args()))
