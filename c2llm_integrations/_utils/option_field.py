"""Fields of an options class that the command line offers too."""

from __future__ import annotations

from dataclasses import field
from typing import Any

# The key of a field's metadata under which the command line finds what is said here.
CLI = "cli"


def option(default: Any, help: str, **more: Any) -> Any:
    """Return a dataclass field that is an option of each command that takes its class.

    Args:
        default: The field's default; `dataclasses.MISSING` for one that must be given.
        help: What the option means, in one line.
        more: What typer's `Option` takes, such as `metavar` and `min`; besides `flag`, its name where that is not the
            field's, and `cli_default`, where the command line has another default than Python.

    """
    return field(default=default, metadata={CLI: {"help": help, **more}})
