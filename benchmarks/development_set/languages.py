"""What a line must look like to define something, to document it, or to raise an error: by pattern, per language.

Patterns and not the product's own grammars, so that a parser's mistake cannot hide from the questions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from c2llm_integrations.code.languages import language_of

_C_NAME = r"([A-Za-z_]\w*(?:::~?\w+)*)"
_C_BODY = rf"^[A-Za-z_][\w:*&<>, \t]*?[\s*&]{_C_NAME}[ \t]*\((?:[^;{{}}()]|\([^()]*\))*\)[\s\w]*\{{"
_TYPES = (
    r"^[ \t]*(?:[a-z]+[ \t]+)*(?:class|interface|enum|struct|record|trait|protocol|object)[ \t]+(\w+)[^;\n]*(?:\{|$)"
)
_MODIFIERS = r"(?:public|private|protected|internal|static|final|abstract|override|virtual|async|synchronized|sealed)"
_TYPED = rf"^[ \t]+(?:{_MODIFIERS}[ \t]+)+(?:<[^>\n]+>[ \t]*)?(?:[\w<>\[\],.?]+[ \t]+)+(\w+)[ \t]*\("
_SCRIPT = (
    r"^[ \t]*(?:export[ \t]+)?(?:default[ \t]+)?(?:declare[ \t]+)?(?:abstract[ \t]+)?(?:async[ \t]+)?"
    r"(?:function\*?|class|interface|enum|type)[ \t]+(\w+)",
    r"^(?:export[ \t]+)?(?:const|let|var)[ \t]+(\w+)[^=\n]*=[ \t]*(?:async[ \t]*)?(?:function|\(|\w+[ \t]*=>)",
    r"^[ \t]+(?:(?:public|private|protected|static|async|get|set|override)[ \t]+)*\*?(\w+)[ \t]*\([^;{}()]*\)"
    r"(?:[ \t]*:[^;{}\n]+)?[ \t]*\{",
    r"^[ \t]*(?:module\.)?(?:exports|\w+\.prototype)\.(\w+)[ \t]*=[ \t]*(?:async[ \t]*)?(?:function|\()",
)
_DEFINITIONS: dict[str, tuple[str, ...]] = {
    "python": (r"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+(\w+)",),
    "javascript": _SCRIPT,
    "typescript": _SCRIPT,
    "go": (r"^func[ \t]+(?:\([^)\n]*\)[ \t]*)?(\w+)", r"^type[ \t]+(\w+)"),
    "rust": (
        r"^[ \t]*(?:pub(?:\([^)\n]*\))?[ \t]+)?(?:(?:const|async|unsafe|extern \"C\")[ \t]+)*"
        r"(?:fn|struct|enum|trait|union|type)[ \t]+(\w+)",
        r"^macro_rules!\s*(\w+)",
    ),
    "c": (_C_BODY, r"^(?:typedef[ \t]+)?(?:struct|enum|union)[ \t]+(\w+)\s*\{"),
    "cpp": (_C_BODY, r"^[ \t]*(?:class|struct|enum(?:[ \t]+class)?)[ \t]+(?:[A-Z_]{4,}[ \t]+)?(\w+)[^;{}()]*\{"),
    "java": (_TYPES, _TYPED),
    "csharp": (_TYPES, _TYPED),
    "kotlin": (_TYPES, r"^[ \t]*(?:[a-z]+[ \t]+)*fun[ \t]+(?:<[^>\n]*>[ \t]*)?(?:[\w<>?]+\.)?(\w+)[ \t]*\("),
    "swift": (_TYPES, r"^[ \t]*(?:@?\w+(?:\([^)\n]*\))?[ \t]+)*func[ \t]+(\w+)"),
    "ruby": (r"^[ \t]*(?:def[ \t]+(?:self\.)?|class[ \t]+|module[ \t]+)(?:\w+::)*(\w+[?!]?)",),
    "php": (_TYPES, r"^[ \t]*(?:[a-z]+[ \t]+)*function[ \t]+&?(\w+)"),
    "lua": (
        r"^[ \t]*(?:local[ \t]+)?function[ \t]+(?:\w+[.:])*(\w+)[ \t]*\(",
        r"^(?:local[ \t]+)?(?:\w+\.)*(\w+)[ \t]*=[ \t]*function\b",
    ),
    "haskell": (r"^(\w+'*)[ \t]*(?:\n[ \t]+)?::", r"^(?:data|newtype|class|type)[ \t]+(\w+)"),
    "ocaml": (r"^(?:let(?:[ \t]+rec)?|and|module|exception|type)[ \t]+(\w+)", r"^[ \t]*val[ \t]+(\w+)"),
    "elixir": (r"^[ \t]*(?:def|defp|defmacro)[ \t]+(\w+[?!]?)", r"^[ \t]*defmodule[ \t]+(?:\w+\.)*(\w+)"),
    "r": (r"^([\w.]+)[ \t]*(?:<-|=)[ \t]*function\b",),
    "perl": (r"^[ \t]*sub[ \t]+(\w+)",),
    "shell": (r"^(?:function[ \t]+)?(\w+)[ \t]*\(\)",),
}
_COMPILED = {language: [re.compile(one, re.MULTILINE) for one in ones] for language, ones in _DEFINITIONS.items()}
_KEYWORDS = {"if", "for", "while", "switch", "catch", "return", "else", "elif", "with", "match", "using", "lock"}
# Languages whose words a question of another family is nonsense in.
_FAMILIES = (
    *({"python", "ruby", "perl", "lua", "shell", "r"}, {"javascript", "typescript"}, {"c", "cpp"}, {"go"}, {"rust"}),
    *({"java", "kotlin", "csharp", "swift"}, {"php"}, {"haskell", "ocaml"}, {"elixir"}),
)
LANGUAGES = frozenset(_DEFINITIONS)

# Language → what its doc comments begin each line with, or begin and end with.
LINE_DOCS: dict[str, str] = {
    **dict.fromkeys(("go", "c", "cpp", "javascript", "typescript"), "//"),
    **dict.fromkeys(("rust", "csharp", "swift"), "///"),
    **dict.fromkeys(("ruby", "shell", "perl"), "#"),
    **dict.fromkeys(("lua", "haskell"), "--"),
    "r": "#'",
}
BLOCK_DOCS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("javascript", "typescript", "java", "kotlin", "php", "swift"), ("/**", "*/")),
    **dict.fromkeys(("c", "cpp"), ("/*", "*/")),
    **dict.fromkeys(("ocaml",), ("(**", "*)")),
    **dict.fromkeys(("elixir",), ('@doc """', '"""')),
    **dict.fromkeys(("haskell",), ("{-|", "-}")),
}
# Between a doc comment and its definition.
ATTRIBUTE = re.compile(r"\s*(@(?!doc)[\w.]+|#\[|\[\w|template\s*<|#'\s*@)")

_RAISE = (
    r"\b(?:raise|throw(?:\s+new)?|errors\.New|fmt\.Errorf|panic!?|bail!|anyhow!|croak|confess|die|failwith|invalid_arg|"
    r"abort|fatal\w*|(?:std::)?runtime_error|error|stop|err|Exception|\w+Error|\w+Exception)\b"
)
RAISES = re.compile(
    rf"{_RAISE}[\s(]*(?:[\w.:]+(?:::new)?[\s(,]*)?[frub@$]?(\"(?:[^\"\\\n]|\\.)+\"|'(?:[^'\\\n]|\\.)+')(\s*[+.,%])?"
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A question, the file and line that answer it, and what must go from the indexed copy: "" or PATH:FIRST-LAST."""

    question: str
    path: str
    line: int
    removed: str = ""


def definitions(path: str, text: str) -> Iterator[tuple[str, int]]:
    """Yield the names that a file defines, each with the line that it begins on, counted from 1."""
    for pattern in _COMPILED.get(language(path), ()):
        for match in pattern.finditer(text):
            name = match[1].rpartition("::")[2]
            if name not in _KEYWORDS and len(name) > 2:
                yield name, text.count("\n", 0, match.start()) + 1


def language(path: str) -> str:
    """Return a file's language; "typescript" for .tsx."""
    found = language_of(path)
    return "typescript" if found == "tsx" else found


def are_related(one: str, other: str) -> bool:
    """Return whether two languages belong to one family."""
    return one == other or any({one, other} <= family for family in _FAMILIES)
