"""The embedding server on a real socket of this machine, in a thread of the test's."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.server.openai_api import BoundedConnection, create_app
from tests.waiting import until


@contextmanager
def served(embedder: C2LLMEmbedder, **options: Any) -> Iterator[str]:
    """Serve while the block runs; `options` are `create_app`'s. Yields the address, without /v1."""
    app = create_app(embedder, **options)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", http=BoundedConnection))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
