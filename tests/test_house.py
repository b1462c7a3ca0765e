"""The layers as the imports show them: every module imports downwards, and nothing goes in circles."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = "c2llm_integrations"
ROOT = Path(__file__).parents[1] / PACKAGE
LAYERS = [
    {"errors"},
    {"_utils", "code"},
    {"model", "stores"},
    {"indexing", "retrieval", "qdrant", "milvus"},
    {"langchain", "llama_index", "sentence_transformers", "server", "training"},
    {"cli"},
]
LAYER = {folder: layer for layer, folders in enumerate(LAYERS) for folder in folders}
# A heavy or optional package → where it may be imported at all.
HOMES = {
    "torch": {"model", "training", "sentence_transformers", "server/vllm", "cli/train", "indexing/ray"},
    "transformers": {"model", "training", "sentence_transformers", "server/vllm"},
    "sentence_transformers": {"sentence_transformers", "training", "model"},
    "qdrant_client": {"stores/qdrant"},
    "qdrant_edge": {"stores/qdrant"},
    "pymilvus": {"stores/milvus"},
    "milvus_lite": {"stores/milvus"},
    "langchain_core": {"langchain"},
    "llama_index": {"llama_index"},
    "ray": {"indexing/ray"},
    "vllm": {"server/vllm"},
    "mcp": {"server"},
    "onnx": {"model/onnx_export"},
    "onnx_ir": {"model/onnx_export"},
    "onnxruntime": {"model/onnx_export"},
    "onnxscript": {"model/onnx_export"},
    "starlette": {"server"},
    "tree_sitter": {"code", "training"},
}


def modules() -> dict[str, ast.Module]:
    """Dotted name below the package → its syntax tree."""
    names = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        names[name] = ast.parse(path.read_text(encoding="utf-8"))
    return names


MODULES = modules()


def imported(tree: ast.AST) -> set[str]:
    """Every dotted name that a module's import statements name, wherever they stand."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def own(name: str) -> str | None:
    """The module below the package that an imported dotted name stands for; None for another package's."""
    if name != PACKAGE and not name.startswith(f"{PACKAGE}."):
        return None
    inner = name[len(PACKAGE) + 1 :]
    while inner not in MODULES:
        inner = inner.rpartition(".")[0]
    return inner


def test_the_root_has_the_folders_that_the_design_lists():
    folders = {name.partition(".")[0] for name in MODULES} - {"", "__main__"}
    assert folders <= LAYER.keys(), f"no layer for {sorted(folders - LAYER.keys())}"
    assert len(folders) <= 15


@pytest.mark.parametrize("name", [name for name in MODULES if name and name != "__main__"])
def test_no_module_imports_from_a_layer_above(name):
    folder = name.partition(".")[0]
    targets = {own(target) for target in imported(MODULES[name])} - {None, ""}
    above = {target for target in targets if LAYER[target.partition(".")[0]] > LAYER[folder]}
    assert not above, f"{name} (layer {LAYER[folder]}) imports {sorted(above)}"


def test_no_imports_go_in_circles():
    """Of folders, and of modules by the imports that run when a module loads."""
    folders: dict[str, set[str]] = {}
    for name, tree in MODULES.items():
        folder = name.partition(".")[0]
        if folder not in ("", "__main__"):
            found = {(own(target) or "").partition(".")[0] for target in imported(tree)}
            folders.setdefault(folder, set()).update(found - {folder, ""})
    assert circle_in(folders) is None
    loads = {name: at_load(tree) - {name} for name, tree in MODULES.items() if name}
    assert circle_in(loads) is None


def at_load(tree: ast.Module) -> set[str]:
    """The package's own modules that a module imports when it is loaded, not in a function and not for types only."""
    outside = [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))]
    statements = [node for node in outside if isinstance(node, (ast.Import, ast.ImportFrom, ast.Try))]
    return {own(name) for node in statements for name in imported(node)} - {None, ""}


def circle_in(graph: dict[str, set[str]]) -> list[str] | None:
    """A path that ends where it began, or None."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str] | None:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return None
        found = next(
            (circle for target in sorted(graph.get(node, ())) if (circle := walk(target, [*path, node]))), None
        )
        done.add(node)
        return found

    return next((circle for node in sorted(graph) if (circle := walk(node, []))), None)


@pytest.mark.parametrize("package", HOMES)
def test_a_heavy_package_is_imported_only_at_home(package):
    homes = tuple(home.replace("/", ".") for home in HOMES[package])
    strangers = [
        name
        for name, tree in MODULES.items()
        if any(target.partition(".")[0] == package for target in imported(tree))
        and not any(name == home or name.startswith(f"{home}.") for home in homes)
    ]
    assert not strangers, f"{package} is imported in {strangers}"


# What a user calls by keywords that an editor completes, what another library calls by names of its own, and what runs
# on a GPU, which takes addresses and sizes one by one.
MANY_PARAMETERS = {
    "indexing.ingest.ingest",
    "indexing.ingest_records.ingest_records",
    "retrieval.search.search",
    "langchain.vector_store.__init__",
    "model.embedder.from_pretrained",
    "model.hf_model.__init__",
    "model.fused_kernels._add_norm",
    "model.fused_kernels._rotate",
}


def test_a_function_has_at_most_six_parameters():
    """More are one options object; `self`, `cls`, `*` and `**` do not count."""
    many = {
        f"{name}.{node.name}"
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and len({one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)} - {"self", "cls"})
        > 6
    }
    assert many == MANY_PARAMETERS


def test_an_option_of_the_command_line_is_declared_once():
    """By its help: commands share a class of options, whose fields say what they mean."""
    helps = [
        literal.value
        for name, tree in MODULES.items()
        if name.startswith("cli.") or name.endswith(".options")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("option", "typer.Option")
        for literal in (*node.args[1:2], *(keyword.value for keyword in node.keywords if keyword.arg == "help"))
        if isinstance(literal, ast.Constant) and isinstance(literal.value, str) and not literal.value.startswith("-")
    ]
    assert sorted(helps) == sorted(set(helps))


def test_nothing_is_imported_before_the_current_folder_is_off_the_path():
    """`python -m` runs the package and then its `__main__`; even __future__ would be taken from the current folder."""
    for name, allowed in (("__init__.py", []), ("__main__.py", ["sys"])):
        body = ast.parse((ROOT / name).read_text()).body
        imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert [alias.name for node in imports for alias in node.names] == allowed


def test_advice_never_runs_a_module_of_the_current_folder():
    """`python -m` takes a c2llm_integrations.py that stands there; only the line that warns of it may say so."""
    here = [*ROOT.rglob("*.py"), *ROOT.rglob("*.md"), *ROOT.parent.glob("*.md"), *ROOT.parent.glob("docs/*.md")]
    wild = re.compile(rf"(?<!-I )-m\s+{PACKAGE}")
    assert {file.name for file in here if wild.search(file.read_text("utf-8"))} == {"security.md"}
