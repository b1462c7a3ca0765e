"""Judge a value by itself: a password, a key drawn at random, or a word that stands in place of one."""

from __future__ import annotations

import math
import re
from base64 import b64decode
from collections import Counter

# A call or a member of something, which code has where a password would be.
_CALL = re.compile(r"\w\((?:.*\)|$)|^[A-Za-z_][\w.]{2,}\(")
# Variables of shells and templates, paths, hexadecimal numbers, URLs, locales.
_VARIABLE = re.compile(
    r"\$[({]|^\$\w+\$?$|\$[A-Z_]{3}|[{}<>|\[\]]|%[sdr(]|%\w+%|^[/.~\\(]|^0x[0-9a-fA-F]+$|^[a-z][a-z0-9+]*://"
    r"|^[a-z]{2}[_-]\w{2,3}$|^(?:local|var|module|data|each|self)\.\w"
)
# Words, alone or in brackets, variables, formats and ranges, of which templates and patterns are made. A drawn password
# may have any sign: one bracket alone says nothing. Behind Spring's {noop} the password itself stands.
_WORDS = r"(?:(?:[A-Z][a-z]+(?![a-z])|[a-z]{2,}(?![a-z])|[A-Z]{2,}(?![A-Z])|\d+(?!\d))[_.:$/-]{0,2})+"
_IN_BRACKETS = "|".join(
    rf"\{begin}[%$@#./:!?_=-]{{0,2}}(?!\d|noop){_WORDS}(?:\[\w+\])?[%/?!-]?\{end}"
    for begin, end in ("{}", "<>", "[]", "()")
)
_TEMPLATE = re.compile(
    rf"^[/.~@]{{0,2}}{_WORDS}$|{_IN_BRACKETS}|\{{\{{.*\}}\}}|\$\{{\w.*\}}|\$\([a-z]{{2}}.*\)|<%.*%>|\{{\}}|\w\(\)|</\w+>"
    r"|^\$\w+$|\$[A-Z_]{4}|%[A-Z_]{3,}%|%[a-z_]{3,}%|^[a-z][a-z0-9+]*://|[az]-z|A-Z|0-9|\(\?[:=!<]|\{\d,\d?\}|\.[*+]\??[\[\](){}$]"
)
# Words that nobody has in a password, and words that may be part of one.
_NEVER = re.compile(r"example|sample|placeholder|change[-_]?me|your|insert|replace|redacted", re.I)
_EMPTY = re.compile(
    r"example|sample|dummy|fake|test|placeholder|changeme|change[-_]me|your|insert|replace|redacted|todo|fixme|default"
    r"|secret|p[a@4]s{1,2}w(?:[o0]?rd)?\d{0,4}|token|apikey|api[-_]key|my[-_]|foo|bar|xxx|\*\*\*|\.\.\.|(.)\1\1\1|0123456|1234567|abcdef|abc123|qwerty"
    r"|^(?:pass|user)\d{0,3}$|sha-?\d|802\.?1x|wpa\d|md5|utf-?8|latin-?\d|base64|oauth|x509|pkcs|none|null|true|false|undefined",
    re.I,
)
# Roles and kinds of things, of which a placeholder of letters is made: `dbpass`, `UserId`, `accessKey`, `somepw`.
_LOGIN = re.compile(r"pass|pw|user|login|admin", re.I)
_ROLE = re.compile(r"pass|pw|user|login|admin|auth|key|name|root|guest|email|domain|string|account|client", re.I)
# Two letters that no word of a European language has side by side, at most a name that is made of two.
_NO_PAIR = re.compile(
    "a(?=q)|b(?=[ghkqvwxz])|c(?=[gjqvwxz])|d(?=[kqxz])|f(?=[ghjkmnqvwxz])|g(?=[jkqwxz])|h(?=[ghjkqvwxz])|i(?=[hwy])"
    "|j(?=[bcdfghklnpqrtvwxyz])|k(?=[fgjkqvxyz])|l(?=[hjqwxz])|m(?=[ghjkqwxz])|n(?=[qxz])|o(?=[qz])|p(?=[bjqwxz])"
    "|q(?=[b-km-tvwxyz])|r(?=[jqxz])|s(?=[jxz])|t(?=[jqx])|u(?=[hjquvwxyz])|v(?=[bdfghjknpqrtuvwxyz])"
    "|w(?=[bdfgjkmpqtuvwxyz])|x(?=[dghjknoqruvwz])|y(?=[hjkqwxyz])|z(?=[bcdfghjklmnpqrstuvwx])"
)
_CONSONANTS = re.compile(r"[^aeiouy ]{5}")
# A word in a name of several: `getPass`, `HTTPServer`.
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# Where a character is of another kind than the next.
_CHANGE = re.compile(r"[a-z](?![a-z])|[A-Z](?![A-Z])|\d(?!\d)|[^\w\s](?=[\w])", re.ASCII)
# Letters below these numbers say too little; a single word has hardly ever as many as the last.
_LETTERS, _LETTERS_AND_SIGNS, _LETTERS_OF_KEY, _LETTERS_OF_PHRASE = 8, 10, 16, 16
# A passphrase: three words or more, joined.
_JOINED = re.compile(r"[A-Za-z]{3,}(?:-[A-Za-z]{3,}){3,9}|[A-Za-z]{3,}(?:_[A-Za-z]{3,}){3,9}")


