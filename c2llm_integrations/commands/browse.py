"""`c2llm browse`: the same search on a page of this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from c2llm_integrations import terminal
from c2llm_integrations.commands.opening import indexed_store, load_model, opened, origins_of
from c2llm_integrations.commands.options import Collection, Head, Model, Projection, Store
from c2llm_integrations.errors import InputError


def browse(
    store: Store = None,
    collection: Collection = "code",
    port: Annotated[int, typer.Option(metavar="P", min=0, max=65535, help="Port to listen on, 0 any free one.")] = 0,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in your browser.")] = False,
    model: Model = None,
    projection: Projection = None,
    head: Head = None,
) -> int:
    """Show hits as a page does: code with the words you asked for marked, scores explained, and where PMA looked.

    The page is served to this machine alone and needs no network.
    """
    from c2llm_integrations.browse import Browser
    from c2llm_integrations.keeping.freshness import stale
    from c2llm_integrations.loopback import HOST, make_server
    from c2llm_integrations.search import spec_of

    with opened(store or indexed_store(), collection) as held:
        folders = [origin.folder for origin in origins_of(held).values() if origin.folder is not None]

        def look() -> list[str]:
            return [str(found) for folder in folders if (found := stale(folder, held)) is not None]

        browser = Browser(held, load_model(model, spec_of(held), projection, head), look)
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
