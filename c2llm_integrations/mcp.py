"""Search for coding agents: a server of the Model Context Protocol on standard input and output (extra `mcp`)."""

# The SDK reads the annotations of the tools below at run time, so they stand here as they are.
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from c2llm_integrations.code.chunk import KINDS
from c2llm_integrations.errors import C2LLMError, MissingExtra
from c2llm_integrations.keeping.checkout import Checkout
from c2llm_integrations.keeping.desk import MAX_HITS, Desk
from c2llm_integrations.keeping.keeper import Keeper
from c2llm_integrations.terminal import one_line

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

# Minutes without a question after which the model is let go.
IDLE_MINUTES = 10.0
# How long the end of the server waits for the end of a run, which the next one takes up where it stopped.
STOP_SECONDS = 1.5

INSTRUCTIONS = (
    "Searches the code under the folders it was started with. search_code takes words, a name or an error message, "
    "find_similar takes code or a place in a file. Read the notes of an answer: they say whether it may be stale."
)


def serve(
    folders: Sequence[Path],
    store: str | None = None,
    collection: str = "code",
    model: str | None = None,
    index: bool = True,
    idle_minutes: float = IDLE_MINUTES,
) -> None:
    """Answer until standard input ends; meanwhile make vectors of what has none or is stale, unless `index` is False.

    Only files under `folders` are read. `store`, `collection` and `model` are those of `c2llm index`.
    Raises RepositoryError for a folder that cannot be listed, MissingExtra without the SDK.
    """
    checkouts = [Checkout(folder, store, collection, model) for folder in dict.fromkeys(map(Path.resolve, folders))]
    keeper = Keeper(checkouts, index, idle_minutes * 60)
    for checkout in checkouts:
        checkout.on_stale = keeper.wake
    keeper.start()  # before the SDK is imported, which takes as long as reading a small repository
    try:
        _server(Desk(checkouts)).run("stdio")
    finally:
        is_done = keeper.stop(STOP_SECONDS)
    for checkout in checkouts if is_done else ():
        checkout.close()
    sys.stdout.flush()
    os._exit(0)  # the threads that compute a batch end with it, and nobody waits for its vectors


def _server(desk: Desk) -> "MCPServer[object]":
    try:
        from mcp.server.mcpserver import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
        from mcp_types import ToolAnnotations
        from pydantic import Field
    except ImportError as error:
        raise MissingExtra("mcp", "mcp") from error
    server: MCPServer[object] = MCPServer("c2llm", instructions=INSTRUCTIONS, log_level="WARNING")
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    Limit = Annotated[int, Field(ge=1, le=MAX_HITS, description="How many hits.")]
    Folder = Annotated[str | None, Field(description="One of the served folders, where there are several.")]
    Words = Annotated[str, Field(description="What you look for: words, a name, an error message or a stack trace.")]
    Language = Annotated[str | None, Field(description="Only this language, such as python.")]
    Glob = Annotated[str | None, Field(description="Only these files, as in .gitignore, such as src/**/*.py.")]
    Kind = Annotated[str | None, Field(description=f"Only this kind of code: {', '.join(sorted(KINDS))}.")]
    Code = Annotated[str | None, Field(description="A piece of code.")]
    File = Annotated[str | None, Field(description="A path as search_code shows it, instead of code.")]
    Line = Annotated[int, Field(ge=1, description="A line of that file.")]

    def said(answer: Callable[[], str]) -> str:
        try:
            return answer()
        except C2LLMError as error:
            raise ToolError(one_line(str(error))) from error

    @server.tool(annotations=reads, structured_output=False)
    def search_code(
        query: Words,
        limit: Limit = 10,
        folder: Folder = None,
        language: Language = None,
        path: Glob = None,
        kind: Kind = None,
    ) -> str:
        """Find code by what it does, by its name, or by an error message."""
        return said(lambda: desk.search_code(query, limit, folder, language, path, kind))

    @server.tool(annotations=reads, structured_output=False)
    def find_similar(
        code: Code = None, file: File = None, line: Line = 1, limit: Limit = 10, folder: Folder = None
    ) -> str:
        """Find code that resembles a piece of code, or the code at a line of a file."""
        return said(lambda: desk.find_similar(code, file, line, limit, folder))

    @server.tool(annotations=reads, structured_output=False)
    def index_status() -> str:
        """Say what is indexed, how far indexing is, and whether answers may be stale."""
        return said(desk.index_status)

    return server
