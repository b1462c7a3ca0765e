"""Options classes on the command line: which options a field makes, and what reaches the command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import pytest
import typer

from c2llm_integrations._utils.option_field import CLI, option
from c2llm_integrations.cli.options import ModelChoice, PlanChoice, command
from c2llm_integrations.indexing.options import IngestOptions, RecordOptions
from c2llm_integrations.model.options import ModelOptions
from c2llm_integrations.retrieval.options import SearchOptions
from c2llm_integrations.stores.spec import CollectionSpec, CompactPlan
from c2llm_integrations.training.options import FinetuneOptions, HeadOptions


@dataclass(frozen=True, kw_only=True)
class Inherited:
    """`heavy` has a type that nobody imports, which no other field may need."""

    file: Path | None = option(None, "A file.", cli_default=Path("log.txt"))
    heavy: Unimported | None = None  # noqa: F821


@dataclass(frozen=True, kw_only=True)
class Own(Inherited):
    name: str = option(MISSING, "A name.")
    languages: str | Sequence[str] | None = option(None, "A language.", flag="--language")
    force: bool = option(False, "Whether.")
    count: int = option(3, "How many.", min=1)


def invoke(*arguments, standalone_mode=False):
    """Run a command that takes `Own`; return what it gets, and the names of its options."""
    got = []

    @command
    def one(options: Own) -> int:
        got.append(options)
        return 0

    app = typer.Typer()
    app.command()(one)
    names = [parameter.opts[0] for parameter in typer.main.get_command(app).params]
    app(list(arguments), standalone_mode=standalone_mode)
    return got[0], names


def test_each_field_with_a_help_is_an_option_the_own_ones_first():
    got, names = invoke("--name", "x")
    assert [name for name in names if "completion" not in name] == [
        "--name",
        "--language",
        "--force",
        "--count",
        "--file",
    ]
    assert got == Own(name="x", file=Path("log.txt"))


def test_values_arrive_with_the_types_of_the_fields():
    got, _ = invoke("--name", "x", "--language", "go", "--force", "--count", "5", "--file", "y")
    assert got == Own(name="x", languages="go", force=True, count=5, file=Path("y"))


@pytest.mark.parametrize("arguments", [[], ["--name", "x", "--count", "0"], ["--name", "x", "--heavy", "y"]])
def test_what_is_missing_out_of_range_or_not_an_option_is_refused(arguments):
    with pytest.raises(SystemExit, match="2"):
        invoke(*arguments, standalone_mode=True)


@pytest.mark.parametrize(
    "options", [IngestOptions, RecordOptions, SearchOptions, ModelOptions, FinetuneOptions, HeadOptions]
)
def test_every_options_class_says_what_its_options_mean(options):
    told = [one for one in fields(options) if CLI in one.metadata]
    assert told
    assert all(one.metadata[CLI]["help"].endswith((".", "]")) for one in told)


def test_only_what_differs_from_the_defaults_is_given():
    assert ModelChoice(model="x").given() == {}
    assert ModelChoice(output_dim=128, device="cpu").given() == {"output_dim": 128, "device": "cpu"}


def test_a_plan_keeps_what_the_collection_has():
    spec = CollectionSpec(8, {}, datatype="float16", quantization="int8", rescore=2.0)
    assert PlanChoice().plan(8, spec) is None
    assert PlanChoice(datatype="float32").plan(8, spec) == CompactPlan(8, "float32", "int8", 2.0)
    assert PlanChoice(quantization="none").plan(8, spec).quantization is None
    assert PlanChoice(rescore=3.0).plan(8, spec) == CompactPlan(8, "float16", "int8", 3.0)
