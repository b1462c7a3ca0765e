"""`c2llm export-onnx`: write a model for other runtimes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from c2llm_integrations.cli import terminal
from c2llm_integrations.cli.options import command
from c2llm_integrations.model.options import ModelOptions


@dataclass(frozen=True, kw_only=True)
class ExportedModel(ModelOptions):
    """The dimensions of an exported model, which is read on the CPU."""

    device: str = "cpu"


@command
def export_onnx(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="nano, a folder or a hub id.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write, new or empty.")],
    options: ExportedModel,
    int8: Annotated[bool, typer.Option("--int8", help="Also write it with weights of 8 bits.")] = False,
) -> int:
    """Write a model as ONNX for ONNX Runtime, OpenVINO, FastEmbed and transformers.js: tokens in, vectors out.

    The tokenizer and the prompts stand beside onnx/model.onnx; callers put the prompts in front of texts themselves.
    """
    from c2llm_integrations.model.onnx_export import export_onnx as export

    cosines = export(replace(options, name=model), out, int8=int8)
    terminal.write(str(out))
    for name, cosine in cosines.items():
        terminal.say(f"onnx/{name}: cosine to the vectors computed here at least {cosine:.4f}, of a few texts")
    return 0
