"""Files of training pairs, good and bad."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.errors import InputError
from c2llm_integrations.training.pair_files import Example, _example, read_examples


def write(file, *rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_rows_of_both_formats_are_the_same_examples(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    rows = [
        {"query": "q", "positive": "p", "negatives": ["n", "p", "n", " "], "dataset": "d", "language": "go"},
        {"query": "r", "positive": "p", "negatives": None, "dataset": None, "language": None},
        {"query": "q", "positive": "p", "negatives": [], "dataset": "", "language": ""},
        {"query": " ", "positive": "p", "negatives": [], "dataset": "", "language": ""},
    ]
    lines = write(tmp_path / "a.jsonl", *rows)
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for file in (lines, tmp_path / "a.parquet"):
        examples, left_out = read_examples([file])
        assert examples == [Example("q", "p", ("n",), "d", "go"), Example("r", "p")]
        assert {reason: count for reason, count in left_out.items() if count} == {
            "repeated": 1,
            "blank": 1,
            "negatives that are the positive": 1,
            "negatives blank or repeated": 2,
        }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no pair"),
        ('{"query": " ", "positive": "p"}\n', "holds no pair"),
        ('{"query": "q"}\n', "line 1 needs query and positive as text, has query"),
        ('{"query": "q", "positive": 3}\n', "line 1 needs query"),
        ("[1]\n", "line 1 is a list, expected an object"),
        ('{"query": "q", "positive": "p"}\nnonsense\n', "line 2 is not valid JSON"),
        ('{"query": "q", "positive": "p", "negatives": "n"}\n', "line 1 has negatives that are not a list"),
    ],
)
def test_bad_files_are_named(content, message, tmp_path):
    (tmp_path / "bad.jsonl").write_text(content)
    with pytest.raises(InputError, match=f"bad.jsonl.*{message}"):
        read_examples([tmp_path / "bad.jsonl"])


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "bad.parquet").write_text("text")
    with pytest.raises(InputError, match=r"bad.parquet is not a readable Parquet file"):
        read_examples([tmp_path / "bad.parquet"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"query": [], "positive": []}, "holds no pair"),
        ({"query": ["q"]}, "row 1 needs query and positive as text, has"),
    ],
)
def test_a_parquet_file_that_is_empty_or_has_one_column_is_named(columns, message, tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pa.table(columns), tmp_path / "bad.parquet")
    with pytest.raises(InputError, match=f"bad.parquet.*{message}"):
        read_examples([tmp_path / "bad.parquet"])


@given(st.lists(st.sampled_from("abcd "), max_size=8), st.sampled_from("abc"))
def test_no_negative_is_kept_that_is_blank_repeated_or_the_positive(negatives, positive):
    from collections import Counter

    left_out: Counter[str] = Counter()
    kept = _example({"query": "q", "positive": positive, "negatives": negatives}, "", left_out).negatives
    assert positive not in kept
    assert len(set(kept)) == len(kept) == len(negatives) - sum(left_out.values())
    assert set(kept) == set(negatives) - {positive, " "}
