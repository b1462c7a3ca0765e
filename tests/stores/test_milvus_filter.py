from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.milvus.filter import expression, literal, ours


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
    where = Filter({"repository": "a", "path": ['x" or 1==1', "é\\"]})
    assert expression(where) == '((repository in ["a"]) and (path in ["x\\" or 1==1", "é\\\\"]))'
    assert expression(Filter({"we ird": 'x" or 1==1'})) == '$meta["we ird"] == "x\\" or 1==1"'
    assert ours("f", has_records=False, after='a"') == 'repository == "f" and start_line > 0 and id > "a\\""'


@pytest.mark.parametrize(
    ("bounds", "written"),
    [
        ({"gt": 0.5}, "start_line > 0"),
        ({"gte": 0.5}, "start_line >= 1"),
        ({"lt": 7.5}, "start_line < 8"),
        ({"lte": 7.5}, "start_line <= 7"),
        ({"gt": -0.5}, "start_line > -1"),
        ({"lte": 3.0}, "start_line <= 3"),
        ({"lt": 1e30}, f"start_line < {2**62}"),
    ],
)
def test_whole_numbers_are_bounded_by_whole_numbers(bounds: dict[str, float], written: str) -> None:
    assert f"({written})" in expression(Filter({"start_line": bounds}))
