"""`c2llm mcp`: search for coding agents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from c2llm_integrations.commands.options import Collection, Store


def mcp(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="[FOLDER]...", help="What may be searched.")] = None,
    store: Store = None,
    collection: Collection = "code",
    model: Annotated[
        str | None, typer.Option(metavar="ID", help="The model of an index yet to be made.  [default: nano]")
    ] = None,
    index: Annotated[bool, typer.Option(help="Make and keep vectors meanwhile.")] = True,
    idle_minutes: Annotated[
        float, typer.Option(metavar="N", min=0.1, help="Let go of the model after so long without a question.")
    ] = 10.0,
) -> int:
    """Serve search_code, find_similar and index_status to a coding agent, on standard input and output.

    Answers come at once, from words alone until the folders are indexed, which begins by itself. No file outside the
    folders is read.
    """
    from c2llm_integrations.mcp import serve

    serve(folders or [Path(".")], store, collection, model, index, idle_minutes)
    return 0