def is_password(value: str) -> bool:
    """Return whether a value that stands where a password does is one: no word for it, path or variable."""
    return (
        re.search(r"[0-9]", value) is not None
        and re.search(r"[a-zA-Z]", value) is not None
        and not _CALL.search(value)
        and not _VARIABLE.search(value)
        and not is_filler(value)
        and not is_filler(decoded(value))
    ) or is_drawn_of_letters(value)


def is_set_password(value: str) -> bool:
    """Return whether a password's name is set to one in settings, where a phrase of words or any sign will do."""
    return is_password(value) or is_phrase(value) or is_generated(value)


def is_login_password(value: str) -> bool:
    """Return whether a connection is opened with this password: any word will do that does not say what it is for."""
    is_word = len(value) >= _LETTERS and value.isalpha() and value.isascii()
    return is_set_password(value) or (is_word and not is_filler(value) and not _ROLE.search(value))


def is_given(value: str) -> bool:
    """Return whether a program or a function is given this password."""
    return is_password(value) or is_generated(value)


def is_drawn_of_letters(value: str, least: int = _LETTERS) -> bool:
    """Return whether `least` letters or more, and nothing else, are no word and no name: drawn, or typed blindly."""
    if len(value) < least or not (value.isascii() and value.isalpha()):
        return False
    if _EMPTY.search(value) or _ROLE.search(value):
        return False
    pieces = _PIECE.findall(value)
    lower = " ".join(pieces).lower()
    strange = len(_NO_PAIR.findall(lower))
    is_strange = strange > 1 or (strange == 1 and _CONSONANTS.search(lower) is not None)
    is_short = not value.isupper() and 2.5 * len(pieces) >= len(value)
    return (is_strange and 8 * strange >= len(value) and list(lower) != sorted(lower)) or is_short


def is_phrase(value: str) -> bool:
    """Return whether a value is several words, joined or not, which do not say what a password is for."""
    is_joined = _JOINED.fullmatch(value) is not None
    is_one = len(value) >= _LETTERS_OF_PHRASE and value.isascii() and value.isalpha() and value[1:].islower()
    return (is_joined or is_one) and not _EMPTY.search(value) and not _LOGIN.search(value)


def is_generated(value: str) -> bool:
    """Return whether a program drew a password of letters, digits and signs, whatever signs it has."""
    kinds = sum(bool(re.search(kind, value)) for kind in ("[a-z]", "[A-Z]", "[0-9]", r"[^\w\s]"))
    has_cases = value != value.lower() and value != value.upper()
    return (
        len(value) >= _LETTERS_AND_SIGNS
        and kinds > 2
        and (has_cases or sum(map(str.isdigit, value)) > 1)
        and 5 * len(_CHANGE.findall(value)) >= 2 * len(value)
        and not _TEMPLATE.search(value)
        and not is_filler(value)
        and not is_filler(decoded(value))
    )


def is_filler(value: str) -> bool:
    """Return whether a value is one of the words that stand where a password will be, and little else.

    A password may hold such a word; then something of letters and digits is left beside it.
    """
    if not _EMPTY.search(value):
        return False
    rest = re.findall(r"[^\W_]{4,}", _EMPTY.sub(" ", value))
    return _NEVER.search(value) is not None or not any(
        re.search(r"\d", part) and re.search(r"[^\W\d]", part) for part in rest
    )


