"""Recognize generated files by the notices in the comments above their code."""

from __future__ import annotations

import re

# Characters that are searched: a notice may come after a long license.
_HEAD = 8_192


def _any(*ways: str) -> str:
    return f"(?:{'|'.join(ways)})"


# ---- the comments above the code

_COMMENTS = _any(
    r"\s+",
    r"(?://|--|;|%|'|REM\s|dnl\s)[^\n]*",
    r"#(?!\s*(?:define|if|ifdef|ifndef|pragma|error|warning)\b)[^\n]*",
    r"#[ \t]*(?:ifn?def|if|pragma|define)\b[^\n\"]*\n",  # a guard, but no text in a macro
    r"(?:<\?php|<\?xml|package\s|@echo|\{-#|\"use strict\")[^\n]*",  # lines that must come first
    r"/\*.*?(?:\*/|\Z)",
    r"<!--.*?(?:-->|\Z)",
    r"\(\*.*?(?:\*\)|\Z)",
    r"\{-.*?(?:-\}|\Z)",
    r"\"{3}.*?(?:\"{3}|\Z)",
)
_PROSE_COMMENTS = _any(
    r"\s+",
    r"---\n.*?\n---\n",
    r"<!--.*?(?:-->|\Z)",
    r"\[(?://|comment)\]: # \(.*?\)\n",
)
_ABOVE_CODE = re.compile(f"{_COMMENTS}*", re.DOTALL)
_DOCSTRING = re.compile(r"\"{3}.*?(?:\"{3}|\Z)", re.DOTALL)
# A comment inside a docstring shows what a tool writes.
_SHOWN = re.compile(r"^[ \t]*(?:/?\*|//|#).*$", re.MULTILINE)
_ABOVE_PROSE = re.compile(f"{_PROSE_COMMENTS}*", re.DOTALL)

# ---- notices; a space stands for anything between two words, including a line break and a comment mark

_START = r"^[^\w\n]*"
# They begin and end with a word, which the space beside them does not, so that no dash can belong to either.
_NAME = r"\w+(?:[./-]+\w+)*"
_FILE = r"\w+(?:[^\w\s]+\w+)*"
# Words between the beginning of a line and "generated" in a sentence about this very file. With another subject or verb
# the sentence is about other files: "Writes generated files".
_SUBJECT = _any(
    *("this", "the following", "the contents?", "is", "was", "has", "been", "are", "an?", "it", "of", "all", "code"),
    *("file", "source", "class", "module", "form", "header", "interface", "implementation", "parser", "scanner"),
    *("lexer", "document", "page", "data", "script", "configuration", "config", "automatically", "auto", "cmake"),
    *("programmatically", "mechanically", "python", "java", "kotlin", "c", r"\w+\.\w+", "rem", "dnl"),
    *("warning", "note", "notice", "important", "attention", "caution"),
)
_ABOUT_IT = rf"{_START}(?:{_SUBJECT} ){{0,8}}?"
# A file that was generated once is edited by hand since.
_NOT_NOW = r"(?!(?:initially|originally|first|once|formerly|partly|partially)\b)"
_MADE = r"(?:auto(?:matically)?[-\s]?|machine[-\s]?)?generated"
_MADE_BY = _any(_MADE, "(?:created|produced|written) by")
_OTHER_FILES = _any("files", "sources", "classes", "headers", "modules", "outputs?")
_DO_NOT_EDIT = _any(
    r"(?:(?:do|must|should|shall)(?: not|n['\u2019]t)|don['\u2019]?t|never|not (?:meant|intended) to) (?:\w+ ){0,3}?"
    "(?:edit|modif|chang|alter|touch|make changes)",
    r"(?:changes?|edits?|modifications?)\b.{0,80}?\b(?:will|would|may|can|might) (?:\w+ )?(?:be )?"
    "(?:lost|overwritten|overridden|discarded|reverted|cause incorrect)",
    r"\bedit\b.{0,60}?\binstead\b",
    "instead of editing",
)
_THIS = _any("this", "it", "by", "manually", "directly", "the (?:file|content)", r"[^\w\s]", "$")
# Tools whose name alone is a notice. The output of other tools (a scaffold, a migration) is edited by hand afterwards.
_TOOL = "(?:the )?" + _any(
    *("antlr", "gnu bison", "bison", "byacc", "flex", "gperf", "re2c", "ragel", "cython", "swig", "thrift", "protoc"),
    *("the protocol buffer", "protocol buffer", "prost", "gnu autoconf", "autoconf", "autoheader", "automake"),
    *("aclocal", "configure", r"config\.status", "rust-bindgen", "bindgen", "cbindgen", "wayland-scanner"),
    *(r"glib-\w+", "gdbus-codegen", "valac", "coffeescript", "livescript", r"purs\b", "purescript", "rescript"),
    *("bucklescript", "haxe", "elm", "f2py", "jflex", "javacc", "lemon", "ocamlyacc", "ocamllex", "happy", "alex"),
    *(r"qt\b", r"pyqt\d?", r"pyside\d?", "uic", "moc", "rcc", "openapi", "swagger", "jaxb", r"java\w* architecture"),
    *("eclipse implementation of jaxb", r"apache \w+", "axis", "swiftgen", "sourcery", "mockgen", "mockery"),
    *(
        "stringer",
        "jooq",
        "sqlc",
        r"ent\b",
        r"wire\b",
        "gqlgen",
        "easyjson",
        "msgp",
        "datamodel-codegen",
        "flatc",
        "flatbuffers",
        "capnp",
    ),
    *("pip-compile", r"uv\b", "roxygen2", "rcpp", "xsubpp", "extutils", "nswag", "refit", r"xsd\b", "wsdl", "svcutil"),
    *("a tool", r"perl\d?", "doxygen", "sphinx-autogen", "typeshare", "ts-proto", "graphql", "apollo", "relay"),
    *("dart_style", "freezed", "json_serializable"),
)
_SCAFFOLD = _any(
    *("init", "create", "new", "scaffold", "quickstart", "cookiecutter", "cli", "template", "wizard", "starter"),
    "yeoman",
)


