"""Exported models, and the environments of what reads them: `make test-onnx` makes both and names the folder."""

import os
import sys
from pathlib import Path

import pytest

from c2llm_integrations.model import onnx_export
from c2llm_integrations.model.onnx_export import export_onnx
from c2llm_integrations.model.options import ModelOptions

READERS = Path(os.environ.get("C2LLM_ONNX_READERS", "no-readers")).absolute()


@pytest.fixture(scope="session")
def fastembed_python() -> Path:
    """The Python of an environment with FastEmbed."""
    python = READERS / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        pytest.skip("FastEmbed is not installed; run make test-onnx")
    return python


@pytest.fixture(scope="session")
def transformers_js() -> Path:
    """The folder of the package transformers.js."""
    package = READERS / "node_modules" / "@huggingface" / "transformers"
    if not package.exists():
        pytest.skip("transformers.js is not installed; run make test-onnx where there is npm")
    return package


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Return the folder that a model is exported to, also in 8 bits; any other than nano with its weights apart."""
    made: dict[str, Path] = {}

    def folder(name: str | Path) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("exported") / "onnx model"
            with pytest.MonkeyPatch.context() as patch:
                if name != "nano":
                    patch.setattr(onnx_export, "LARGEST_FILE_BYTES", 100_000)
                export_onnx(ModelOptions(name=str(name), max_length=96), made[name], int8=True)
        return made[name]

    return folder
