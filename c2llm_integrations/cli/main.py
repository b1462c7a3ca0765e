"""The command `c2llm`: index a repository, search it, show and move what is stored.

Exit code 0 is done, 1 something was refused or failed, 2 a wrong command line, 130 interrupted. Answers go to
standard output, everything else to standard error. Heavy modules load inside the commands that need them. A run that a
signal ends (SIGTERM, SIGHUP) cleans up as after Ctrl-C, and has the code that shells give it, 143 or 129.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from c2llm_integrations.cli import collections, index, load, measure, plan, search, serve, terminal, train
from c2llm_integrations.errors import C2LLMError, InputError, reason_of

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="The bundled model, nano, needs no network. The released models answer better and are fetched once: "
    f"c2llm index --replace --model {index.LARGER}.",
)
app.command(short_help="Index a repository.")(index.index)
app.command(short_help="Index many repositories on a Ray cluster.")(index.index_ray)
app.command(short_help="Load records of your own.")(load.load)
app.command(short_help="Ask an indexed repository a question.")(search.search)
app.command(short_help="Show what is indexed.")(collections.status)
app.command(short_help="List the collections of a store.")(collections.collections)
app.command(short_help="Delete a collection.")(collections.drop)
app.command(short_help="Write a collection to a file.")(collections.export)
app.command("import", short_help="Add a file's rows to a collection.")(collections.import_)
app.command(short_help="Choose how many bits a vector gets.")(plan.plan)
app.command(short_help="Fit fewer dimensions to your code.")(plan.fit_projection)
app.command(short_help="Train a model on pairs.")(train.train)
app.command(short_help="Train fewer dimensions on your code.")(train.train_head)
app.command(short_help="Make training pairs of your code.")(train.mine_pairs)
app.command(short_help="Write a model as ONNX.")(measure.export_onnx)
app.command("eval", short_help="Measure how well a model retrieves.")(measure.evaluate)
app.command(short_help="Serve embeddings over HTTP.")(serve.serve)
app.command(short_help="Measure a model on this machine.")(measure.bench)
app.command(short_help="Search on a page in your browser.")(serve.browse)
app.command(short_help="Serve search to a coding agent.")(serve.mcp)

# The signals that ended this run, and when each came.
_ended_by: list[tuple[signal.Signals, float]] = []


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Search code by meaning: index a repository, then ask it questions."""
    if version:
        from importlib.metadata import version as installed

        terminal.write(f"c2llm-integrations {installed('c2llm-integrations')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        terminal.write(context.get_help())
        raise typer.Exit(2)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; every failure becomes one line on standard error."""
    # pymilvus would take variables from a `.env` in the current folder or above it, which others may have put there.
    os.environ["PYTHON_DOTENV_DISABLED"] = "1"
    try:
        code = int(app(arguments, prog_name="c2llm", standalone_mode=False) or 0)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        return _explain(error)
    ended_by = _ended_by[0][0] if _ended_by else None
    if ended_by or code == 130:
        what = f"ended by {ended_by.name}" if ended_by else "interrupted"
        terminal.say(f"c2llm: {what}; run it again to go on where it stopped")
    return 128 + ended_by if ended_by else code


def _explain(error: Exception) -> int:
    # typer's base class for a wrong command line has had several names; this method has stayed.
    if describe := getattr(error, "format_message", None):
        context = getattr(error, "ctx", None)
        terminal.say(f"c2llm: {describe().rstrip('.')}; see: {context.command_path if context else 'c2llm'} --help")
        return 2
    if os.environ.get("C2LLM_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, FileNotFoundError) and not _has_current_folder():
        error = InputError("the current folder is there no more; go to another one")
    more = "" if isinstance(error, (C2LLMError, OSError, MemoryError)) else "; C2LLM_DEBUG=1 shows where"
    terminal.say(f"c2llm: {reason_of(error)}{more}")
    return 1


def _has_current_folder() -> bool:
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False


class _Ended(KeyboardInterrupt):
    """A signal ended this run. For KeyboardInterrupt itself, Python may replace the exit code."""


def _end(number: int, _: object) -> None:
    """End this run as Ctrl-C does; not again at once, for `timeout` sends its signal twice."""
    now = time.monotonic()
    if not _ended_by or now > _ended_by[-1][1] + 1:
        _ended_by.append((signal.Signals(number), now))
        raise _Ended(number)


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    for ending in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, ending, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) == signal.SIG_DFL:  # under nohup it is ignored
            signal.signal(number, _end)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started this process
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        # A file's name or a symbol may hold what this terminal's encoding has not.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(run(sys.argv[1:]))
