"""Answer a question about a repository with LangChain: our search finds the code, a chat model reads it.

    python examples/langchain_rag.py PATH "where is the retry delay computed?" [--model codefuse-ai/C2LLM-0.5B]

The chat model is a stand-in that names what it was shown, so this runs offline; put any LangChain chat model there.
"""

import argparse
import re
from tempfile import TemporaryDirectory
from typing import Any

from langchain_core.documents import Document
from langchain_core.language_models import SimpleChatModel
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from c2llm_integrations import ingest, open_store
from c2llm_integrations.langchain import C2LLMEmbeddings, C2LLMRetriever

PROMPT = ChatPromptTemplate.from_template("Answer from this code alone:\n\n{context}\n\nQuestion: {question}")


class StandIn(SimpleChatModel):
    """Answers every question with the places it was shown."""

    @property
    def _llm_type(self) -> str:
        return "stand-in"

    def _call(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> str:
        return "Read " + ", ".join(re.findall(r"^# (\S+:\d+-\d+)", str(messages[-1].content), re.MULTILINE))


def cited(documents: list[Document]) -> str:
    """Join the chunks, each under its place."""
    places = ["# {path}:{start_line}-{end_line}".format(**document.metadata) for document in documents]
    return "\n\n".join(f"{place}\n{document.page_content}" for place, document in zip(places, documents, strict=True))


def main(folder: str, question: str, model: str) -> None:
    """Index `folder` into a temporary place and print the chain's answer."""
    embeddings = C2LLMEmbeddings(model=model)
    with TemporaryDirectory() as rows, open_store(f"qdrant+edge://{rows}") as store:
        ingest(folder, embeddings.embedder, store)
        retriever = C2LLMRetriever(store=store, embeddings=embeddings, k=3)
        inputs = {"context": retriever | cited, "question": RunnablePassthrough()}
        print((inputs | PROMPT | StandIn() | StrOutputParser()).invoke(question))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("question")
    parser.add_argument("--model", default="nano")
    main(**vars(parser.parse_args()))
