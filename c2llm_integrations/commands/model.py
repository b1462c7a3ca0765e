"""Commands about a model alone: `c2llm serve` offers its vectors, `c2llm bench` measures it on this machine."""

from __future__ import annotations

import ipaddress
import os
from typing import Annotated

import typer

from c2llm_integrations import terminal
from c2llm_integrations.commands.opening import load_model
from c2llm_integrations.commands.options import AsJson, FittedProjection, TrainedHead, Truncate
from c2llm_integrations.errors import InputError

KEY_VARIABLE = "C2LLM_API_KEY"

AnyModel = Annotated[str, typer.Option(metavar="ID", help="nano, a folder or a hub id.")]
Device = Annotated[str, typer.Option(metavar="D", help="auto, cpu, cuda, cuda:N, or several: cuda:0,cuda:1.")]


def serve(
    model: AnyModel = "nano",
    host: Annotated[str, typer.Option(metavar="H", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="P", min=1, max=65535, help="Port to listen on.")] = 8000,
    device: Device = "auto",
    truncate: Truncate = None,
    projection: FittedProjection = None,
    head: TrainedHead = None,
) -> int:
    """Serve embeddings as OpenAI's API does: POST /v1/embeddings, besides /v1/models, /health and /metrics.

    With an API key in C2LLM_API_KEY, embedding needs it. Without one, only this machine can be listened to.
    """
    from c2llm_integrations.serve import create_app, require_free, run_server

    key = os.environ.get(KEY_VARIABLE, "").strip() or None
    if key is None and not _is_loopback(host):
        raise InputError(f"{host} can be reached from elsewhere; set {KEY_VARIABLE}, or listen on 127.0.0.1")
    require_free(host, port)
    embedder = load_model(model, None, projection, head, device=device, truncate=truncate)
    terminal.say(f"{embedder.fingerprint['model']}, {embedder.output_dim} dimensions: http://{host}:{port}/v1")
    run_server(create_app(embedder, api_key=key), host, port)
    return 0


def bench(
    model: AnyModel = "nano",
    device: Device = "auto",
    seconds: Annotated[float, typer.Option(metavar="S", help="How long to measure.")] = 120.0,
    as_json: AsJson = False,
) -> int:
    """Measure a model on this machine with real code: tokens a second, share of the peak, memory, best setting.

    The peak is the best that the model's own matrix products reach here. Let nothing else run meanwhile.
    """
    from c2llm_integrations.bench import measure

    found = [one.as_dict() for one in measure(model, seconds, device, terminal.say)]
    if as_json:
        terminal.write_json({"model": model, "settings": found, "best": found[0]})
        return 0
    titles = {
        "dtype": "{}",
        "batch_tokens": "{:,}",
        "tokens_per_second": "{:,.0f}",
        "texts_per_second": "{:,.1f}",
        "peak_tflops": "{:.2f}",
        "mfu": "{:.0%}",
        "query_ms": "{:.1f}",
        "memory_mb": "{:,.0f}",
    }
    lines = [list(titles)]
    lines += [["-" if row[name] is None else form.format(row[name]) for name, form in titles.items()] for row in found]
    widths = [max(len(line[n]) for line in lines) for n in range(len(titles))]
    for line in lines:
        terminal.write("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
