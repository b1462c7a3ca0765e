"""`c2llm`: index a repository, ask it questions, see what is stored.

Exit code 0 is done, 1 something was refused or failed, 2 a wrong command line, 130 interrupted. Answers go to
standard output, everything else to standard error. Heavy modules load inside the commands that need them.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from c2llm_integrations import terminal
from c2llm_integrations.errors import C2LLMError, InputError, StoreBusy

if TYPE_CHECKING:
    from c2llm_integrations.embedder import C2LLMEmbedder
    from c2llm_integrations.stores.base import CollectionSpec, VectorStore

# The index of a repository, at its root; found again from any folder below.
FOLDER = ".c2llm"
EDGE = "qdrant+edge://"
# How long a reader waits for a store that another process has open.
BUSY_SECONDS = 10.0
LARGER = "codefuse-ai/C2LLM-0.5B (1 GB) or codefuse-ai/C2LLM-7B (15 GB)"

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="The bundled model, nano, needs no network. The released models answer better and are fetched once: "
    f"c2llm index --replace --model {LARGER}.",
)

Store = Annotated[
    str | None, typer.Option(metavar="URL", help=f"Where the rows are.  [default: {FOLDER} at the repository's root]")
]
Collection = Annotated[str, typer.Option(metavar="NAME", help="The set of rows inside the store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


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


@app.command(short_help="Index a repository.")
def index(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="A repository, or a folder in one.")] = Path("."),
    store: Store = None,
    collection: Collection = "code",
    model: Annotated[
        str | None,
        typer.Option(metavar="ID", help="nano, a folder or a hub id.  [default: the collection's own, else nano]"),
    ] = None,
    repository: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the repository is called.  [default: its origin URL]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Take over a name that another checkout fills.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Drop the whole collection first.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: AsJson = False,
) -> int:
    """Read a repository into a store. A repeated run embeds only what has changed.

    The bundled model, nano, is the default. For better answers, slower: --model codefuse-ai/C2LLM-0.5B or
    codefuse-ai/C2LLM-7B, with --replace if the collection was made with another model.
    """
    from c2llm_integrations.code.repository import open_tree, root_of
    from c2llm_integrations.ingest import ingest, plan
    from c2llm_integrations.stores import open_store

    if replace:
        open_tree(path, repository)  # what is wrong with the folder or its name must show before anything is dropped
    with open_store(store or f"{EDGE}{root_of(path) / FOLDER}", collection) as opened:
        spec = None if replace else opened.spec
        options: dict[str, Any] = {"repository": repository, "force": force, "own_store": store is None}
        if dry_run:
            report = plan(path, None if replace else opened, **options)
        else:
            embedder = _load(model, spec)
            if replace:
                opened.drop()
            with terminal.progress_bar() as progress:
                report = ingest(path, embedder, opened, **options, progress=progress)
    terminal.write_report(report, planned=dry_run, as_json=as_json)
    if spec is None and report.stored and not dry_run:
        terminal.say('now ask: c2llm search "..."')
        terminal.say(f"better answers, slower: c2llm index --replace --model {LARGER}")
    return 1 if terminal.say_problems(report) else 0


@app.command(short_help="Ask an indexed repository a question.")
def search(
    query: Annotated[list[str], typer.Argument(metavar="QUERY...", help="What you look for, in words or code.")],
    store: Store = None,
    collection: Collection = "code",
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=10_000, help="How many answers.")] = 10,
    language: Annotated[str | None, typer.Option(metavar="L", help="Only this language, such as python.")] = None,
    path: Annotated[str | None, typer.Option(metavar="GLOB", help="Only these files, such as 'src/**/*.py'.")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="ID", help="Where the collection's model is now, if it was moved.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Print the chunks that answer a question, best first, from any folder of an indexed repository.

    A file under the current checkout is named relative to the current folder, any other one relative to its
    repository. Into a pipe each answer is one line: path:start-end, score and symbol, separated by tabs.
    """
    question = " ".join(query)
    if not question.strip():
        raise typer.BadParameter("it is blank; ask in words, or give a piece of code", param_hint="QUERY")
    from c2llm_integrations.search import search as find
    from c2llm_integrations.search import spec_of

    url = store or _indexed_store()
    with _opened(url, collection) as opened:
        spec = spec_of(opened)
    embedder = _load(model, spec)  # takes seconds, in which others may have the store
    with _opened(url, collection) as opened:
        hits = find(question, embedder, opened, limit=limit, language=language, path=path)
        checkouts = _checkouts(opened)
    if as_json:
        terminal.write_json(terminal.hits_document(question, embedder.fingerprint["model"], hits, checkouts))
    else:
        terminal.write_hits(hits, checkouts)
    if not hits:
        terminal.say("no answer: no row fits these filters")
    return 0