def is_typed(value: str) -> bool:
    """Return whether quoted text in code, set to a password's name, is one, not a name of something."""
    has_usual_signs = re.fullmatch(r"(?:[\w!@#^&*?+=~.-]|\\[^\w\s]|'')+", value) is not None
    return is_typed_or_random(value) or (has_usual_signs and is_password(value)) or is_generated(value)


def is_typed_or_random(value: str) -> bool:
    """Return whether quoted text is a password as people make them, with signs and letters of both cases, or random."""
    has_signs = re.search(r"[!@#%^&*?+=~]", value) is not None and value != value.lower() and len(value) > 7
    return (has_signs and is_password(value)) or is_drawn(value)


def is_mixed(value: str) -> bool:
    """Return whether a value is a password where a name with a number may stand as well: queue-1, photos2024."""
    has_cases = value != value.lower() and value != value.upper()
    changes = re.search(r"[!#%^&*?+=~$]|^[^-]*\d[a-z]+\d[^-]*$", value) is not None
    return is_generated(value) or (is_password(value) and (has_cases or changes))


def is_login(value: str) -> bool:
    """Return whether a value is a user, ":" and a password."""
    login = re.fullmatch(r"[\w.@+-]{2,64}:([^\s:/]{5,128})", value)
    return login is not None and is_mixed(login[1])


def is_base64_login(value: str) -> bool:
    """Return whether a value is the Base64 of a user, ":" and a password."""
    password = decoded(value).partition(":")[2]
    return len(password) > 3 and is_password(password)


def decoded(value: str) -> str:
    """Return the text that a value is the Base64 of, or ""."""
    try:
        text = b64decode(value + "=" * (-len(value) % 4), "-_", validate=True).decode("ascii")
    except ValueError:
        return ""
    return text if text.isprintable() else ""


def is_random(value: str, least: int = 20) -> bool:
    """Return whether a value of `least` characters or more was drawn at random.

    It is a UUID, hexadecimal digits, letters of both cases and digits, or of one case and digits that alternate.
    """
    if (
        len(value) < least
        or _EMPTY.search(value)
        or _CALL.search(value)
        or not re.fullmatch(r"[\w+/=.~!@#%^&*()-]+", value, re.ASCII)
    ):
        return False
    digits = sum(map(str.isdigit, value))
    if re.fullmatch(r"[0-9a-f]{32,}|[0-9A-F]{32,}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value):
        return digits >= max(3, len(value) // 12)
    if re.fullmatch(r"[0-9a-z]+|[0-9A-Z]+", value):
        return 10 * len(re.findall(r"\d(?!\d)", value)) >= len(value) and entropy(value) > 3.2
    is_mixed = value != value.lower() and value != value.upper() and ("_" not in value or 8 * digits >= len(value))
    changes = len(re.findall(r"[a-z](?![a-z])|[A-Z](?![A-Z])|\d(?!\d)", value))
    has_digits = digits >= max(3, len(value) // 12) or (digits > 0 and value.isalnum() and 2.5 * changes >= len(value))
    return has_digits and is_mixed and entropy(value) > 3.7 and "." not in value and not _EMPTY.search(decoded(value))


def is_drawn(value: str) -> bool:
    """Return whether the value of a key or token was drawn at random; 16 letters will do there."""
    return is_random(value, 16) or is_drawn_of_letters(value, _LETTERS_OF_KEY)


def is_key(value: str) -> bool:
    """Return whether the value of what is called a key was drawn: 10 letters and digits that keep changing will do."""
    return is_drawn(value) or _keeps_changing(value, r"[A-Za-z0-9](?:-?[A-Za-z0-9]){9,19}", 5, 3)


def is_short_token(value: str) -> bool:
    """Return whether the value of a token was drawn: 8 letters and digits that keep changing will do."""
    return is_drawn(value) or _keeps_changing(value, r"[A-Za-z0-9]{8,15}", 4, 2)


def _keeps_changing(value: str, form: str, least_runs: int, least_digits: int) -> bool:
    """Return whether a value of a form has that many runs of letters or of digits, none of letters a word."""
    runs = re.findall(r"[0-9]+|[A-Za-z]+", value)
    return (
        re.fullmatch(form, value) is not None
        and len(runs) >= least_runs
        and sum(map(str.isdigit, value)) >= least_digits
        and all(len(run) < 5 for run in runs if run.isalpha())
        and not _EMPTY.search(value)
    )


def entropy(value: str) -> float:
    """Return the bits per character."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())
