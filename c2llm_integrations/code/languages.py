"""Map file names to languages, languages to grammars, and the names people use to the languages of rows.

The table has the languages that have a grammar here, a name of their own or a suffix of their own; Pygments knows the
others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from tree_sitter import Language

from c2llm_integrations.code import notebook

# Languages of running text, where a paragraph may be one line.
PROSE = frozenset({"markdown", "rst", "asciidoc", "tex", "org", "typst", "text"})

# Languages whose only suffix is their name.
_OWN = """
    tsx go java fish swift dart lua r zig nim vue svelte css less toml nix cmake dockerfile vim rst org astro ejs
    asp tla metal bicep cue dhall pkl move cairo yul ring gml jai mojo wit mlir pli wdl just pine abnf
"""
# Language → suffixes.
_SUFFIXES = {
    **{name: name for name in _OWN.split()},
    "python": "py pyi pyw bzl star starlark smk gyp xsh",
    "javascript": "js mjs cjs jsx gs",
    "typescript": "ts mts cts",
    "rust": "rs",
    "c": "c h",
    "cpp": "cc cpp cxx c++ hh hpp hxx h++ ipp inl tpp txx",
    "cuda": "cu cuh",
    "csharp": "cs csx",
    "ruby": "rb rake gemspec ru podspec",
    "php": "php phtml php5 inc",
    "shell": "sh bash zsh ksh bats",
    "powershell": "ps1 psm1 psd1",
    "batch": "bat cmd",
    "sql": "sql ddl pks pkb pls plsql tsql psql prc hql",
    "kotlin": "kt kts",
    "scala": "scala sc sbt",
    "objectivec": "m mm",
    "perl": "pl pm plx t",
    "julia": "jl",
    "haskell": "hs lhs",
    "ocaml": "ml mli",
    "fsharp": "fs fsx fsi",
    "elixir": "ex exs",
    "erlang": "erl hrl",
    "clojure": "clj cljs cljc edn",
    "lisp": "el lisp cl scm rkt",
    "groovy": "groovy gradle",
    "fortran": "f f90 f95 f03 f77 for f08",
    "assembly": "s asm",
    "html": "html htm xhtml",
    "scss": "scss sass",
    "json": "json json5 jsonc",
    "yaml": "yaml yml cwl",
    "xml": "xml xsd xsl xslt svg csproj props targets config nuspec ps1xml mjml plist xaml resx vcxproj",
    "ini": "ini cfg conf properties",
    "protobuf": "proto",
    "graphql": "graphql gql",
    "terraform": "tf hcl",
    "makefile": "mk mak am",
    "markdown": "md markdown mdx mkd mkdn mdown livemd qmd rmd",
    "asciidoc": "adoc asciidoc",
    "tex": "tex sty bib",
    "text": "txt text textile mediawiki wiki creole rdoc pod texi texinfo",
    # Suffixes that Pygments does not know, or gives to several languages.
    "apex": "cls trigger apex",
    "vb": "vb bas frm ctl",
    "verilog": "v vh",
    "gdscript": "gd",
    "turtle": "ttl",
    "prolog": "pro",
    "razor": "cshtml razor",
    "erb": "erb rhtml",
    "handlebars": "hbs handlebars mustache",
    "jinja": "j2 jinja jinja2 njk",
    "coffeescript": "coffee litcoffee",
    "rescript": "res resi",
    "glsl": "glsl vert frag geom comp shader",
    "hlsl": "hlsl fx cg usf ush",
    "antlr": "g4",
    "yacc": "y yy yxx",
    "lex": "l ll lxx",
    "m4": "m4 ac",
    "dafny": "dfy",
    "gnuplot": "gp gnuplot plt",
    "processing": "pde",
    "heex": "heex leex",
    "gherkin": "feature gherkin",
    "inno": "iss",
    "nushell": "nu",
    "forth": "forth 4th fth",
    "squirrel": "nut",
    "flatbuffers": "fbs",
    "avro": "avdl",
    "rpg": "rpg rpgle sqlrpgle",
    "control-language": "clle clp",
    "nextflow": "nf",
    "gn": "gn gni",
    "blueprint": "bp",
    "linkerscript": "ld lds",
    "spss": "sps",
    "mql": "mq4 mq5 mqh",
    "raku": "raku rakumod rakutest",
}


def inverted(words: dict[str, str]) -> dict[str, str]:
    """Return each word with the key of its list."""
    return {word: key for key, several in words.items() for word in several.split()}


_BY_SUFFIX = inverted(_SUFFIXES)
_BY_NAME = inverted(
    {
        "makefile": "makefile gnumakefile bsdmakefile kbuild",
        "dockerfile": "dockerfile containerfile",
        "cmake": "cmakelists.txt",
        "ruby": "gemfile rakefile podfile vagrantfile brewfile fastfile appfile matchfile deliverfile dangerfile"
        " capfile guardfile berksfile thorfile puppetfile cheffile steepfile",
        "python": "sconstruct sconscript snakefile tiltfile wscript",
        "lisp": "dune dune-project dune-workspace",
        "groovy": "jenkinsfile",
        "just": "justfile",
        "earthly": "earthfile",
        "kconfig": "kconfig",
        "go.mod": "go.mod",
        "shell": ".bashrc .bash_profile .profile .zshrc apkbuild pkgbuild",
        "vim": ".vimrc",
        "ini": ".gitignore .gitconfig .editorconfig",
    }
)
_BY_INTERPRETER = inverted(
    {
        "python": "python pypy",
        "javascript": "node nodejs",
        "typescript": "bun deno ts-node tsx",
        "ruby": "ruby",
        "php": "php",
        "perl": "perl",
        "lua": "lua",
        "r": "Rscript",
        "powershell": "pwsh",
        "fish": "fish",
        "shell": "sh bash zsh ksh dash ash bats",
    }
)
# The names in the tables; for other languages `language_of` returns Pygments' own.
LANGUAGES = frozenset(("matlab", "coq", "vlang", *_BY_SUFFIX.values(), *_BY_NAME.values(), *_BY_INTERPRETER.values()))
# Suffixes of several languages: who shares one is not the language that it has here.
_SHARED = frozenset(("def", "gd", "gs", "ttl", "v"))
# Names that editors and people use for a language, and that are neither a suffix nor known to Pygments.
_CALLED = inverted(
    {
        "cpp": "cplusplus",
        "javascript": "es ecmascript javascriptreact",
        "react": "react reactjs",
        "tsx": "typescriptreact",
        "vue": "vuejs",
        "matlab": "octave",
        "objectivec": "objectivecpp objectivec++",
        "csharp": "net dotnet",
        "sql": "mysql mariadb sqlite sqlite3 mssql postgres postgresql psql pgsql plpgsql plsql tsql transactsql",
        "shell": "shellscript terminal",
        "vb": "visualbasic vbnet vba",
        "coq": "coq rocq rocqprover",
        "vlang": "vlang",
        "text": "plaintext plain",
    }
)
# A name that stands for others too: most TypeScript of a React project is in .tsx files.
_TOGETHER = {"typescript": ("typescript", "tsx"), "react": ("javascript", "tsx")}
# Linux reads no more of a first line; the bound also keeps the pattern's time small.
_SHEBANG_CHARS = 256
_SHEBANG = re.compile(r"#!\s*(?:\S*/)?(?:env\s+(?:-\S+\s+|\w+=\S*\s+)*)?(?:\S*/)?([A-Za-z-]+)")
# A .cls file is Apex unless it begins like a class of TeX or of Visual Basic.
_TEX_CLASS = re.compile(r"^[ \t]*(?:%|\\[a-zA-Z@]+)", re.M)
_VB_CLASS = re.compile(
    r"VERSION 1\.0 CLASS|Attribute VB_Name|^[ \t]*Option[ \t]+(?:Explicit|Compare|Base)\b", re.I | re.M
)
# A .v file is Verilog unless it says one of these at the start of a line.
_OTHER_V = {
    "coq": re.compile(r"^[ \t]*(?:(?:From \S+ )?Require|Theorem|Lemma|Inductive|Fixpoint|Definition|Proof)\b", re.M),
    "vlang": re.compile(r"^(?:pub )?(?:fn \w*[ (]|struct \w+ ?\{|enum \w+ ?\{|module \w+$|import [\w.]+$)", re.M),
}
# A .m file is Objective-C if it says one of these at the start of a line, else MATLAB.
_OBJECTIVE_C = re.compile(r"^[ \t]*(?:#\s?(?:import|include|pragma|define)\b|@\w|//|/\*|[-+] ?\()", re.M)
# A .h file is C unless it says one of these at the start of a line.
_CPP_HEADER = re.compile(
    r"^[ \t]*(?:class\s+\w|namespace\b|template\s*<|using\s|(?:public|private|protected)\s*:|#include\s*<\w+>)", re.M
)

# Of a folder's files, how many of one missing grammar are worth a line to the user.
_TELLING_SHARE = 0.1
_INSTALL = 'pip install "c2llm-integrations[languages]"'

# Languages that have a grammar, and those that get one with the extra `languages`, whose grammars are 54 MB; without it
# these files are cut by lines.
_GRAMMARS = {
    *("python", "javascript", "typescript", "tsx", "go", "java", "rust", "c", "cpp", "cuda", "csharp", "ruby", "php"),
}
_EXTRA_GRAMMARS = {
    *("kotlin", "scala", "swift", "elixir", "shell", "lua", "sql"),
    *("html", "zig", "haskell", "ocaml", "julia", "svelte", "vue"),
}
# The module that ships a language's grammar, where it is called otherwise, and the grammar's name where it holds two.
_MODULES = {"tsx": "typescript", "cuda": "cpp", "csharp": "c_sharp", "shell": "bash", "vue": "html"}
_OF_TWO = frozenset(("typescript", "tsx", "php", "ocaml"))


class _Lexers(NamedTuple):
    """The tables of Pygments: lower-case file name, suffix, and name or alias, each → language."""

    names: dict[str, str]
    suffixes: dict[str, str]
    aliases: dict[str, str]


@cache
def _lexers() -> _Lexers:
    from pygments.lexers import get_all_lexers  # reads a table, loads no lexer

    found = _Lexers({}, {}, {})
    for title, aliases, patterns, _ in get_all_lexers(plugins=False):
        if not aliases:
            continue
        suffixes = [one[2:].lower() for one in patterns if re.fullmatch(r"\*\.\w+", one)]
        ours = [name for name in aliases if name in LANGUAGES]
        ours += [_BY_SUFFIX[suffix] for suffix in suffixes if suffix in _BY_SUFFIX and suffix not in _SHARED]
        language = ours[0] if ours else aliases[0]
        for suffix in suffixes:
            found.suffixes.setdefault(suffix, language)
        names = [pattern.lower() for pattern in patterns if "*" not in pattern]
        taken = [_BY_SUFFIX.get(one) or found.suffixes[one] for one in suffixes]
        if taken and not names and language not in taken:
            language = taken[0]  # that is what its files are called
        for name in names:
            found.names.setdefault(name, language)
        for name in (*aliases, title):
            found.aliases.setdefault(_plain(name), language)
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\s._*/-]+", "", name.lower())


def languages_called(name: str) -> tuple[str, ...]:
    """Return the languages meant by a name, a suffix or an interpreter; () for an unknown one.

    "TypeScript" stands for the .tsx files too, "tsx" for these alone.
    """
    key, known = _plain(name), _lexers()
    ours = {_plain(one): one for one in LANGUAGES}
    for word in filter(None, (key, key.removesuffix("lang"), key.removesuffix("script"), key.rstrip("0123456789"))):
        for table in (_CALLED, ours, _BY_SUFFIX, known.aliases, known.suffixes, _BY_INTERPRETER):
            if word in table:
                return _TOGETHER.get(table[word], (table[word],))
    return ()


def language_of(path: str, text: str = "") -> str:
    """Return a file's language in lower case: by its name, else its "#!" line, else "text".

    `text` decides between C and C++ headers, MATLAB and Objective-C, TypeScript and Qt's .ts translations, and the
    kinds of .cls and .v file.
    """
    name = path.rpartition("/")[2].lower()
    if name.endswith(notebook.SUFFIX):
        return notebook.language_of_script(text) or "json"
    stem, dot, suffix = name.rpartition(".")
    language = _BY_NAME.get(name) or (_BY_SUFFIX.get(suffix) if dot else None)
    if language == "c" and suffix == "h" and _CPP_HEADER.search(text):
        return "cpp"
    if suffix == "m" and text and not _OBJECTIVE_C.search(text):
        return "matlab"
    if suffix == "v":
        return next((one for one, says in _OTHER_V.items() if says.search(text)), "verilog")
    if language == "typescript" and text.startswith("<?xml"):
        return "xml"
    if language == "apex" and suffix == "cls" and text:
        return "tex" if _TEX_CLASS.match(text.lstrip()) else "vb" if _VB_CLASS.search(text[:2000]) else "apex"
    if language is None and stem.startswith("dockerfile"):
        return "dockerfile"
    if language is None and (match := _SHEBANG.match(text[:_SHEBANG_CHARS])):
        return _BY_INTERPRETER.get(match[1].rstrip("-"), "text")
    return language or _lexers().names.get(name) or (_lexers().suffixes.get(suffix) if dot else None) or "text"


def is_prose(path: str, language: str) -> bool:
    """Return whether a file is running text, as one of an unknown kind is unless it has a suffix or is a "…file"."""
    if language != "text":
        return language in PROSE
    _, dot, suffix = path.rpartition("/")[2].lower().rpartition(".")
    return suffix in _SUFFIXES["text"].split() if dot else not suffix.endswith("file")


@cache
def grammar(language: str) -> Language | None:
    """Return the tree-sitter grammar of a language, or None where there is none, or its package is not installed."""
    if language not in _GRAMMARS | _EXTRA_GRAMMARS or is_missing(language):
        return None
    function = f"language_{language}" if language in _OF_TWO else "language"
    return Language(getattr(import_module(_module_of(language)), function)())


def grammar_modules() -> list[str]:
    """Return the modules that grammars come from, installed or not."""
    return sorted(set(map(_module_of, _GRAMMARS | _EXTRA_GRAMMARS)))


def _module_of(language: str) -> str:
    return f"tree_sitter_{_MODULES.get(language, language)}"


@cache
def is_missing(language: str) -> bool:
    """Return whether the extra `languages` would bring a grammar of this language, which is not installed."""
    return language in _EXTRA_GRAMMARS and find_spec(_module_of(language)) is None


def missing_grammars_note(paths: Sequence[str]) -> str | None:
    """Return which package to install, if many files are cut by lines because their grammar is missing."""
    suffixes = Counter(path.rpartition("/")[2].rpartition(".")[2].lower() for path in paths)
    counts: Counter[str] = Counter()
    for suffix, number in suffixes.items():
        if (language := _BY_SUFFIX.get(suffix)) and is_missing(language):
            counts[language] += number
    told = sorted(language for language, number in counts.items() if number >= _TELLING_SHARE * len(paths))
    if not told:
        return None
    files = sum(counts[language] for language in told)
    return f"{files:,} files ({', '.join(told)}) are cut by lines; for whole functions: {_INSTALL}"
