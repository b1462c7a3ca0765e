"""Which prompt is used when."""

import pytest

from c2llm_integrations.errors import InputError
from c2llm_integrations.model.prompts import DOCUMENT, QUERIES, document_prompt, query_prompt


def test_published_prompts_end_with_a_newline_and_the_document_prompt_does_not():
    assert len(QUERIES) == 12
    assert all(prompt.endswith("\n") for prompt in QUERIES.values())
    assert DOCUMENT == "Retrieved Answer:"


@pytest.mark.parametrize(
    ("own", "task", "want"),
    [
        ({}, None, QUERIES["CodeSearchNetRetrieval"]),
        ({}, "CosQA", QUERIES["CosQA"]),
        ({"query": "q: "}, None, "q: "),
        ({"query": "q: "}, "CosQA", "q: "),
        ({"query": "q: ", "CosQA": "own "}, "CosQA", "own "),
        ({"mine": "m "}, "mine", "m "),
    ],
)
def test_own_prompts_come_first(own, task, want):
    assert query_prompt(own, task) == want


def test_an_empty_own_prompt_counts():
    assert document_prompt({"document": ""}) == ""
    assert query_prompt({"query": ""}) == ""


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'X'.*AppsRetrieval.*mine"):
        query_prompt({"mine": ""}, "X")
