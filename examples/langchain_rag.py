"""Answer a question about a repository with LangChain: our search finds the code, a chat model reads it.

    python examples/langchain_rag.py PATH "where is the retry delay computed?" [--model codefuse-ai/C2LLM-0.5B]

The chat model is a stand-in that names the places it was shown, so this runs offline. Put yours in its place, such as
`ChatOpenAI() | StrOutputParser()`.
"""

import argparse
import re
from tempfile import TemporaryDirectory

from langchain_core.documents import Document
from langchain_core.prompt_values import PromptValue
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from c2llm_integrations import ingest, open_store
from c2llm_integrations.langchain import C2LLMEmbeddings, C2LLMRetriever

PROMPT = ChatPromptTemplate.from_template("Answer from this code alone:\n\n{context}\n\nQuestion: {question}")


def stand_in(prompt: PromptValue) -> str:
    """Answer with the places in the prompt."""
    return "Read " + ", ".join(re.findall(r"^# (\S+:\d+-\d+)", prompt.to_string(), re.MULTILINE))


def cited(documents: list[Document]) -> str:
    """Join the chunks, each under its place."""
    place = "# {path}:{start_line}-{end_line}\n"
    return "\n\n".join(place.format(**document.metadata) + document.page_content for document in documents)


def main(folder: str, question: str, model: str) -> None:
    """Index `folder` into a temporary place and print the chain's answer."""
    embeddings = C2LLMEmbeddings(model=model)
    with TemporaryDirectory() as rows, open_store(f"qdrant+edge://{rows}") as store:
        ingest(folder, embeddings.embedder, store)
        retriever = C2LLMRetriever(store=store, embeddings=embeddings, k=3)
        inputs = {"context": retriever | cited, "question": RunnablePassthrough()}
        print((inputs | PROMPT | stand_in).invoke(question))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("question")
    parser.add_argument("--model", default="nano")
    main(**vars(parser.parse_args()))
