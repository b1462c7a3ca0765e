"""Find secrets that are set to a name which says so."""

from __future__ import annotations

import re
from collections.abc import Iterator

from c2llm_integrations.code.secrets.bare import IN_CODE, IN_DATA, IN_SETTINGS, VALUE_FIRST, Form
from c2llm_integrations.code.secrets.lists import find_elements
from c2llm_integrations.code.secrets.names import ABOUT, WIDE_WORD, WORD, Judge, Judges, judges_of
from c2llm_integrations.code.secrets.values import is_generated

# Quotes hold the other ones, and their own behind a backslash or, single ones, doubled; or they stand in a string.
_STRING = (
    r"(?:\"(?=((?:[^\"\s\\]|\\[^\w\s]){6,200}))\1\"|'(?=((?:[^'\s\\]|\\[^\w\s]|(?<=[^'])''(?=[^'\s,;)\]}])){6,200}))\2'"
    r"|`(?=((?:[^`\s\\]|\\[^\w\s]){6,200}))\3`|\\[\"'`](?=([^\"'`\s\\]{6,200}))\4\\[\"'`])"
)
# What may stand between a name and the quotes with its value.
_GLUE = r"""
    [\w-]{0,20} (?:\](?=["']))? \\?["']? !?                     # password_of_root, "password", input[type=password]
    (?: \[?\d{0,3}\]                                            # char password[64] = …, password: str | None = …
      | \??\s{0,3}:\s{0,3}(?:&(?:'static[ ])?)?[\w.?| ]{0,30}(?:\[[^\[\]=\n]{0,40}\])?[\w?| ]{0,20}(?=\s{0,8}:?=)
      | \s(?:as\s)?\w{1,20}(?:\(\w{1,5}\))?(?=\s{0,8}:?=)       # Dim password As String = …, password varchar(20) := …
      | \s?\{[\w\s;]{0,40}\}(?=\s{0,8}=)                        # string Password { get; set; } = …
    )?
    \s{0,8}
    (?: =>|<-|:=|[!=]?={1,2}|\|\|=?|\?\?=?|[:\uff1a,({]         # password = …, password ?? …, ("password", …)
      | (?<=[ \t])(?=["']) | (?<=\s)(?:eq|ne)(?=\s)             # storePassword "…", $password eq "…"
      | (?:(?<=["'])\){0,2})?\.(?:set|equals|send_?keys|fill|type|val|unwrap_or\w{0,5}|or_?else)\(  # pw.equals(…)
      | (?<=["'])[\])]{1,2}\s?(?:\|\||\?\?|\?:|or\b|\{)         # getenv("PASSWORD") ?: …, ENV["PASSWORD"] || …
      | (?:(?<=["'])\)\s?)?\|\s?default[( ]                     # {{ password | default(…) }}
      | \w{1,20}(?:\(\d{1,5}\))?\s(?:not\snull\s)?default(?=\s)  # password varchar(20) default '…'
      | \w{1,20}\s{1,8}`[^`\n]{0,80}?default:                   # Password string `env:"X" envDefault:"…"`
    )
    (?:(?<==)\s{0,40}|\s{0,8}) (?:["']?(?:\{\{-?|<%=)\s?)?
    (?: (?: [^"'`;,\n]{0,60} (?:\||\?\?|\?:|\bor\b)             # = env.PASSWORD || …, = env.PASSWORD or …
        | (?:(?<![,({])(?<![,({]\s)(?<!\s\s)(?:new\s)?[\w.:\[\]]{0,20}|some)\(      # = String.valueOf(…)
        | [^"'`;\n]{0,80}\b(?:default|fallback)\w{0,6}\s?[:=(]? # , type=str, default=…, {{ default …
        | [\w.$:>-]{1,60}[(\[][^()\[\]\n]{0,80}[)\]]?\s{0,3}(?:,|\|\||\?\?|\?:|or\b)    # = get(name, …), = x["y"] or …
      ) \s{0,3}
    )?
    (?:u8|[brunfl@$]{0,2}) (?:\\?(?:""|''|'(?=")|"(?=\\")))?    # b"…", @"…", \"""…
"""
_QUOTED = re.compile(_GLUE + _STRING, re.I | re.X)
# In the quotes of Perl, Ruby, Lua, Rust and C++: q{…}, %q(…), [[…]], r#"…"#, R"(…)".
_OTHER_QUOTES = re.compile(
    r"[\w-]{0,20}[\"'}\]]{0,3}\s{0,8}(?:=>|\|\||=|[=,(])\s{0,8}(?:(?:qq?|%[qQ])[{(\[<|]|\[={0,3}\[|r#{1,3}\"|R\"\w{0,16}\()"
    r"(?=([^\"'`\s\\{}()\[\]<>|]{6,200}))\1[})\]>|\"]"
)
# As the second of two: user, password = "me", "…"; (user, password) = ("me", "…").
_SECOND = re.compile(
    rf"\w{{0,20}}[)\]]?\s{{0,3}}:?=\s{{0,3}}[(\[]?(?:\"[^\"\n]{{0,60}}\"|'[^'\n]{{0,60}}'),\s?{_STRING}"
)
_BEFORE_SECOND = re.compile(r"\w,\s?[\w.$]{0,30}$")
# The end of an argument: f(password, "…"), but neither f("password", "…") nor f(password, x="…").
_ARGUMENT = re.compile(r"(?:[\w-]{0,20}\s{0,8}|[\w-]{1,20}\]?[\"']),[^=]*$")
# What defines a constant or sets a variable to its second argument: define(PASSWORD, "…").
_DEFINES = re.compile(
    r"\b(?:(?:define|set|setenv|putenv|def|str\w?c(?:mp|py)|memcpy)\(\s?[\w.>-]{0,30}"
    r"|\w{0,12}setopt\(\$?\w{1,20},\s?\w{0,30}|set :\w{0,30})$",
    re.I,
)
# A variable with a default, a URL with a query, a mapping and a name before one have names of their own.
_HAS_NAMES = re.compile(r"\$\{|://|^[{\[]|:$")
_SETS = re.compile("[=:]")
# What follows a name that no value follows.
_GOES_ON = re.compile(r"\w{21}|\w{0,20}(?:[;&+%]|\)(?!\s{0,3}=\s{0,3}\())")
# A line of data goes on for longer than those forms reach that a value must end in.
_DATA_CHARACTERS = 450
_DATA = re.compile(rf"[\w+/=.~%-]{{{_DATA_CHARACTERS},}}")
_SET_IN_DATA = re.compile(r"[\w.-]{0,20}=")
# Characters before a name that are looked at.
_BEFORE_CHARACTERS, _LINE_CHARACTERS, _PAIR_CHARACTERS = 64, 100, 300
_NO_LETTERS = re.compile(r"[\W_]")

