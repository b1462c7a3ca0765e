from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.stores.base import Filter
from c2llm_integrations.stores.milvus_filter import expression, literal


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_literal_is_one_line_that_reads_back(value: str) -> None:
    written = literal(value)
    assert "\n" not in written
    assert "\r" not in written
    escapes = {'"': '"', "\\": "\\", "n": "\n", "r": "\r", "t": "\t"}
    characters = iter(written[1:-1])
    read = "".join(escapes[next(characters)] if one == "\\" else one for one in characters)
    assert (read, written[0], written[-1]) == (value, '"', '"')


def test_expressions_quote_every_value() -> None:
    assert expression(Filter()) == ""
    where = Filter(repositories=["a"], paths=['x" or 1==1', "é\\"])
    assert expression(where) == 'repository in ["a"] and path in ["x\\" or 1==1", "é\\\\"]'
    assert expression(Filter(kinds=["f"]), ours=True, after="a") == 'kind in ["f"] and start_line > 0 and id > "a"'
