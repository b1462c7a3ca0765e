"""Search for coding agents: a server of the Model Context Protocol on standard input and output (extra `mcp`)."""

# The SDK reads the annotations of the tools below at run time, so they stand here as they are.
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from c2llm_integrations._utils.printable import shortened
from c2llm_integrations.code.chunk import KINDS
from c2llm_integrations.errors import C2LLMError, MissingExtra
from c2llm_integrations.server.background_indexing import BackgroundIndexer
from c2llm_integrations.server.live_index import LiveIndex, LiveIndexConfig
from c2llm_integrations.server.mcp_answers import MAX_HITS, SearchTools

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

# Minutes without a question after which the model is unloaded.
IDLE_MINUTES = 10.0
# How long the end of the server waits for the end of a run, which the next one takes up where it stopped.
STOP_SECONDS = 1.5
# Characters of a filter: each row's path is compared with all of a pattern.
MAX_FILTER = 4096
# Characters of an error, which may repeat what was asked.
MAX_ERROR = 2000

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
    """Answer until standard input ends. Threads that still compute may be left when it returns.

    Args:
        folders: What may be searched; no file outside is read.
        store: The store's URL, by default each repository's own index.
        collection: Name of the collection.
        model: That of a collection yet to be made, by default nano.
        index: Whether to embed what is new or stale meanwhile.
        idle_minutes: Without a question for so long, the model is unloaded.

    Raises:
        RepositoryError: For a folder that cannot be listed.
        MissingExtra: Without the SDK.

    """
    configs = [
        LiveIndexConfig(folder=folder, store=store, collection=collection, model=model)
        for folder in dict.fromkeys(map(Path.resolve, folders))
    ]
    indexes = [LiveIndex(config) for config in configs]
    indexer = BackgroundIndexer(indexes, index, idle_minutes * 60)
    indexer.start()  # before the SDK is imported, which takes as long as reading a small repository
    try:
        server = _server(SearchTools(indexes))
        from c2llm_integrations.server.mcp_stdio import guard_streams  # needs the SDK

        guard_streams()
        server.run("stdio")
    finally:
        has_stopped = indexer.stop(STOP_SECONDS)
    for one in indexes if has_stopped else ():
        one.close()


def _server(tools: SearchTools) -> "MCPServer[object]":
    try:
        from mcp.server.mcpserver.exceptions import ToolError
        from mcp_types import ToolAnnotations
        from pydantic import Field

        from c2llm_integrations.server.mcp_calls import OneLineServer
    except ImportError as error:
        raise MissingExtra("mcp", "mcp") from error
    server = OneLineServer("c2llm", instructions=INSTRUCTIONS, log_level="WARNING")
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    Limit = Annotated[int, Field(ge=1, le=MAX_HITS, description="How many hits.")]
    Folder = Annotated[
        str | None, Field(max_length=MAX_FILTER, description="One of the served folders, where there are several.")
    ]
    Words = Annotated[str, Field(description="What you look for: words, a name, an error message or a stack trace.")]
    Language = Annotated[str | None, Field(max_length=MAX_FILTER, description="Only this language, such as python.")]
    Glob = Annotated[
        str | None,
        Field(
            max_length=MAX_FILTER, description="Only these files: a path as shown, or a pattern such as src/**/*.py."
        ),
    ]
    Kind = Annotated[
        str | None, Field(max_length=MAX_FILTER, description=f"Only this kind of code: {', '.join(sorted(KINDS))}.")
    ]
    Code = Annotated[str | None, Field(description="A piece of code.")]
    File = Annotated[
        str | None, Field(max_length=MAX_FILTER, description="A path as search_code shows it, instead of code.")
    ]
    Line = Annotated[int, Field(ge=1, description="A line of that file.")]

    def said(answer: Callable[[], str]) -> str:
        try:
            return answer()
        except (C2LLMError, OSError) as error:  # files may be moved while they are looked at
            raise ToolError(shortened(str(error), MAX_ERROR)) from error

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
        return said(lambda: tools.search_code(query, limit, folder, language, path, kind))

    @server.tool(annotations=reads, structured_output=False)
    def find_similar(
        code: Code = None, file: File = None, line: Line = 1, limit: Limit = 10, folder: Folder = None
    ) -> str:
        """Find code that resembles a piece of code, or the code at a line of a file."""
        return said(lambda: tools.find_similar(code, file, line, limit, folder))

    @server.tool(annotations=reads, structured_output=False)
    def index_status() -> str:
        """Say what is indexed, how far indexing is, and whether answers may be stale."""
        return said(tools.index_status)

    server.refuse_unknown()
    return server
