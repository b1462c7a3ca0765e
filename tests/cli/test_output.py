"""How reports read."""

import json

import pytest

from c2llm_integrations.cli.output import report_lines, say_problems, size, status_lines, table, write_report
from c2llm_integrations.errors import did_you_mean
from c2llm_integrations.indexing.report import Estimate, IngestReport, RecordsReport


def test_a_report_names_what_was_skipped_and_shortens_long_lists():
    skipped = {"secret": [".env"], "binary": [f"{name}.png" for name in "abcdefg"]}
    report = IngestReport("repo", files=2, chunks=3, tokens=100, seconds=2.0, written=3, skipped=skipped, cut=1)
    report.encodings = {"koi8-r": ["a.py", "b.py"]}
    text = "\n".join(report_lines(report, planned=False))
    assert "read 2 as koi8-r: a.py, b.py" in text
    assert "repo: 2 files, 3 chunks in 2.0 s" in text
    assert "embedded 100 tokens, 50 a second" in text
    assert "skipped 1 (secret): .env" in text
    assert "skipped 7 (binary): a.png, b.png, c.png, d.png, e.png, …" in text
    assert "cut 1 texts" in text
    assert "would be written 3" in "\n".join(report_lines(report, planned=True))


def test_a_report_tells_what_was_shortened_replaced_or_would_cost():
    report = IngestReport("repo", shortened=2, replaced=True, estimate=Estimate(1_234_567, 45_600_000, 35_000.0, 0.59))
    text = "\n".join(report_lines(report, planned=True))
    assert "shortened 2 texts" in text
    assert "taken the old one's place" in text
    assert "about 1,234,567 tokens, 45.6 MB in the store, 0.6 minutes at 35,000 tokens a second" in text


def test_a_report_of_records_speaks_of_records(capsys):
    report = RecordsReport("gen", records=5_000, written=0, updated=2, unchanged=4_998, seconds=2.0, notes=["look"])
    assert report_lines(report, planned=False) == [
        "gen: 5,000 records in 2.0 s",
        "written 0, unchanged 4,998, updated 2, deleted 0, refused 0",
        "look",
    ]
    assert report_lines(RecordsReport("gen"), planned=True)[0] == "gen: 0 records in 0.0 s"
    write_report(report, planned=False, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["source"], told["records"], told["updated"]) == ("gen", 5_000, 2)
    assert not told.keys() & {"repository", "files", "chunks", "moved"}


def test_a_report_is_json_whatever_it_holds(capsys):
    write_report(IngestReport("repo", estimate=Estimate(tokens=3)), planned=True, as_json=True)
    assert json.loads(capsys.readouterr().out)["estimate"]["tokens"] == 3


def test_what_was_refused_or_unreadable_is_a_problem(tmp_path, capsys):
    refused = {str(number): f"{number}.py:1-2: NaN" for number in range(9)}
    assert say_problems(refused, len(refused), tmp_path / "refused.jsonl", ["b.py"])
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["refused: 0.py:1-2: NaN", "refused: 1.py:1-2: NaN"]
    assert lines[-2:] == [
        f"refused 9 in all; {tmp_path / 'refused.jsonl'} has each with its reason",
        "unreadable: b.py",
    ]
    assert len(lines) == 7
    assert not say_problems({}, 0, tmp_path / "refused.jsonl")


def test_status_says_where_a_repository_lies_or_that_it_is_elsewhere():
    here = {"repository": "a", "rows": 1000, "checkout": "f00", "commit": "c" * 40, "folder": "/src/a"}
    elsewhere = {"repository": "b", "rows": 2, "checkout": "ba5", "commit": None, "folder": None}
    records = {"repository": "c", "rows": 3, "checkout": "records:f00", "commit": None, "folder": None}
    lines = status_lines({"model": "nano", "bytes_per_vector": 34.0, "repositories": [here, elsewhere, records]})
    assert lines == [
        "model             nano",
        "bytes per vector  34",
        f"repository        a: 1,000 rows from /src/a, commit {'c' * 12}",
        "repository        b: 2 rows from a checkout that is not here",
        "records           c: 3 rows",
    ]


def test_a_table_is_aligned_and_safe():
    lines = table([{"name": "a\nb", "bytes_per_vector": 2.5}, {"name": "longer", "bytes_per_vector": None}])
    assert lines == ["name    bytes per vector", "a b     2.5", "longer  none"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (45_600_000, "45.6 MB"), (5e12, "5,000.0 GB")],
)
def test_bytes_for_a_person(count, text):
    assert size(count) == text


def test_close_words_are_named_else_what_there_is():
    assert did_you_mean("pyton", {"python", "go"}) == "; did you mean python?"
    assert did_you_mean("zzz", ["python", "go"]) == "; there are: go, python"
    assert did_you_mean("zzz", [str(number) for number in range(20)]).endswith(", …")
    assert did_you_mean("zzz", []) == ""
