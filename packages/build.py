"""Build the thin packages by which users of a framework find the adapters, as wheels: python packages/build.py [FOLDER]

Each holds one module that gives out names of c2llm-integrations, and requires exactly the release that it was built
with. Nothing is downloaded.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Thin:
    """A package `distribution` whose `module` gives out `names` of c2llm_integrations.`source`, None for all."""

    distribution: str
    module: str
    source: str
    extra: str
    names: tuple[str, ...] | None = None


PACKAGES = (
    Thin("langchain-c2llm", "langchain_c2llm", "langchain", "langchain"),
    Thin(
        "llama-index-embeddings-c2llm",
        "llama_index.embeddings.c2llm",
        "llama_index",
        "llama-index",
        ("C2LLMEmbedding",),
    ),
    Thin(
        "llama-index-vector-stores-c2llm",
        "llama_index.vector_stores.c2llm",
        "llama_index",
        "llama-index",
        ("C2LLMVectorStore", "sparse_doc_fn", "sparse_query_fn"),
    ),
)

# Names are looked up when they are used: some need a further package of the framework.
MODULE = '''"""C2LLM for {framework}: names of `c2llm_integrations.{source}`, which documents them."""

from typing import TYPE_CHECKING

import c2llm_integrations.{source} as _source

if TYPE_CHECKING:
    from c2llm_integrations.{source} import {names}

__all__ = {listed}


def __getattr__(name: str) -> object:
    """Return a public name of the package behind this one."""
    if name not in __all__:
        raise AttributeError(f"module {{__name__!r}} has no attribute {{name!r}}")
    return getattr(_source, name)


def __dir__() -> list[str]:
    return __all__
'''

PROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{distribution}"
version = "{version}"
description = "C2LLM code embeddings for {framework}"
readme = "README.md"
requires-python = ">=3.10"
license = "Apache-2.0"
license-files = ["LICENSE"]
dependencies = ["c2llm-integrations[{extra}]=={version}"]

[tool.setuptools]
packages = ["{module}"]

[tool.setuptools.package-data]
"{module}" = ["py.typed"]
"""

README = """# {distribution}

[C2LLM](https://arxiv.org/abs/2512.21332) code embeddings for {framework}. Everything is in
`c2llm-integrations`; this package gives it the name that {framework} users look for.

```python
from {module} import {first}
```

It holds {names}.
"""


def build(package: Thin, out: Path) -> None:
    """Build one wheel into a folder."""
    version = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[0]
    names = package.names or _public(ROOT / "c2llm_integrations" / package.source / "__init__.py")
    said = {
        **vars(package),
        "version": version,
        "framework": {"langchain": "LangChain", "llama_index": "LlamaIndex"}[package.source],
        "first": names[0],
        "listed": list(names),
        "names": ", ".join(names),
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        module = folder.joinpath(*package.module.split("."))
        module.mkdir(parents=True)
        (module / "py.typed").touch()
        (module / "__init__.py").write_text(MODULE.format_map(said), encoding="utf-8")
        (folder / "pyproject.toml").write_text(PROJECT.format_map(said), encoding="utf-8")
        (folder / "README.md").write_text(README.format_map(said), encoding="utf-8")
        shutil.copy(ROOT / "LICENSE", folder)
        options = ("--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir")
        subprocess.run([sys.executable, "-m", "pip", "wheel", *options, out.resolve(), folder], check=True)


def _public(file: Path) -> tuple[str, ...]:
    """Return what a module's `__all__` lists, without importing it."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return tuple(ast.literal_eval(node.value))
    raise ValueError(f"{file} has no __all__")


if __name__ == "__main__":
    for package in PACKAGES:
        build(package, Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "dist"))
