"""The reckoning of benchmarks/scale.md: its tables come out of the script, its simulation obeys the arithmetic."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import scale
from benchmarks.scale import Stage, simulate

STAGE = st.builds(Stage, st.just("one"), st.integers(1, 6), st.floats(0.01, 10), st.just(0.0))


def test_the_page_gets_its_tables_and_stays_the_same_the_second_time():
    page = scale.write(scale.PAGE.read_text(encoding="utf-8"))
    assert page == scale.write(page)
    for make, rows in ((scale.corpus, 3), (scale.embedding, 5), (scale.storage, 18), (scale.simulation, 9)):
        table = page.split(f"<!-- {make.__name__} -->\n")[1].split("\n<!-- end -->")[0].splitlines()
        assert len(table) == rows + 2
        assert len({line.count("|") for line in table}) == 1


@settings(max_examples=40)
@given(st.lists(STAGE, min_size=1, max_size=4))
def test_a_pipeline_is_as_fast_as_its_slowest_stage(stages):
    rate, busy = simulate(stages, 400)
    slowest = min(stage.servers / stage.seconds for stage in stages)
    assert rate <= slowest * (1 + 1e-9)
    fill = sum(stage.seconds for stage in stages) * max(stage.servers for stage in stages)
    assert 400 / rate <= 400 / slowest + fill
    for stage, share in zip(stages, busy, strict=True):
        assert share == pytest.approx(rate * stage.seconds / stage.servers)


def test_more_of_what_is_not_slow_changes_little():
    before, _ = simulate(scale.pipeline(100, 1, 1, 1, 1000), 2_000)
    after, _ = simulate(scale.pipeline(100, 1, 8, 8, 1000), 2_000)
    assert after == pytest.approx(before, rel=0.02)


def test_nodes_are_counted_by_memory_and_by_rows():
    assert scale.nodes(1e6, 1e9) == 1
    assert scale.nodes(1e8, 200e9) == 5
    assert scale.nodes(1e10, 1e9) == 100
