"""`c2llm eval`: measure how well a model retrieves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from c2llm_integrations.cli import terminal
from c2llm_integrations.cli.options import AnyModel, command
from c2llm_integrations.cli.store_and_model import load_model
from c2llm_integrations.errors import InputError

if TYPE_CHECKING:
    from c2llm_integrations.training.evaluation import Task

HUMAN_EVAL, MTEB = "human-eval", "mteb"


@command
def evaluate(
    tasks: Annotated[
        list[str],
        typer.Argument(
            metavar="TASK...",
            help="human-eval, mteb, or a .jsonl or .jsonl.gz: of query and positive, or of repo, query and relevant.",
        ),
    ],
    model: AnyModel,
    repositories: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the checkouts of repo, query and relevant are.")
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
