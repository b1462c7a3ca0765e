"""Answer questions in an async web handler: the event loop is never blocked, and waiting questions share a batch.

    python examples/async_handler.py PATH "how long to wait?" "sum up the cart" [--url qdrant+http://localhost:6333]
        [--model codefuse-ai/C2LLM-0.5B]

`handler` returns a function as FastAPI takes it: `app.get("/search")(handler(retriever))`. Here three clients ask each
question at the same time. The URL is that of any store.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from c2llm_integrations import ingest, open_store
from c2llm_integrations.langchain import C2LLMEmbeddings, C2LLMRetriever

CLIENTS = 3
Answer = list[dict[str, Any]]


def handler(retriever: C2LLMRetriever) -> Callable[[str], Awaitable[Answer]]:
    """Return a function that answers a question with places and scores."""

    async def search(question: str) -> Answer:
        found = await retriever.ainvoke(question)
        fields = ("path", "start_line", "end_line", "score")
        return [{name: document.metadata[name] for name in fields} for document in found]

    return search


async def ask(retriever: C2LLMRetriever, questions: list[str]) -> None:
    """Print the best answer to each question, asked by all clients at once."""
    search = handler(retriever)
    answers = await asyncio.gather(*(search(question) for question in questions for _ in range(CLIENTS)))
    for question, (best, *_) in zip(questions, answers[::CLIENTS], strict=True):
        print("{}: {path}:{start_line}-{end_line}  {score:.3f}".format(question, **best))


def main(folder: str, questions: list[str], url: str, model: str) -> None:
    """Index `folder` and answer the questions."""
    embeddings = C2LLMEmbeddings(model=model)
    with open_store(url) as store:
        ingest(folder, embeddings.embedder, store)
        asyncio.run(ask(C2LLMRetriever(store=store, embeddings=embeddings, k=3), questions))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("questions", nargs="+")
    parser.add_argument("--url", default="qdrant+memory://")
    parser.add_argument("--model", default="nano")
    main(**vars(parser.parse_args()))
