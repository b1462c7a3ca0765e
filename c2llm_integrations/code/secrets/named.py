"""Find secrets that are set to a name which says so: in code, in settings, in environments, as options."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from c2llm_integrations.code.secrets.values import (
    is_base64_login,
    is_drawn,
    is_key,
    is_login_password,
    is_password,
    is_random,
    is_set_password,
    is_short_token,
    is_typed,
    is_typed_or_random,
)

_Judge = Callable[[str], bool]

# What a key opens: `api_key`, `apiKey`, `master-key`.
_KEYS = (
    *("api", "app", "access", "account", "auth", "private", "encryption", "signing", "master", "shared", "session"),
    *("subscription", "consumer", "client", "service", "storage", "license", "hmac", "aes", "jwt", "functions"),
    *("deploy", "instrumentation", "sas"),
)
_OPENS = "|".join(f"(?<={kind}key)|(?<={kind}[_. -]key)" for kind in _KEYS)
# A name that says it. Each begins with one of few letters, by which the search skips all other places.
_WORD = re.compile(
    r"pass(?:w(?:or)?[dt]|phrase|code|(?![a-z_])(?<!(?:by|uy|om|es|ur)pass))|pwd"
    r"|pw(?![a-z])(?:(?<![a-z]pw)|(?<=dbpw)|(?<=userpw)|(?<=adminpw)|(?<=rootpw))|psk(?![a-z])(?<![a-z]psk)"
    r"|presharedkey|pre[_-]shared[_-]key|secret|(?<!publickey)token|credential|bearer|basic"
    rf"|key(?:{_OPENS})|auth(?![a-z_]|-key)|sig(?==)"
)
_PASSWORDS = ("pass", "pw", "psk", "pre", "secret")
# What tells something about a password.
_ABOUT = re.compile(
    r"[\w-]{0,20}?(?:ref|name|policy|file|path|type|field|class|version|provider|length|ur[il]|label|hint|format|input)s?\b",
    re.I,
)

# Where a value is followed by what it cannot hold, `(?=(…))\1` takes it as a whole: no shorter one fits, and trying
# each would take a hundred steps at every word of a long line.

# In quotes, set by any language's sign for it, with the type in between: password: str = "…", ("password", "…").
_QUOTED = re.compile(
    r"[\w-]{0,20}\\?[\"']?(?:\[?\d{0,3}\])?!?(?:\s{0,3}:\s{0,3}(?:&(?:'static )?)?[\w.]{1,20}(?=\s{0,8}=)"
    r"|\sas\s\w{1,20}(?=\s{0,8}=)|\s?\{[\w\s;]{0,40}\}(?=\s{0,8}=))?"
    r"\s{0,8}(?:=>|<-|:=|={1,3}|\|\|=?|\?\?=?|[:,({]|(?<=[ \t])(?=[\"']))\s{0,8}"
    r"[brun@]?\\?(?:\"\"|''|'(?=\")|\"(?=\\\"))?\\?[\"'`](?=([^\"'`\s\\]{6,200}))\1\\?[\"'`]",
    re.I,
)
# In quotes, for the case that a variable is not set: getenv("PASSWORD") or "…", ENV["PASSWORD"] || "…".
_FALLBACK = re.compile(
    r"[\w-]{0,20}[\"'](?:[\])]{1,2}\s{0,3}(?:\|\||\?\?|\?:|or\b|\{|\.(?:unwrap_or|or_?else)\w{0,5}\((?:\|\w{0,9}\|)?"
    r"|\|\s?default\()|,\s?default\w{0,6}\s?[:=])\s{0,3}[\"'`](?=([^\"'`\s\\]{6,200}))\1[\"'`]",
    re.I,
)
# In quotes, as the only argument of what makes a string or an object of it: password = String.valueOf("…").
_WRAPPED = re.compile(
    r"[\w-]{0,20}(?:\s{0,3}(?::=|=>|[:=])\s{0,3}(?:new\s)?[\w.\[\]]{0,20}|\.(?:set|equals))(?<!code)\(\s?"
    r"[bru]?[\"'`](?=([^\"'`\s\\]{6,200}))\1[\"'`](?:\)|\.(?:to|into))",
    re.I,
)
# In the quotes of Perl and Ruby: $password = q{…}, PASSWORD = %q(…).
_OTHER_QUOTES = re.compile(
    r"[\w-]{0,20}[\"'}\]]{0,3}\s{0,8}(?:=>|\|\|=|[=,(])\s{0,8}(?:qq?|%[qQ])[{(\[<|](?=([^\"'`\s\\{}()\[\]<>|]{6,200}))\1[})\]>|]"
)
# Without quotes, but so long that nothing else looks like it; the header of a request.
_BARE = re.compile(
    r"[\w-]{0,20}[\"']?(?:\s{0,3}=\s{0,3}|:\s?)(?:base64:)?(?=([\w+/=.~%-]{20,400}))\1(?![\w+/=.~%(\[-])", re.I
)
_BEARER = re.compile(r"(?:bearer|basic|token)[ \t]{1,3}([\w.~+/-]{20,400}=*)", re.I)
_BASIC = re.compile(r"(?:basic\s{1,3}|auth[\"']?\s{0,3}[:=]\s{0,3}[\"']?)([A-Za-z0-9+/_-]{8,400}={0,2})", re.I)
_HEADER = re.compile(r"[\w-]{0,20}:\s{0,3}(?=([A-Za-z0-9-]{10,20}))\1[\"'\s]")
_BEFORE_HEADER = re.compile(r"[\"'\s]x-[\w-]{0,30}$", re.I)
# A part of a connection string.
_PART = re.compile(r"\s{0,3}=\s{0,3}(?=([^;\"'\s]{6,200}))\1(?:[;\"']|\s|$)")
_BEFORE_PART = re.compile(r"(?:;\s?|[\"']|\w=(?:[^\s,;(]{1,60} )?)[\w.-]{0,30}$")
# In settings, to the end of the line or element.
_SETTING = re.compile(
    r"[\w.-]{0,20}[\"']?(?:\s{0,8}[:=]\s{0,8}|>\s{0,8}|\"\s{1,8}value=)[\"']?"
    r"((?:[^\s\"'<>,;}]|\}(?![\s,}]|$)){6,200})",
    re.I,
)
# In a line that is nothing else, in the environment of a command, and as an option of one.
_LINE = re.compile(r"[\w.-]{0,20}\s?[:=]\s{0,3}(?=([^\s\"'`,;]{6,200}))\1[ \t]*(?:\r?\n|$)")
_BEFORE_LINE = re.compile(
    r"(?:^|\n)[ \t]*(?:[-*#] )?(?:(?:export|set|setx|env|arg|local|readonly) )?[\w.-]{0,30}$", re.I
)
_ENVIRONMENT = re.compile(r"[A-Z0-9_]{0,20}=(?=([^\s\"'`;&|<>(),]{6,200}))\1(?=[\s\"'`;&|]|$)")
_OPTION = re.compile(r"[\w-]{0,20}[=\s]\s{0,3}[\"']?([^\s\"'`;&|<>,]{6,200})", re.I)
_BEFORE_OPTION = re.compile(r"(?:(?:^|[\s\"'])(?:--?|#\s?define |env |arg |setx? )|[?&])[\w.-]{0,30}$", re.I)
# What a variable of a shell, of Docker Compose or of Spring is if it is not set: ${PASSWORD:-…}, ${app.password:…}.
_DEFAULT = re.compile(r"[\w.-]{0,20}?(?::[-=]?|-|=)(?=([^\s\"'`{}$]{6,200}))\1\}")
_BEFORE_DEFAULT = re.compile(r"[$#]\{[?\w.:-]{0,40}$")
# A name and its value in two fields, as Kubernetes and Postman write them; a variable of Terraform with its default.
_PAIR = re.compile(
    r"[\w-]{0,20}[\"']?\s{0,3},?\s{0,40}(?:\{\s{0,8})?[\"']?(?:value|default)[\"']?\s{0,3}[:=]\s{0,3}[\"']?([^\s\"',;]{6,200})",
    re.I,
)
_BEFORE_PAIR = re.compile(r"(?:\b(?:name|key)[\"']?\s{0,3}[:=]\s{0,3}|variable\s)[\"']?[\w.-]{0,30}$", re.I)
# A list, in brackets or as lines of YAML, and an element of it, which is matched from where the last one ends.
_LIST = re.compile(
    r"[\w-]{0,20}[\"']?\s{0,3}(?::=|=>|[:=])\s{0,3}"
    r"(?:\[\]\w{1,20}|new ?\w{0,20}\[\]\s?|(?:List|Set|Arrays?|Map)[\w.]{0,12})?[\[({]\s{0,40}"
)
_ELEMENT = re.compile(r"([\"'`]?)([^\s\"'`,\[\](){}]{1,200})\1\s{0,40}(?:,\s{0,40}|(?=[\])}]))")
# The same of Perl and Ruby: passwords = %w[…], qw(…).
_WORDS = re.compile(r"[\w-]{0,20}\s{0,3}=>?\s{0,3}(?:qw|%[wWiI])\s?[{(\[</|]\s{0,40}")
_WORD_OF_LIST = re.compile(r"()([^\s\"'`,{}()\[\]<>|/]{1,200})(?:\s{1,40}|(?=[})\]>/|]))")
# A mapping of what each opens to secrets, in braces or as lines of YAML, and an entry of it.
_MAP = re.compile(r"[sS][\"']?\s{0,3}(?::=|=>|[:=])\s{0,3}(?:map\[\w{1,20}\]\w{1,20}|Map\.of)?[{(]\s{0,40}")
_ENTRY = re.compile(
    r"[\"'`]?[\w.@:-]{1,64}?[\"'`]?\s{0,3}(?:=>|[:=,])\s{0,8}([\"'`]?)([^\s\"'`,\[\](){}]{1,200})\1\s{0,40}(?:,\s{0,40}|(?=[})]))"
)
_LINES = re.compile(r"[\w-]{0,20}[\"']?:(?=[ \t]{0,20}(?:#[^\n]{0,200})?\r?\n[ \t]{0,20}[-#])")
_MAP_LINES = re.compile(
    r"[sS][\"']?:(?=[ \t]{0,20}(?:#[^\n]{0,200})?\r?\n(?:[ \t]{0,20}#[^\n]{0,200}\r?\n){0,9}[ \t]{1,20}[\"'\w])"
)
_LINE_OF_MAP = re.compile(
    r"[ \t]{0,20}(?:#[^\n]{0,200})?\r?\n(?:[ \t]{0,20}#[^\n]{0,200}\r?\n){0,9}"
    r"[ \t]{1,20}[\"']?[\w.@-]{1,64}[\"']?:[ \t]{1,8}([\"']?)([^\s\"',:{}\[\]]{1,200})\1(?=[ \t]*(?:#|\r?\n|$))"
)
_LINE_OF_LIST = re.compile(
    r"[ \t]{0,20}(?:#[^\n]{0,200})?\r?\n(?:[ \t]{0,20}#[^\n]{0,200}\r?\n){0,9}[ \t]{0,20}-[ \t]{1,8}"
    r"([\"']?)([^\s\"',:{}\[\]]{1,200})\1(?=[ \t]*(?:#|\r?\n|$))"
)

_COLLECTIONS = ((_LIST, _ELEMENT), (_MAP, _ENTRY), (_WORDS, _WORD_OF_LIST))
_COLLECTIONS_IN_SETTINGS = (*_COLLECTIONS, (_LINES, _LINE_OF_LIST), (_MAP_LINES, _LINE_OF_MAP))

# A variable with a default, a URL with a query and a mapping are no secrets, but have names of their own.
_HAS_NAMES = re.compile(r"\$\{|://|^[{\[]")
# What must precede each; a line of data goes on for longer than those reach that a value must end in.
_PRECEDED = (
    *((_PART, _BEFORE_PART), (_LINE, _BEFORE_LINE), (_OPTION, _BEFORE_OPTION), (_DEFAULT, _BEFORE_DEFAULT)),
    (_HEADER, _BEFORE_HEADER),
)
_PRECEDED_IN_SETTINGS = (*_PRECEDED, (_PAIR, _BEFORE_PAIR))
_PRECEDED_IN_DATA = ((_OPTION, _BEFORE_OPTION),)
_DATA = re.compile(r"[\w+/=.~%-]{450}")
# Characters of a line before a name that show how far it is indented.
_LINE_CHARACTERS = 100
# What follows a name in which no value can: each begins behind 20 further characters of the name at most.
_GOES_ON = re.compile(r"\w{21}")

# The words of a wallet, of which 12 to 24 are all that it takes: mnemonic = "…", Seed phrase: ….
_MNEMONIC = re.compile(
    r"(?:mnemonic|(?:seed|recovery|secret)[\s_-]?(?:phrase|words))\w{0,20}[\s\"'`:=>,(\[]{1,12}"
    r"((?:[a-z]{3,8}[ ,\"']{1,4}){11,23}[a-z]{3,8})\b",
    re.I,
)


def find_named(text: str, settings: bool) -> Iterator[tuple[int, int]]:
    """Yield where each value begins and ends that is set to a name of secrets, and is one."""
    lower = text.lower()
    if len(lower) != len(text):  # a few letters become two
        lower = text.encode().lower().decode()
    end = 0
    for word in _WORD.finditer(lower):
        at = word.end()
        if word.start() < end:  # within a value that was judged: each is judged once
            continue
        if _GOES_ON.match(text, at):
            continue
        name = _name(word[0], _ABOUT.match(text, at) is not None, settings)
        is_data = _DATA.match(text, at) is not None
        for match, is_secret in _values(text, word, name, settings, is_data):
            if _HAS_NAMES.search(match[1]):
                continue
            end = max(end, match.end(1))
            if is_secret(match[1]):
                yield match.span(1)
                break
        for element in () if is_data else _elements(text, at, settings):
            end = max(end, element.end(2))
            if name.in_list(element[2]):
                yield element.span(2)
    if "mnemonic" in lower or "phrase" in lower or "words" in lower:
        yield from (match.span(1) for match in _MNEMONIC.finditer(text) if _is_mnemonic(match[1]))


class _Name(NamedTuple):
    """What the name of a secret says about the values that it is set to: how each is judged."""

    plain: _Judge
    in_quotes: _Judge
    in_call: _Judge  # in quotes, where it need not be what the name is set to
    in_list: _Judge
    in_connection: _Judge


@lru_cache(256)
def _name(word: str, is_about: bool, settings: bool) -> _Name:
    """Return how values are judged after a word; `is_about`: what follows it tells something about a password."""
    key = is_key if word.startswith("key") else is_drawn
    if is_about or not word.startswith(_PASSWORDS):
        in_quotes = _typed_or(is_short_token) if word == "token" and not is_about else _typed_or(key)
        return _Name(key, in_quotes, _typed_or(key), _typed_or(key), key)
    if word == "secret":  # whose name is often given for it, instead of its value
        return _Name(is_password, is_typed, _typed_or(key), _typed_or(key), is_password)
    plain = is_set_password if settings else is_password
    return _Name(plain, is_typed, _typed_or(key), plain if settings else is_typed, is_login_password)


def _typed_or(judge: _Judge) -> _Judge:
    return lambda value: is_typed_or_random(value) or judge(value)


def _values(
    text: str, word: re.Match[str], name: _Name, settings: bool, is_data: bool
) -> Iterator[tuple[re.Match[str], _Judge]]:
    """Yield the values that a name may be set to, each with the test for a secret there."""
    at = word.end()
    if not is_data and (match := _QUOTED.match(text, at)):
        # ("password", "…") or {password, "…"}, no list of names
        is_next = "," not in text[at : match.start(1)] or text[at] in "\"'" or text[word.start() - 1] == "{"
        yield match, name.in_quotes if is_next else name.in_call
    if not is_data and (match := _FALLBACK.match(text, at) or _WRAPPED.match(text, at)):
        yield match, name.in_quotes
    if not is_data and (match := _OTHER_QUOTES.match(text, at)):
        yield match, name.in_quotes
    if not is_data and (match := _BEARER.match(text, word.start()) or _BARE.match(text, at)):
        yield match, is_random
    if match := _BASIC.match(text, word.start()):
        yield match, is_base64_login
    if settings and (match := _SETTING.match(text, at)):
        yield match, name.plain
    if not is_data and (match := _ENVIRONMENT.match(text, at)) and text[word.start() : at].isupper():
        yield match, name.plain
    before = text[max(0, word.start() - 64) : word.start()]
    preceded = _PRECEDED_IN_DATA if is_data else _PRECEDED_IN_SETTINGS if settings else _PRECEDED
    for pattern, must_precede in preceded:
        if (match := pattern.match(text, at)) and must_precede.search(before):
            yield match, name.in_connection if pattern is _PART else name.plain


def _elements(text: str, at: int, settings: bool) -> Iterator[re.Match[str]]:
    """Yield the elements of a list or mapping that a name is set to, in quotes unless it is in settings."""
    for opening, pattern in _COLLECTIONS_IN_SETTINGS if settings else _COLLECTIONS:
        begin = opening.match(text, at)
        match = begin and pattern.match(text, begin.end())
        if match:
            break
    indent = _indent(match[0]) if match and pattern is _LINE_OF_MAP else None
    if indent is not None and indent <= _indent(text[max(0, at - _LINE_CHARACTERS) : at]):
        return
    while match and (match[1] or settings or pattern is _WORD_OF_LIST):
        if indent is not None and _indent(match[0]) != indent:
            break
        yield match
        match = pattern.match(text, match.end())


def _indent(lines: str) -> int:
    """Return the blanks that the last line begins with."""
    line = lines.rpartition("\n")[2]
    return len(line) - len(line.lstrip(" \t"))


def _is_mnemonic(phrase: str) -> bool:
    """Return whether the words of a phrase differ, unlike those of a sample."""
    words = re.findall("[a-z]+", phrase.lower())
    return len(words) in (12, 15, 18, 21, 24) and len(set(words)) > 0.8 * len(words)
