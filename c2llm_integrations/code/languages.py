"""File name → language → grammar."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module

from tree_sitter import Language

# Languages of running text, where a paragraph may be one line.
PROSE = frozenset({"markdown", "rst", "asciidoc", "tex", "org", "text"})

_SUFFIXES = {
    "python": "py pyi pyw",
    "javascript": "js mjs cjs jsx",
    "typescript": "ts mts cts",
    "tsx": "tsx",
    "go": "go",
    "java": "java",
    "rust": "rs",
    "c": "c h",
    "cpp": "cc cpp cxx c++ hh hpp hxx h++ ipp inl tpp txx",
    "cuda": "cu cuh",
    "csharp": "cs csx",
    "ruby": "rb rake gemspec ru podspec",
    "php": "php phtml php5 inc",
    "shell": "sh bash zsh ksh bats",
    "fish": "fish",
    "powershell": "ps1 psm1 psd1",
    "batch": "bat cmd",
    "sql": "sql ddl",
    "kotlin": "kt kts",
    "scala": "scala sc sbt",
    "swift": "swift",
    "objectivec": "m mm",
    "dart": "dart",
    "lua": "lua",
    "perl": "pl pm",
    "r": "r",
    "julia": "jl",
    "haskell": "hs lhs",
    "ocaml": "ml mli",
    "fsharp": "fs fsx fsi",
    "elixir": "ex exs",
    "erlang": "erl hrl",
    "clojure": "clj cljs cljc edn",
    "lisp": "el lisp cl scm rkt",
    "groovy": "groovy gradle",
    "zig": "zig",
    "nim": "nim",
    "fortran": "f f90 f95 f03",
    "assembly": "s asm",
    "vue": "vue",
    "svelte": "svelte",
    "html": "html htm xhtml",
    "css": "css",
    "scss": "scss sass",
    "less": "less",
    "json": "json json5 jsonc ipynb",
    "yaml": "yaml yml",
    "toml": "toml",
    "xml": "xml xsd xsl xslt svg csproj props targets",
    "ini": "ini cfg conf properties",
    "protobuf": "proto",
    "graphql": "graphql gql",
    "terraform": "tf hcl",
    "nix": "nix",
    "cmake": "cmake",
    "makefile": "mk mak",
    "dockerfile": "dockerfile",
    "vim": "vim",
    "markdown": "md markdown mdx",
    "rst": "rst",
    "asciidoc": "adoc asciidoc",
    "org": "org",
    "tex": "tex sty cls bib",
    "text": "txt text",
}
_BY_SUFFIX = {suffix: language for language, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
_BY_NAME = {
    "makefile": "makefile",
    "gnumakefile": "makefile",
    "dockerfile": "dockerfile",
    "containerfile": "dockerfile",
    "cmakelists.txt": "cmake",
    "gemfile": "ruby",
    "rakefile": "ruby",
    "podfile": "ruby",
    "vagrantfile": "ruby",
    "sconstruct": "python",
    "sconscript": "python",
    "jenkinsfile": "groovy",
    "go.mod": "go.mod",
    ".bashrc": "shell",
    ".bash_profile": "shell",
    ".profile": "shell",
    ".zshrc": "shell",
    ".vimrc": "vim",
    ".gitignore": "ini",
    ".gitconfig": "ini",
    ".editorconfig": "ini",
}
_BY_INTERPRETER = {
    "python": "python",
    "pypy": "python",
    "node": "javascript",
    "nodejs": "javascript",
    "bun": "typescript",
    "deno": "typescript",
    "ts-node": "typescript",
    "tsx": "typescript",
    "ruby": "ruby",
    "php": "php",
    "perl": "perl",
    "lua": "lua",
    "Rscript": "r",
    "pwsh": "powershell",
    "fish": "fish",
    **dict.fromkeys(("sh", "bash", "zsh", "ksh", "dash", "ash", "bats"), "shell"),
}
# Every name that `language_of` gives.
LANGUAGES = frozenset((*_BY_SUFFIX.values(), *_BY_NAME.values(), *_BY_INTERPRETER.values()))
_SHEBANG = re.compile(r"#!\s*(?:\S*/)?(?:env\s+(?:-\S+\s+|\w+=\S*\s+)*)?(?:\S*/)?([A-Za-z-]+)")
# A .h file is C unless it says one of these at the start of a line.
_CPP_HEADER = re.compile(
    r"^\s*(?:class\s+\w|namespace\b|template\s*<|using\s|(?:public|private|protected)\s*:|#include\s*<\w+>)", re.M
)

# Language → (module that ships the grammar, its function). tree-sitter-typescript and -php hold two each.
_GRAMMARS = {
    "python": ("tree_sitter_python", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "go": ("tree_sitter_go", "language"),
    "java": ("tree_sitter_java", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "cuda": ("tree_sitter_cpp", "language"),
    "csharp": ("tree_sitter_c_sharp", "language"),
    "ruby": ("tree_sitter_ruby", "language"),
    "php": ("tree_sitter_php", "language_php"),
}


def language_of(path: str, text: str = "") -> str:
    """Return a file's language in lower case: by its name, else its "#!" line, else "text".

    `text` tells C++ headers from C, and Qt's .ts translations from TypeScript.
    """
    name = path.rpartition("/")[2].lower()
    stem, dot, suffix = name.rpartition(".")
    language = _BY_NAME.get(name) or (_BY_SUFFIX.get(suffix) if dot else None)
    if language == "c" and suffix == "h" and _CPP_HEADER.search(text):
        return "cpp"
    if language == "typescript" and text.startswith("<?xml"):
        return "xml"
    if language is None and stem.startswith("dockerfile"):
        return "dockerfile"
    if language is None and (match := _SHEBANG.match(text)):
        return _BY_INTERPRETER.get(match[1].rstrip("-"), "text")
    return language or "text"


@cache
def grammar(language: str) -> Language | None:
    """Return the tree-sitter grammar of a language, or None where this package has none."""
    home = _GRAMMARS.get(language)
    if home is None:
        return None
    module, function = home
    return Language(getattr(import_module(module), function)())
