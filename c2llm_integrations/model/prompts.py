"""Prompts in front of texts, as in the published evaluation (codefuse-ai/C2LLM, MTEB-Code results)."""

from __future__ import annotations

from collections.abc import Mapping

from c2llm_integrations.errors import InputError

DOCUMENT = "Retrieved Answer:"

_TRANSLATION = "Given a Python code snippet, retrieve its semantically equivalent version written in C++.\n"

QUERIES: Mapping[str, str] = {
    "CodeSearchNetRetrieval": "Retrieve the code that solves the following query:\n",
    "CosQA": "Given a query from a web search, retrieve code that is helpful in addressing the query.\n",
    "AppsRetrieval": (
        "Given a problem description from a programming contest, "
        "retrieve code examples that can assist in solving it.\n"
    ),
    "CodeFeedbackST": (
        "Given a single-turn question composed of text and code, "
        "retrieve suitable answers that also mix text and code to provide helpful feedback.\n"
    ),
    "CodeFeedbackMT": (
        "Given a multi-turn conversation history that includes both text and code, retrieve relevant "
        "multi-modal answers composed of text and code that address the ongoing discussion.\n"
    ),
    "CodeSearchNetCCRetrieval": (
        "Given an initial code segment, retrieve the subsequent segment that continues the code.\n"
    ),
    "CodeTransOceanContest": _TRANSLATION,
    "CodeTransOceanDL": _TRANSLATION,
    "COIRCodeSearchNetRetrieval": (
        "Given a code snippet, retrieve its corresponding document string that summarizes its functionality.\n"
    ),
    "StackOverflowQA": (
        "Given a question combining text and code, retrieve relevant answers that also contain "
        "both text and code snippets and can address the question.\n"
    ),
    "SyntheticText2SQL": (
        "Given a natural language question, retrieve SQL queries that serve as appropriate responses.\n"
    ),
    # The published wording, slip included: another one would give other vectors.
    "CodeEditSearchRetrieval": "Retrieve the diff code that relevant the following query:\n",
}

DEFAULT_TASK = "CodeSearchNetRetrieval"


def document_prompt(own: Mapping[str, str]) -> str:
    """Return the checkpoint's own document prompt (`own["document"]`) where it has one, else the published one."""
    return own.get("document", DOCUMENT)


def query_prompt(own: Mapping[str, str], task: str | None = None) -> str:
    """Return the prompt of a task, from the checkpoint's own prompts first, then the published ones.

    Args:
        own: The checkpoint's prompts by name. A "query" prompt there is used for every published task.
        task: None for the checkpoint's "query" prompt, else the published CodeSearchNetRetrieval.

    Raises:
        InputError: For a task that neither defines.

    """
    name = task or DEFAULT_TASK
    if task is not None and task in own:
        return own[task]
    if "query" in own and (task is None or task in QUERIES):
        return own["query"]
    if name in QUERIES:
        return QUERIES[name]
    raise InputError(f"unknown query task {name!r}; known: {', '.join(sorted({*QUERIES, *own}))}")


def named_prompts(own: Mapping[str, str]) -> dict[str, str]:
    """Return every prompt by its name: the published tasks, the checkpoint's own, "query" and "document"."""
    tasks = {task: query_prompt(own, task) for task in QUERIES}
    return {**tasks, **own, "query": query_prompt(own), "document": document_prompt(own)}
