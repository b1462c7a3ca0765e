"""`c2llm bench`, `eval` and `export-onnx`: measure a model, or write it for other runtimes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from c2llm_integrations.cli import terminal
from c2llm_integrations.cli.context import load_model
from c2llm_integrations.cli.options import AnyModel, Output, command
from c2llm_integrations.errors import InputError
from c2llm_integrations.model.options import ModelOptions

if TYPE_CHECKING:
    from c2llm_integrations.training.evaluation import Task

HUMAN_EVAL, MTEB = "human-eval", "mteb"


@command
def bench(
    model: Annotated[str, typer.Option(metavar="ID", help="What to measure: nano, a folder or a hub id.")] = "nano",
    device: Annotated[str, typer.Option(metavar="D", help="auto, cpu, cuda, cuda:N, or several.")] = "auto",
    seconds: Annotated[float, typer.Option(metavar="S", help="How long to measure.")] = 120.0,
    *,
    output: Output,
) -> int:
    """Measure a model on this machine with real code: tokens a second, share of the peak, memory, best setting.

    The peak is the best that the model's own matrix products reach here. Run nothing else meanwhile.
    """
    from c2llm_integrations.model.benchmark import measure

    found = [asdict(one) for one in measure(model, seconds, device, terminal.say)]
    if output.as_json:
        terminal.write_json({"model": model, "settings": found, "best": found[0]})
        return 0
    titles = {
        "dtype": "{}",
        "batch_tokens": "{:,}",
        "tokens_per_second": "{:,.0f}",
        "texts_per_second": "{:,.1f}",
        "peak_tflops": "{:.2f}",
        "mfu": "{:.0%}",
        "query_ms": "{:.1f}",
        "memory_mb": "{:,.0f}",
    }
    lines = [list(titles)]
    lines += [["-" if row[name] is None else form.format(row[name]) for name, form in titles.items()] for row in found]
    widths = [max(len(line[n]) for line in lines) for n in range(len(titles))]
    for line in lines:
        terminal.write("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    return 0


@command
def evaluate(
    tasks: Annotated[
        list[str],
        typer.Argument(
            metavar="TASK...",
            help="human-eval, mteb, a .jsonl, .jsonl.gz or .parquet of query and positive, or, with --repositories, "
            "a .jsonl of repo, query and relevant.",
        ),
    ],
    model: AnyModel,
    repositories: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with the checkouts that repo names.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where mteb's result files go.")] = Path("results"),
) -> int:
    """Measure a model: nDCG@10, mean reciprocal rank and recall, printed, and written as mteb's result files.

    human-eval asks for the solution of each of its prompts and runs none. mteb is MTEB(Code, v1) with the published
    prompts and needs its data from the hub.
    """
    from c2llm_integrations.training import evaluation

    read = {name: _local(name, repositories) for name in tasks if name != MTEB}
    embedder = load_model(model, None)
    folder = evaluation.result_folder(out, embedder)
    lines = []
    for name in tasks:
        if name == MTEB:
            found = [(result.task_name, result.scores) for result in evaluation.run_mteb(embedder, folder)]
        else:
            local = read[name]
            title = local[0].name if len(local) == 1 else Path(name).stem
            result = evaluation.run_local(embedder, title, local, folder)
            found = [(title, result["scores"])]
        for title, scores in found:
            rows = [row for split in scores.values() for row in split]
            lines += [_line(title if len(rows) == 1 else f"{title} {row['hf_subset']}", row) for row in rows]
    terminal.write("\n".join(lines))
    terminal.say(f"results: {folder}")
    return 0


def _local(name: str, repositories: Path | None) -> list[Task]:
    from c2llm_integrations.training.evaluation import human_eval_task, pairs_task, repository_tasks

    if name == HUMAN_EVAL:
        return [human_eval_task()]
    file = Path(name)
    if not file.is_file():
        raise InputError(f"no task {name!r}; say {HUMAN_EVAL}, {MTEB}, or name a file of pairs")
    return [pairs_task(file)] if repositories is None else list(repository_tasks(file, repositories))


def _line(title: str, scores: dict[str, float]) -> str:
    shown = ("ndcg_at_10", "mrr", "recall_at_1", "recall_at_10")
    return "\t".join([title, *(f"{key} {scores[key]:.4f}" for key in shown if key in scores)])


@dataclass(frozen=True, kw_only=True)
class ExportedModel(ModelOptions):
    """The dimensions of an exported model, which is read on the CPU."""

    device: str = "cpu"


@command
def export_onnx(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="nano, a folder or a hub id.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write, new or empty.")],
    options: ExportedModel,
    int8: Annotated[bool, typer.Option("--int8", help="Also write a file with 8-bit weights.")] = False,
) -> int:
    """Write a model as ONNX for ONNX Runtime, OpenVINO, FastEmbed and transformers.js: tokens in, vectors out.

    The tokenizer and the prompts stand beside onnx/model.onnx; callers put the prompts in front of texts themselves.
    """
    from c2llm_integrations.model.onnx_export import export_onnx as export

    cosines = export(replace(options, name=model), out, int8=int8)
    terminal.write(str(out))
    for name, cosine in cosines.items():
        terminal.say(f"onnx/{name}: cosine to the vectors computed here at least {cosine:.4f}, of a few texts")
    return 0