Span = tuple[int, int]


def find_named(text: str, settings: bool) -> Iterator[Span]:
    """Yield where each value begins and ends that is set to a name of secrets, and is one."""
    lower = text.lower()
    if len(lower) != len(text):  # a few letters become two
        lower = text.encode().lower().decode()
    words = WORD if text.isascii() else WIDE_WORD
    end = data_end = 0
    for word in words.finditer(lower):
        at = word.end()
        if word.start() < end or _GOES_ON.match(text, at):  # within a value that was judged: each is judged once
            continue
        if at > data_end - _DATA_CHARACTERS and (data := _DATA.match(text, at)):
            data_end = data.end()
        is_data = at <= data_end - _DATA_CHARACTERS
        if is_data and not _SET_IN_DATA.match(text, at):
            continue
        judges = judges_of(word[0], ABOUT.match(text, at) is not None, settings)
        forms = IN_DATA if is_data else IN_SETTINGS if settings else IN_CODE
        for (start, stop), judge in _values(text, word, judges, forms):
            value = text[start:stop]
            if _HAS_NAMES.search(value) and not is_generated(value):
                continue
            if not (_is_key(text, at, start, stop) or words.search(lower, at, start)):  # another name tells more
                end = max(end, stop)
            if judge(value) and not _is_name(value, lower[max(0, at - _LINE_CHARACTERS) : at]):
                yield start, stop
                break
        for element in find_elements(text, at, settings) if not is_data else ():
            if not words.search(lower, element.start(), element.start("value")):  # nor has the key of an entry
                end = max(end, element.end("value"))
            is_alone = "dash" in element.re.groupindex and not (element["dash"] or element["key"])
            if (judges.bare if is_alone else judges.in_list)(element["value"]):
                yield element.span("value")


def _values(text: str, word: re.Match[str], judges: Judges, forms: tuple[Form, ...]) -> Iterator[tuple[Span, Judge]]:
    """Yield where each value that a name may be set to begins and ends, and the judge of it."""
    at, before = word.end(), text[max(0, word.start() - _BEFORE_CHARACTERS) : word.start()]
    if forms is not IN_DATA:
        if match := _QUOTED.match(text, at):
            yield match.span(match.lastindex or 0), judges.quoted if _is_next(match, before) else judges.in_call
        if match := _OTHER_QUOTES.match(text, at):
            yield match.span(1), judges.quoted
        if (match := _SECOND.match(text, at)) and _BEFORE_SECOND.search(before):
            yield match.span(match.lastindex or 0), judges.quoted
        first = max(0, word.start() - _PAIR_CHARACTERS)
        has_value = forms is IN_SETTINGS and text.find("alue", first, word.start()) > 0
        if has_value and (match := VALUE_FIRST.search(text, first, word.start())):
            yield match.span(1), judges.bare
    for form in forms:
        if (match := form.after.match(text, at)) and (form.before is None or form.before.search(before)):
            yield match.span(match.lastindex or 0), form.judge(judges)


def _is_next(match: re.Match[str], before: str) -> bool:
    """Return whether the quotes have what the name is set to, no other argument or element: f(password, "…")."""
    sign = match.string[match.start() : match.start(match.lastindex or 0)]
    return _ARGUMENT.match(sign) is None or before[-1:] == "{" or _DEFINES.search(before) is not None


def _is_key(text: str, at: int, start: int, stop: int) -> bool:
    """Return whether a value names one that follows: get("db", "password", …), --secret password …."""
    is_set = _SETS.search(text, at, start) is not None
    return text[start:stop].isidentifier() and (text.startswith((",", ")"), stop + 1) or not is_set)


def _is_name(value: str, before: str) -> bool:
    """Return whether a value is the name that stands before it, written in another way."""
    return _NO_LETTERS.sub("", before).endswith(_NO_LETTERS.sub("", value.lower()))
