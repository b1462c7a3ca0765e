"""How a call of a tool fails: in one line that an agent can act on. Needs the SDK, so it is imported late."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.context import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp_types import CallToolResult, InputRequiredResult
from pydantic import ValidationError

from c2llm_integrations._utils.printable import one_line
from c2llm_integrations.errors import did_you_mean

# Characters of an argument that a message repeats.
SHOWN_CHARS = 60


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
        known = tool.parameters.get("properties", {})
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


def _said(error: ValidationError) -> str:
    """Return what is wrong with each argument."""
    return "; ".join(
        f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
        + ("" if one["type"] == "missing" else f", got {one['input']!r:.{SHOWN_CHARS}}")
        for one in error.errors(include_url=False)
    )
