"""Search for coding agents: a server of the Model Context Protocol on standard input and output (extra `mcp`)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from c2llm_integrations.errors import MissingExtra
from c2llm_integrations.server.background_indexing import BackgroundIndexer
from c2llm_integrations.server.live_index import LiveIndex, LiveIndexConfig
from c2llm_integrations.server.mcp_answers import SearchTools

if TYPE_CHECKING:
    from c2llm_integrations.server.mcp_tools import OneLineServer

# How long the end of the server waits for the end of a run, which the next one takes up where it stopped.
STOP_SECONDS = 1.5
# How long an interrupt may go unseen.
POLL_SECONDS = 0.5

INSTRUCTIONS = (
    "Searches the code under the folders it was started with. search_code takes words, a name or an error message, "
    "find_similar takes code or a place in a file. Read the notes of an answer: they say whether it may be stale."
)


def serve(
    folders: Sequence[Path], store: str | None, collection: str, model: str | None, index: bool, idle_minutes: float
) -> None:
    """Answer until standard input ends. Threads that still compute may be left when it returns.

    No file outside the `folders` is read. `index`: whether to embed what is new or stale meanwhile; `idle_minutes`
    without a question unload the model; the others are those of `LiveIndexConfig`. Raises RepositoryError for a folder
    that cannot be listed, MissingExtra without the SDK.
    """
    configs = [
        LiveIndexConfig(folder=folder, store=store, collection=collection, model=model)
        for folder in dict.fromkeys(map(Path.resolve, folders))
    ]
    indexes = [LiveIndex(config) for config in configs]
    indexer = BackgroundIndexer(indexes, index, idle_minutes * 60)
    indexer.start()  # before the SDK is imported, which takes as long as reading a small repository
    ended: Future[None] = Future()
    try:
        # An interrupt must not wait for this thread, which waits for the agent's next line.
        answering = threading.Thread(target=_answer, args=(SearchTools(indexes), ended), name="c2llm-mcp", daemon=True)
        answering.start()
        while answering.is_alive():
            answering.join(POLL_SECONDS)  # one that comes just before this call is seen after it
        ended.result()
    finally:
        has_stopped = indexer.stop(STOP_SECONDS)
    for one in indexes if has_stopped else ():
        one.close()


def _answer(tools: SearchTools, ended: Future[None]) -> None:
    try:
        server = _server(tools)
        from c2llm_integrations.server.mcp_lines import guard_streams  # needs the SDK

        guard_streams()
        ended.set_result(server.run("stdio"))
    except BaseException as error:
        ended.set_exception(error)


def _server(tools: SearchTools) -> OneLineServer:
    try:
        from c2llm_integrations.server.mcp_tools import OneLineServer, add_tools
    except ImportError as error:
        raise MissingExtra("mcp", "mcp") from error
    server = OneLineServer("c2llm", instructions=INSTRUCTIONS, log_level="WARNING")
    add_tools(server, tools)
    return server
