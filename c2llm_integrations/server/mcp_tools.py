"""What an agent may ask: the tools of the MCP server, their parameters, and how a call fails.

Needs the SDK, so it is imported late.
"""

# The SDK reads the annotations of the tools below at run time, so they stand here as they are.
from collections.abc import Callable
from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.context import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp_types import CallToolResult, InputRequiredResult, ToolAnnotations
from pydantic import Field, ValidationError

from c2llm_integrations._utils.printable import one_line, shortened
from c2llm_integrations.code.chunk import KINDS
from c2llm_integrations.code.path_filter import MAX_FILTER_CHARS
from c2llm_integrations.errors import C2LLMError, did_you_mean
from c2llm_integrations.server.mcp_answers import MAX_HITS, SearchTools

# Characters of an error, which may repeat what was asked.
MAX_ERROR_CHARS = 2000
# Characters of an argument that a message repeats.
SHOWN_CHARS = 60


def _filter(description: str) -> object:
    return Field(max_length=MAX_FILTER_CHARS, description=description)


Words = Annotated[str, Field(description="What you look for: words, a name, an error message or a stack trace.")]
Limit = Annotated[int, Field(ge=1, le=MAX_HITS, description="How many hits.")]
Folder = Annotated[str | None, _filter("One of the served folders, where there are several.")]
Language = Annotated[str | None, _filter("Only this language, such as python.")]
Glob = Annotated[str | None, _filter("Only these files: a path as shown, or a pattern such as src/**/*.py.")]
Kind = Annotated[str | None, _filter(f"Only this kind of code: {', '.join(sorted(KINDS))}.")]
Code = Annotated[str | None, Field(description="A piece of code.")]
File = Annotated[str | None, _filter("A path as search_code shows it, instead of code.")]
Line = Annotated[int, Field(ge=1, description="A line of that file.")]


class OneLineServer(MCPServer[object]):
    """A server that refuses arguments that a tool does not have, which the SDK drops, and says errors in one line."""

    def refuse_unknown(self) -> None:
        """Declare in the schema of each tool that it takes no other arguments, which `call_tool` refuses."""
        for tool in self._tool_manager.list_tools():
            tool.parameters["additionalProperties"] = False

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[object, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; see `MCPServer.call_tool`."""
        tool = self._tool_manager.get_tool(name)
        if tool is None:
            tools = [one.name for one in self._tool_manager.list_tools()]
            raise ToolError(one_line(f"there is no tool {name!r:.{SHOWN_CHARS}}{did_you_mean(name, tools)}"))
        known, needed = (tool.parameters.get(name, ()) for name in ("properties", "required"))
        # Some agents send every argument, null or blank where they mean none.
        arguments = {key: value for key, value in arguments.items() if key in needed or not _is_blank(value)}
        for unknown in arguments.keys() - known.keys():
            said = f"{name} has no argument {unknown!r:.{SHOWN_CHARS}}{did_you_mean(unknown, known)}"
            raise ToolError(one_line(said if known else f"{said}, it takes none"))
        try:
            return await super().call_tool(name, arguments, context)
        except UnexpectedToolError:  # names the tool alone, and is logged with its trace
            raise
        except ToolError as error:
            cause = error.__cause__
            said = f"{name}: {_said(cause)}" if isinstance(cause, ValidationError) else str(error)
            raise ToolError(one_line(said)) from cause


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _said(error: ValidationError) -> str:
    """Return what is wrong with each argument."""
    return "; ".join(
        f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
        + ("" if one["type"] == "missing" else f", got {one['input']!r:.{SHOWN_CHARS}}")
        for one in error.errors(include_url=False)
    )


def add_tools(server: OneLineServer, tools: SearchTools) -> None:
    """Offer the tools on a server."""
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)

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
        return _told(lambda: tools.search_code(query, limit, folder, language, path, kind))

    @server.tool(annotations=reads, structured_output=False)
    def find_similar(
        code: Code = None, file: File = None, line: Line = 1, limit: Limit = 10, folder: Folder = None
    ) -> str:
        """Find code that resembles a piece of code, or the code at a line of a file."""
        return _told(lambda: tools.find_similar(code, file, line, limit, folder))

    @server.tool(annotations=reads, structured_output=False)
    def index_status() -> str:
        """Report what is indexed, how far indexing is, and whether answers may be stale."""
        return _told(tools.index_status)

    server.refuse_unknown()


def _told(answer: Callable[[], str]) -> str:
    """Return an answer; what fails is an error of the tool, in one line."""
    try:
        return answer()
    except (C2LLMError, OSError) as error:  # files may be moved while they are looked at
        raise ToolError(shortened(str(error), MAX_ERROR_CHARS)) from error