def _compiled(*notices: str) -> re.Pattern[str]:
    return re.compile("|".join(notices).replace(" ", r"\W+"), re.IGNORECASE | re.DOTALL | re.MULTILINE)


_NOTICE = _compiled(
    rf"{_START}(?:{_NAME} )?@generated\b",  # autoload_classmap.php @generated by Composer
    rf"{_START}this file is (?:automatically )?@generated\b",
    r"<auto-?generated\b",
    # This code was generated by gen.py. Do not edit.
    rf"{_ABOUT_IT}{_MADE_BY}\b(?! (?:\w+ )?{_OTHER_FILES}\b).{{0,300}}?{_DO_NOT_EDIT}",
    # Please do not modify this file, it has been generated by gen.sh
    rf"{_ABOUT_IT}(?:please )?{_DO_NOT_EDIT}\w*\s*{_THIS}.{{0,300}}?\b{_MADE_BY}\b",
    # This file was auto-generated from WSDL by the Apache Axis
    rf"{_ABOUT_IT}(?:{_NOT_NOW}{_NAME} )?(?:{_MADE}|produced|made|created) (?:automatically )?"
    rf"(?:by|with|using|from {_FILE} by) {_TOOL}",
    # This file is auto-generated from the current state of the database.
    rf"{_ABOUT_IT}auto(?:matically |-?)generated (?:by|from|with|using|via)\b(?!.{{0,60}}\b{_SCAFFOLD}\b)",
    # config.h.  Generated from config.h.in by configure.
    rf"{_START}{_NOT_NOW}{_NAME} generated (?:automatically )?(?:from {_FILE} )?by {_TOOL}",
    rf"{_START}(?:meta object code|form (?:implementation )?generated|resource object code)\b",
    rf"{_START}an? (?:bison parser|lexical scanner|yacc parser)\b.{{0,20}}\b(?:made|generated) by\b",
    rf"{_START}(?:ansi-)?(?:c\+?\+?|kr-c) code produced by\b",
)
# Every notice has one of these words; searching for them first is a hundred times cheaper.
_MAKER = re.compile(r"generated|object code|(?:produced|created|written|made)\W+by", re.IGNORECASE)
# A notice about one part of a file that is otherwise written by hand.
_OWN_PART = re.compile(r"\b(?:this|the\s+following)\s+(?:section|block|part|region|list|table|line)\b|\btoc\b", re.I)


def is_generated(text: str, prose: bool) -> bool:
    """Return whether a file says above its code that a tool wrote it; in `prose` only hidden comments count."""
    above = (_ABOVE_PROSE if prose else _ABOVE_CODE).match(text[:_HEAD].removeprefix("\ufeff"))
    said = _DOCSTRING.sub(lambda docstring: _SHOWN.sub("", docstring[0]), above[0]) if above else ""
    found = _NOTICE.search(said) if _MAKER.search(said) else None
    return bool(found and not _OWN_PART.search(found[0]))