@app.command(short_help="Show what is indexed.")
def status(store: Store = None, collection: Collection = "code", as_json: AsJson = False) -> int:
    """Show what a collection holds: its model, its width, its repositories and their rows."""
    from c2llm_integrations.search import spec_of

    with _opened(store or _indexed_store(), collection) as opened:
        spec = spec_of(opened)
        checkouts = _checkouts(opened)
        document = {
            "store": opened.url,
            "collection": collection,
            "model": spec.fingerprint["model"],
            "width": spec.width,
            "rows": opened.count(),
            "repositories": [
                {
                    "repository": name,
                    "rows": opened.count(name),
                    "checkout": owner,
                    "folder": str(checkouts[name]) if name in checkouts else None,
                }
                for name, owner in sorted(opened.claims().items())
            ],
        }
    if as_json:
        terminal.write_json(document)
    else:
        terminal.write("\n".join(terminal.status_lines(document)))
    return 0


def _load(model: str | None, spec: CollectionSpec | None) -> C2LLMEmbedder:
    """Load the named model, else the one the collection was made with, else nano."""
    from c2llm_integrations.embedder import C2LLMEmbedder, options_of

    options: dict[str, Any] = {} if spec is None else options_of(spec.fingerprint)
    if model is not None:
        # A folder's name must mean the same from wherever the collection is searched later.
        options["name"] = str(Path(model).resolve()) if model != "nano" and Path(model).is_dir() else model
    try:
        return C2LLMEmbedder.from_pretrained(**{"name": "nano", **options})
    except C2LLMError as error:
        if model is not None or spec is None:
            raise
        raise InputError(f"the collection's model cannot be loaded: {error}; --model names its new place") from error


@contextmanager
def _opened(url: str, collection: str) -> Iterator[VectorStore]:
    """Open a store for reading; while another process has it, wait a little for its turn."""
    from c2llm_integrations.stores import open_store

    patience = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            store = open_store(url, collection)
            break
        except StoreBusy:
            if time.monotonic() > patience:
                raise
            time.sleep(0.05)
    with store:
        yield store


def _indexed_store() -> str:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FOLDER).is_dir():
            return f"{EDGE}{folder / FOLDER}"
    raise InputError(f"no {FOLDER} in {here} or above; run: c2llm index, or name a --store")


def _checkouts(store: VectorStore) -> dict[str, Path]:
    """Return repository name → folder, for those that fill the store from here or from beside it."""
    from c2llm_integrations.code.repository import checkout_id

    here = Path.cwd()
    folders = [here, *here.parents]
    if store.url.startswith(EDGE):
        folders.append(Path(store.url.removeprefix(EDGE)).expanduser().resolve().parent)
    ids = {checkout_id(folder): folder for folder in folders}
    return {name: ids[owner] for name, owner in store.claims().items() if owner in ids}


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; every failure becomes one line on standard error."""
    try:
        code = int(app(arguments, prog_name="c2llm", standalone_mode=False) or 0)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        return _explain(error)
    if code == 130:
        terminal.say("c2llm: interrupted; run it again to go on where it stopped")
    return code


def _explain(error: Exception) -> int:
    # typer's base class for a wrong command line has had several names; this method has stayed.
    if describe := getattr(error, "format_message", None):
        context = getattr(error, "ctx", None)
        terminal.say(f"c2llm: {describe().rstrip('.')}; see: {context.command_path if context else 'c2llm'} --help")
        return 2
    if os.environ.get("C2LLM_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, (C2LLMError, OSError, MemoryError)):
        terminal.say(f"c2llm: {error or type(error).__name__}")
    else:
        terminal.say(f"c2llm: unexpected {type(error).__name__}: {error}; C2LLM_DEBUG=1 shows where")
    return 1


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    for stream in (sys.stdout, sys.stderr):
        # A file's name or a symbol may hold what this terminal's encoding has not.
        if stream is not None:  # closed by whoever started this process
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(run(sys.argv[1:]))
