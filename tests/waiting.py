"""Waiting for what another thread or process does: a true value, a port that is listened on."""

import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any


def until(look: Callable[[], Any], seconds: float = 120) -> Any:
    """Return the first true value of `look`; the time only bounds a test that would hang."""
    deadline = time.monotonic() + seconds
    while not (value := look()):
        assert time.monotonic() < deadline, f"nothing came within {seconds} s"
        time.sleep(0.02)
    return value


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def until_listening(port: int, process: subprocess.Popen[Any]) -> None:
    """Wait until a process that was just started accepts connections."""

    def look() -> bool:
        assert process.poll() is None, "the server ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    until(look)
