"""`c2llm serve`, `mcp` and `browse`: vectors over HTTP, search for an agent or on a page."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from c2llm_integrations.cli import terminal
from c2llm_integrations.cli.context import indexed_store, load_model, opened, stale_notes
from c2llm_integrations.cli.options import AnyModel, CollectionPlace, ModelPlace, command
from c2llm_integrations.errors import InputError
from c2llm_integrations.model.options import KEY_VARIABLE, is_loopback, is_url


@command
def serve(
    model: AnyModel,
    host: Annotated[str, typer.Option(metavar="H", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="P", min=1, max=65535, help="Port to listen on.")] = 8000,
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Allow requests of this web page, such as https://app.example.org."),
    ] = None,
) -> int:
    """Serve embeddings as OpenAI's API does: POST /v1/embeddings, besides /v1/models, /health and /metrics.

    With an API key in C2LLM_API_KEY, embedding needs it. Without one, the server listens on this machine only. The
    key is never sent on to a server that --model names.
    """
    from c2llm_integrations.server.openai_api import create_app, require_free, run_server

    key = os.environ.get(KEY_VARIABLE, "").strip() or None
    if key is None and not is_loopback(host):
        raise InputError(f"{host} can be reached from elsewhere; set {KEY_VARIABLE}, or listen on 127.0.0.1")
    if key is not None and is_url(model.model or ""):
        raise InputError(
            f"{KEY_VARIABLE} would be asked of clients here and sent to the server that --model names; give each its "
            f"own in Python: create_app(C2LLMEmbedder.from_pretrained(URL), api_key=…), or unset {KEY_VARIABLE}"
        )
    require_free(host, port)
    embedder = load_model(model, None)
    terminal.say(f"{embedder.fingerprint['model']}, {embedder.output_dim} dimensions: http://{host}:{port}/v1")
    run_server(create_app(embedder, api_key=key, origins=cors or ()), host, port)
    return 0


@command
def mcp(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="[FOLDER]...", help="Folders to search.")] = None,
    *,
    place: CollectionPlace,
    model: Annotated[str | None, typer.Option(metavar="ID", help="The model of a new index.  [default: nano]")] = None,
    index: Annotated[bool, typer.Option(help="Index the folders in the background.")] = True,
    idle_minutes: Annotated[
        float, typer.Option(metavar="N", min=0.1, help="Unload the model after N idle minutes.")
    ] = 10.0,
) -> int:
    """Serve search_code, find_similar and index_status to a coding agent, on standard input and output.

    Indexing starts automatically; until it is done, answers come from words alone. No file outside
    the folders is read.
    """
    from c2llm_integrations.server.mcp import serve

    code = 0
    try:
        serve(folders or [Path(".")], place.store, place.collection, model, index, idle_minutes)
    except KeyboardInterrupt as error:
        code = 128 + (error.args or (signal.SIGINT,))[0]
    sys.stdout.flush()
    os._exit(code)  # threads that wait for the agent or compute a batch end too; nobody waits for their vectors


@command
def browse(
    place: CollectionPlace,
    port: Annotated[int, typer.Option(metavar="P", min=0, max=65535, help="Port to listen on, 0 any free one.")] = 0,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in your browser.")] = False,
    *,
    model: ModelPlace,
) -> int:
    """Search on a page in the browser: hits with marked words, explained scores, and the tokens that PMA weighs most.

    The page is served to this machine alone and needs no network.
    """
    from c2llm_integrations.indexing.claims import require_known_model
    from c2llm_integrations.retrieval.search import spec_of
    from c2llm_integrations.server.browse import HOST, Browser, make_server

    with opened(place.store or indexed_store(), place.collection) as held:
        look = partial(stale_notes, held, place)
        require_known_model(held, model.model)
        browser = Browser(held, load_model(model.choice(), spec_of(held)), look)
        try:
            server = make_server(browser, port)
        except OSError as error:
            raise InputError(f"port {port} cannot be listened on ({error.strerror}); name another --port") from error
        address = f"http://{HOST}:{server.server_address[1]}/"
        terminal.say(f"{address} until you press Ctrl-C")
        if open_page:
            import webbrowser

            webbrowser.open(address)
        with server:
            server.serve_forever()
    return 0
