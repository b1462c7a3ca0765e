"""Connections of the embedding server: how many there are, and how long one may be silent."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

# How long a client may take to send the head of a request, which is at most 64 KiB, or to take some of an answer.
HEAD_SECONDS = 10.0
# Processes may often hold no more than 1,024 open files; where none is left, nobody is answered.
MAX_CONNECTIONS = 512


class BoundedConnection(H11Protocol):
    """A connection that is closed while no head of a request arrives, and at once where there are too many others.

    It is cut where nothing of an answer is taken.
    """

    # Bytes of answers that waited at the last look, and to which none were added since.
    _untaken = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.close()
        else:
            self.loop.call_later(HEAD_SECONDS, self._look, None)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`: the client took what waited."""
        super().resume_writing()
        self._untaken = 0

    def _look(self, last: object) -> None:
        """Close the connection if it waits for a head as it did at the last look, after the request `last` or none."""
        is_busy = self.cycle is not None and not self.cycle.response_complete
        now = object() if is_busy else self.cycle
        waiting = self.transport.get_write_buffer_size()
        if 0 < self._untaken <= waiting:
            self.transport.abort()  # closing would wait for the client
            return
        if now is last:
            self.transport.close()
        if waiting or not self.transport.is_closing():
            self._untaken = waiting if self.flow.write_paused or self.transport.is_closing() else 0
            self.loop.call_later(HEAD_SECONDS, self._look, now)
