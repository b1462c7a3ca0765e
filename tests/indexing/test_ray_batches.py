"""What the driver of a distributed run adds up, and that it takes no repository for complete that is not."""

import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.errors import StoreError
from c2llm_integrations.indexing.ray.batches import BatchResult, PassTracker, Sum
from c2llm_integrations.indexing.report import IngestReport


def tracker(rows=None, lost=()):
    """One whose repositories all verify but those in `lost`; and what was asked to be finished."""
    finished = []

    def finish(one):
        finished.append(one)

        def wait():
            if one.report.repository in lost:
                raise StoreError("other rows")
            return len(one.stale), one.wanted.count

        return wait

    return PassTracker(rows or {}, finish), finished


def results(name, number, skipped=None, **more):
    ids = [str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name} {n}")) for n in range(number)]
    return [
        BatchResult(
            name,
            f"/{name}",
            batches=number,
            ids=Sum().add([id]),
            report=IngestReport(name, files=1, chunks=1, skipped=skipped or {}),
            **more,
        )
        for id in ids
    ]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.randoms())
def test_a_repository_is_finished_once_when_all_its_batches_are_there_in_any_order(numbers, random):
    all_ = [result for at, number in enumerate(numbers) for result in results(f"r{at}", number)]
    random.shuffle(all_)
    one, finished = tracker()
    for result in all_:
        one.take(result)
    assert one.end([f"/r{at}" for at in range(len(numbers))]) == []
    assert sorted(done.report.repository for done in finished) == [f"r{at}" for at in range(len(numbers))]
    assert [one.verified[f"r{at}"].stored for at in range(len(numbers))] == numbers
    assert one.total == len(all_)


@given(st.integers(2, 6), st.data())
def test_a_repository_of_which_a_result_is_lost_goes_again(number, data):
    lost = data.draw(st.integers(0, number - 1))
    one, finished = tracker()
    for at, result in enumerate(results("one", number)):
        if at != lost:
            one.take(result)
    assert one.end(["/one"]) == ["/one"]
    assert finished == []


def test_a_source_of_which_nothing_came_goes_again():
    one, _ = tracker()
    assert one.end(["/one"]) == ["/one"]


def test_one_that_does_not_verify_goes_again_and_one_that_cannot_be_read_does_not():
    one, _ = tracker(lost={"lost"})
    for result in [*results("lost", 2), *results("fine", 2), BatchResult("bad", "/bad", failed="it is not there")]:
        one.take(result)
    assert one.end(["/lost", "/fine", "/bad"]) == ["/lost"]
    assert set(one.verified) == {"fine"}
    assert one.problems == {"/bad": "it is not there"}


@pytest.mark.parametrize("place", [1, 2])
def test_of_two_sources_of_one_name_the_first_goes_again_alone_because_the_other_stored_rows_too(place):
    one, _ = tracker()
    order = results("one", 2)
    order.insert(place, replace(order[1], source="/elsewhere/one"))
    for result in order:
        one.take(result)
    assert one.end(["/one", "/elsewhere/one"]) == ["/one"]
    assert one.contested == {"/one"}
    assert one.verified == {}
    assert one.failed["one"].report.stored == 2
    assert "like that of /one" in one.problems["/elsewhere/one"]


def text(path, **more):
    return BatchResult("one", "x.parquet", batches=0, files=[path], rows=1, **more)


@pytest.mark.parametrize(("paths", "again"), [(["a", "b"], []), (["a"], ["x.parquet"])])
def test_a_data_set_is_finished_when_as_many_rows_came_as_it_has(paths, again):
    one, finished = tracker({"x.parquet": 2})
    for path in paths:
        one.take(text(path))
    assert one.end(["x.parquet"]) == again
    assert [done.paths for done in finished] == ([] if again else [{"a", "b"}])


def test_a_data_set_with_two_texts_of_one_path_is_a_problem():
    one, finished = tracker({"x.parquet": 2})
    one.take(text("a"))
    one.take(text("a"))
    assert one.end(["x.parquet"]) == []
    assert finished == []
    assert "several texts" in one.problems["x.parquet"]


def test_an_empty_data_set_is_done():
    one, _ = tracker({"x.parquet": 0})
    assert one.end(["x.parquet"]) == []


@pytest.mark.parametrize(
    ("commits", "skipped", "wanted"),
    [(["c", "c"], {}, "c"), (["c", None], {}, None), (["c", "c"], {"unreadable": ["x"]}, None)],
)
def test_the_claim_names_a_commit_only_if_all_was_read_from_it(commits, skipped, wanted):
    one, finished = tracker()
    for result, commit in zip(results("one", 2, owner="me", skipped=skipped), commits, strict=True):
        one.take(replace(result, commit=commit))
    assert (finished[0].claim.checkout, finished[0].claim.commit) == ("me", wanted)
