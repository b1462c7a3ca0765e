"""Find tokens, passwords and private keys in the text of any file.

The rules are our own because the scanners available as libraries take a tenth of a second per file.
"""

from __future__ import annotations

import math
import re
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator

# Replaces a secret.
BLOT = "[secret]"

# Runs of characters that are long enough for a token, and what tokens look like by their issuer.
_RUN = re.compile(r"[A-Za-z0-9_.~+/=:-]{20,}")
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Z0-9])"  # Amazon
    r"|gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{60,}|gl(?:pat|dt|rt|ptt|agent|soat|cbt|ft|imt|ffct|oas|wt|rtr)-[\w-]{20,}"
    r"|GR1348941[\w-]{20}"  # GitLab
    r"|[\w~.-]{3}\dQ~[\w~.-]{31,34}|[A-Za-z0-9]{52}JQQJ99[A-Za-z0-9]{18}AZDO[A-Za-z0-9]{4}"  # Azure
    r"|[A-Za-z0-9+/]{64,90}(?:\+ASt|AStG|ACDb|\+ACR|AzFu|AzSe|AIoT)[A-Za-z0-9+/]{4,12}={0,2}"
    r"|ATATT3[\w=-]{50,}|ATBB[A-Za-z0-9]{24,}|ATCTT3[\w=-]{50,}"  # Atlassian
    r"|xox[abeoprs](?:\.xox[bp])?(?:-[A-Za-z0-9]+){2,}|xapp-\d-[A-Z0-9]+-\d+-[a-z0-9]+"  # Slack
    r"|hooks\.slack\.com/services/T\w{8,}/B\w{8,}/\w{20,}"
    r"|discord(?:app)?\.com/api/webhooks/\d{15,}/[\w-]{50,}|[MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27,38}"  # Discord
    r"|(?:sk|rk)_(?:live|test|prod)_\w{20,}|whsec_[A-Za-z0-9+/]{32,}"  # Stripe
    r"|AIza[\w-]{35}(?![\w-])|GOCSPX-[\w-]{28}|ya29\.[\w-]{40,}"  # Google
    r"|sk-(?:proj|svcacct|admin|or-v1|lf)-[\w-]{32,}|sk-ant-[\w-]{32,}|sk-[A-Za-z0-9]{32,}"  # models
    r"|hf_[A-Za-z0-9]{34}(?!\w)|api_org_[A-Za-z]{34}|r8_\w{37}|gsk_[A-Za-z0-9]{48,}|xai-[A-Za-z0-9]{70,}|pplx-[A-Za-z0-9]{40,}"
    r"|SG\.[\w-]{20,24}\.[\w-]{39,50}|key-[0-9a-f]{32}(?!\w)|xkeysib-[0-9a-f]{64}-\w{16}|SK[0-9a-f]{32}(?!\w)"  # mail
    r"|npm_[A-Za-z0-9]{36}"
    r"|pypi-AgE[\w-]{50,}|rubygems_[0-9a-f]{48}|oy2[a-z0-9]{43}|dckr_[po]at_[\w-]{27,}"  # registries
    r"|do[oprt]_v1_[0-9a-f]{64}|hv[sbr]\.[\w-]{24,}|\w{14}\.atlasv1\.[\w-]{60,}|dapi[0-9a-f]{32}|dp\.(?:pt|st|ct|sa)\.\w{40,}"
    r"|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}|EAACEdEose0cBA\w+|sq0(?:csp|atp)-[\w-]{22,}|NRAK-[A-Z0-9]{27}|glsa_\w{32}_[0-9a-f]{8}"
    r"|glc_[\w+/=]{32,}|nvapi-[\w-]{60,}|tvly-[\w-]{20,}|lsv2_[ps][tk]_\w{40,}|sb_secret_\w{20,}|pul-[0-9a-f]{40}"
    r"|pat-(?:na|eu)\d-[0-9a-f-]{36}|pat\w{14}\.[0-9a-f]{64}|HRKU-[\w-]{36,}|[0-9a-f]{32}-us\d{1,2}(?!\w)|CFPAT-[\w-]{43}|napi_\w{60,}"
    r"|lin_api_\w{40}|ntn_\w{40,}|secret_[A-Za-z0-9]{43}(?!\w)|PMAK-[0-9a-f]{24}-[0-9a-f]{34}|sbp_[0-9a-f]{40}"
    r"|pscale_(?:tkn|pw|oauth)_[\w=.-]{32,}|fo1_[\w-]{43}|FlyV1fm\d_[\w+/=]{80,}|CCIPAT_\w+|bkua_[0-9a-f]{40}"
    r"|sntry[su]_[\w+/=]{50,}|figd_[\w-]{38,}|tskey-\w+-\w+-\w+|AGE-SECRET-KEY-1[0-9A-Z]{50,}|\d{8,10}:AA[\w-]{33}(?![\w-])"
    r"|eyJ[\w-]{16,300}\.eyJ[\w-]{16,2000}\.[\w-]{20,}"  # JSON Web Tokens
    r")",
    re.ASCII,
)
_URL = re.compile(r"://([^\s:/@'\"`<>(){}\[\]]{0,400})(?::([^\s/@'\"`<>{}]{4,256}))?@[\w\[]")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_BEARER = re.compile(r"(?:bearer|basic|token)[ \t]{1,3}([\w.~+/-]{20,400}=*)", re.I)
_BASIC = re.compile(r"(?:basic\s{1,3}|auth[\"']?\s{0,3}[:=]\s{0,3}[\"']?)([A-Za-z0-9+/_-]{8,400}={0,2})", re.I)
# Where a value is followed by what it cannot hold, `(?=(…))\1` takes it as a whole: no shorter one fits, and trying
# each would take a hundred steps at every word of a long line.
# A name that says it, and what it is set to: in quotes, or in settings to the end of the line or element.
_WORD = re.compile(
    r"pass(?:w(?:or)?[dt]|phrase|(?![a-z_])(?<!(?:by|uy|om|es|ur)pass))|pwd|secret|token|credential|bearer|basic"
    r"|(?:api|access|auth|private|account|encryption|signing)[_-]?key|auth(?![a-z_])|sig(?==)"
)
_PASSWORDS = ("pass", "pwd", "secret")
# What tells something about a password.
_ABOUT = re.compile(
    r"[\w-]{0,20}?(?:ref|name|policy|file|path|type|field|class|version|provider|length|ur[il]|label|hint|format|input)s?\b",
    re.I,
)
_QUOTED = re.compile(
    r"[\w-]{0,20}\\?[\"']?(?:\[?\d{0,3}\])?!?(?:\s{0,3}:\s{0,3}(?:&(?:'static )?)?[\w.]{1,20}(?=\s{0,8}=)"
    r"|\sas\s\w{1,20}(?=\s{0,8}=)|\s?\{[\w\s;]{0,40}\}(?=\s{0,8}=))?"
    r"\s{0,8}(?:=>|<-|:=|={1,3}|\|\|=?|\?\?=?|[:,(]|(?<=[ \t])(?=[\"']))\s{0,8}"
    r"[brun@]?\\?(?:\"\"|'')?[\"'`](?=([^\"'`\s\\]{6,200}))\1\\?[\"'`]",
    re.I,
)
_BARE = re.compile(r"[\w-]{0,20}[\"']?(?:\s{0,3}=\s{0,3}|:\s?)(?=([\w+/=.~%-]{20,400}))\1(?![\w+/=.~%(\[-])")
_PART = re.compile(r"\s{0,3}=\s{0,3}(?=([^;\"'\s]{6,200}))\1(?:[;\"']|\s|$)")
_BEFORE_PART = re.compile(r"(?:;\s?|[\"']|\w=(?:[^\s,;(]{1,60} )?)[\w.-]{0,30}$")
_SETTING = re.compile(
    r"[\w.-]{0,20}[\"']?(?:\s{0,8}[:=]\s{0,8}|>\s{0,8}|\"\s{1,8}value=)[\"']?([^\s\"'<>,;]{6,200})", re.I
)
# Without quotes: in a line that is nothing else, in the environment of a command, and as an option of one.
_LINE = re.compile(r"[\w.-]{0,20}\s?[:=]\s{0,3}(?=([^\s\"'`,;]{6,200}))\1[ \t]*(?:\r?\n|$)")
_BEFORE_LINE = re.compile(
    r"(?:^|\n)[ \t]*(?:[-*#] )?(?:(?:export|set|setx|env|arg|local|readonly) )?[\w.-]{0,30}$", re.I
)
_ENVIRONMENT = re.compile(r"[A-Z0-9_]{0,20}=(?=([^\s\"'`;&|<>(),]{6,200}))\1(?=[\s\"'`;&|]|$)")
_OPTION = re.compile(r"[\w-]{0,20}[=\s]\s{0,3}[\"']?([^\s\"'`;&|<>,]{6,200})", re.I)
_BEFORE_OPTION = re.compile(r"(?:(?:^|[\s\"'])(?:--?|#\s?define |env |arg |setx? )|[?&])[\w.-]{0,30}$", re.I)
# A name and its value in two fields, as Kubernetes and Postman write them; a variable of Terraform with its default.
_PAIR = re.compile(
    r"[\w-]{0,20}[\"']?\s{0,3},?\s{0,40}(?:\{\s{0,8})?[\"']?(?:value|default)[\"']?\s{0,3}[:=]\s{0,3}[\"']?([^\s\"',;]{6,200})",
    re.I,
)
_BEFORE_PAIR = re.compile(r"(?:\b(?:name|key)[\"']?\s{0,3}[:=]\s{0,3}|variable\s)[\"']?[\w.-]{0,30}$", re.I)
# What must precede each; a line of data goes on for longer than those reach that a value must end in.
_PRECEDED = ((_PART, _BEFORE_PART), (_LINE, _BEFORE_LINE), (_OPTION, _BEFORE_OPTION))
_PRECEDED_IN_SETTINGS = (*_PRECEDED, (_PAIR, _BEFORE_PAIR))
_PRECEDED_IN_DATA = ((_OPTION, _BEFORE_OPTION),)
_DATA = re.compile(r"[\w+/=.~%-]{450}")
# The private numbers of a JSON Web Key, and a symmetric one.
_WEB_KEY = re.compile(r"[\"'](?:d|p|q|dp|dq|qi|k)[\"']\s{0,3}:\s{0,3}[\"']([\w-]{22,2000})[\"']")
_NEXT = r"(?:[\"',\s]{0,4}|=)"
_REST = r"[ \t\"',](?:[^\n|;]|\\\n){0,200}?(?<=[\s\"'])"
_COMMAND = re.compile(
    rf"\b(?:(?:curl|wget|https?|xh){_REST}(?:-[uUa]|--(?:user|proxy-user|auth)){_NEXT}[^\s:\"'/]{{1,64}}:"
    rf"|(?:mysql\w{{0,9}}|mariadb[\w-]{{0,9}}|7za?|unrar|rar){_REST}-p[\"']?"
    rf"|(?:smbclient|rpcclient){_REST}(?:-U|--user){_NEXT}[^\s%\"']{{1,64}}%"
    rf"|(?:openssl|keytool|jarsigner){_REST}-(?:k|pass(?:in|out)?|(?:src|dest)?(?:store|key)pass){_NEXT}(?:pass:)?"
    r"|(?:auth=|HTTPBasicAuth|\.login)\([\"'][^\"'\s]{1,64}[\"'], ?[\"']|ConvertTo-SecureString (?:-String )?[\"']"
    r"|login\s{1,8}\S{1,64}\s{1,8}password\s{1,8}|(?:bind|root)pw[ \t]{1,8}"
    r"|(?i:identified\sby|(?:with|encrypted|role\s\w{1,64})\spassword)\s[\"']"
    r"|(?:sshpass|(?:docker|podman|helm(?: registry)?|skopeo|oc|az) login|mongo\w{0,6}|lftp|mosquitto_\w{3}|sqlcmd|bcp"
    r"|zip|unzip|redis-cli|ldap\w{3,9})"
    rf"{_REST}-[pPaw]{_NEXT})([^\s\"'`;&|<>,]{{5,128}})"
)
_SAMPLE = re.compile(r"example|your|abcdefgh|(.)\1{5}", re.I)
# Variables of shells and templates, calls, and paths.
_CALL = re.compile(r"\w\((?:.*\)|$)")
_VARIABLE = re.compile(r"\$[({]|^\$\w+$|\$[A-Z_]{3}|[{}<>|\[\]]|%[sdr(]|%\w+%|^[/.~\\(]|^0x[0-9a-fA-F]+$|^[a-z]+://")
_NEVER = re.compile(r"example|sample|placeholder|change[-_]?me|your|insert|replace|redacted", re.I)
_EMPTY = re.compile(
    r"example|sample|dummy|fake|test|placeholder|changeme|change[-_]me|your|insert|replace|redacted|todo|fixme|default"
    r"|secret|p[a@4]s{1,2}w(?:[o0]?rd)?\d{0,4}|token|apikey|api[-_]key|my[-_]|foo|bar|xxx|\*\*\*|\.\.\.|(.)\1\1\1|0123456|1234567|abcdef|abc123|qwerty"
    r"|sha-?\d|md5|utf-?8|base64|oauth|x509|pkcs|none|null|true|false|undefined",
    re.I,
)
# A private key: its frame, and 40 characters of it after what string literals, comments and escapes put between.
_FRAME = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
# The same of PuTTY, whose number of lines alone says that a key follows, and of commercial SSH.
_OTHER_KEY = re.compile(r"^(?:Private-Lines: \d|---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----$)", re.MULTILINE)
# Each text can be read in one way only, or a few lines that are no key would take for ever: a header begins with a
# letter, which is never between, and ends with its line, or with its word where all stand on one line.
_BETWEEN = r"(?:[\s\"'`+.,;#*/>|&()-]|\\(?:[rn]|(?![rn])))"
_HEADER = r"[A-Za-z][\w-]{0,39}: "
_FRAMED_KEY = re.compile(
    rf"\A\s*{_FRAME}"
    rf"|{_FRAME}{_BETWEEN}{{1,80}}(?:(?:{_HEADER}[^\n\\]{{0,200}}(?=[\n\\]){_BETWEEN}{{1,80}}){{0,9}}"
    rf"|(?:{_HEADER}\S{{1,200}} {{1,9}}){{1,9}})[A-Za-z0-9+/=]{{40}}"
)
# Without a frame, how its Base64 begins: DER (PKCS #1 and #8, elliptic curves), OpenSSH, a whole PEM file.
_BARE_KEY = re.compile(
    r"(?:MI(?:[A-Za-z0-9+/]{3,6}(?:IBA(?:DANBgkqhkiG9w0BAQEF|AKC|AKB)|AgEAAoI|BgkqhkiG9w0BBQ)|[GH][A-Za-z0-9]AgEAMB[AM]GByqGSM49"
    r"|GkAgEBB|HcAgEBB)|MHcCAQEEI|MC4CAQAwBQYDK2V|b3BlbnNzaC1rZXktdjE"
    r"|LS0tLS1CRUdJTiB(?:QUklW|SU0EgUFJ|FQyBQUk|PUEVO|FTkNS|EU0EgUFJ))[A-Za-z0-9+/=]{20}"
)


def has_private_key(text: str) -> bool:
    """Return whether a text holds a private key, framed or bare."""
    is_framed = "PRIVATE KEY" in text and _FRAMED_KEY.search(text) is not None
    is_other = "PuTTY-User-Key-File" in text or "---- BEGIN SSH2" in text
    return is_framed or _BARE_KEY.search(text) is not None or (is_other and _OTHER_KEY.search(text) is not None)


def is_token(text: str) -> bool:
    """Return whether a text holds what looks like a token by its issuer, even if it is a sample."""
    return _TOKEN.search(text) is not None


def find_secrets(text: str, settings: bool) -> Iterator[tuple[int, int]]:
    """Yield where each secret begins and ends; `settings`: the text has names and values, as YAML or .properties."""
    for run in _RUN.finditer(text):
        for match in _TOKEN.finditer(run[0]):
            if _entropy(match[0]) > 3.2 and not _SAMPLE.search(match[0]):
                yield run.start() + match.start(), run.start() + match.end()
    if "://" in text and "@" in text:
        for match in _URL.finditer(text):
            if text.endswith(("http", "https"), 0, match.start()) and _is_random(match[1], 16):
                yield match.span(1)
            if match[2] and _is_in_url(match[2]):
                yield match.span(2)
    yield from (match.span(1) for match in _COMMAND.finditer(text) if _is_password(match[1]))
    if '"kty"' in text:
        yield from (match.span(1) for match in _WEB_KEY.finditer(text) if _is_random(match[1]))
    yield from _find_set(text, settings)


def _find_set(text: str, settings: bool) -> Iterator[tuple[int, int]]:
    lower = text.lower()
    if len(lower) != len(text):  # a few letters become two
        lower = text.encode().lower().decode()
    end = 0
    for word in _WORD.finditer(lower):
        if word.start() < end:  # within a value that was judged: each is judged once
            continue
        for match, is_secret in _values(text, word, settings):
            end = max(end, match.end(1))
            if is_secret(match[1]):
                yield match.span(1)
                break


def _values(text: str, word: re.Match[str], settings: bool) -> Iterator[tuple[re.Match[str], Callable[[str], bool]]]:
    """Yield the values that a name may be set to, each with the test for a secret there."""
    at = word.end()
    is_password = word[0].startswith(_PASSWORDS) and not _ABOUT.match(text, at)
    by_name = _is_password if is_password else _is_drawn
    is_data = _DATA.match(text, at) is not None
    if not is_data and (match := _QUOTED.match(text, at)):
        is_next = "," not in text[at : match.start(1)] or text[at] in "\"'"  # ("password", "…"), no list of names
        yield match, _is_typed if is_password and is_next else _is_typed_or_random
    if not is_data and (match := _BEARER.match(text, word.start()) or _BARE.match(text, at)):
        yield match, _is_random
    if match := _BASIC.match(text, word.start()):
        yield match, _is_basic
    if settings and (match := _SETTING.match(text, at)):
        yield match, by_name
    if not is_data and (match := _ENVIRONMENT.match(text, at)) and text[word.start() : at].isupper():
        yield match, by_name
    before = text[max(0, word.start() - 64) : word.start()]
    preceded = _PRECEDED_IN_SETTINGS if settings else _PRECEDED_IN_DATA if is_data else _PRECEDED
    for pattern, must_precede in preceded:
        if (match := pattern.match(text, at)) and must_precede.search(before):
            yield match, by_name


def _is_password(value: str) -> bool:
    """Return whether a value that stands where a password does is one: no word for it, path or variable."""
    kinds = sum(bool(re.search(kind, value)) for kind in ("[a-z]", "[A-Z]", "[0-9]", "[^a-zA-Z0-9]"))
    return (
        kinds > 1
        and re.search(r"[0-9]", value) is not None
        and re.search(r"[a-zA-Z]", value) is not None
        and not _CALL.search(value)
        and not _VARIABLE.search(value)
        and not _is_filler(value)
        and not _is_filler(_decoded(value))
    )


def _is_filler(value: str) -> bool:
    """Return whether a value is one of the words that stand where a password will be, and little else.

    A password may hold such a word; then something of letters and digits is left beside it.
    """
    if not _EMPTY.search(value):
        return False
    rest = re.findall(r"[^\W_]{4,}", _EMPTY.sub(" ", value))
    return _NEVER.search(value) is not None or not any(
        re.search(r"\d", part) and re.search(r"[^\W\d]", part) for part in rest
    )


def _is_in_url(value: str) -> bool:
    """Return whether what stands between ":" and "@" is a password; a long word is one there."""
    value = _ESCAPE.sub("#1", value)  # no word and no name needs an escape
    return _is_password(value) or (len(value) > 11 and value.isalpha() and not _is_filler(value))


def _is_typed(value: str) -> bool:
    """Return whether quoted text in code, set to a password's name, is one, not a name of something."""
    return _is_typed_or_random(value) or (_is_password(value) and re.fullmatch(r"[\w!@#^&*?+=~.-]+", value) is not None)


def _is_typed_or_random(value: str) -> bool:
    """Return whether quoted text is a password as people make them, with signs and letters of both cases, or random."""
    is_typed = re.search(r"[!@#%^&*?+=~]", value) is not None and value != value.lower() and len(value) > 7
    return (is_typed and _is_password(value)) or _is_drawn(value)


def _is_basic(value: str) -> bool:
    """Return whether a value is the Base64 of a user, ":" and a password."""
    password = _decoded(value).partition(":")[2]
    return len(password) > 3 and _is_password(password)


def _decoded(value: str) -> str:
    """Return the text that a value is the Base64 of, or ""."""
    try:
        text = b64decode(value + "=" * (-len(value) % 4), "-_", validate=True).decode("ascii")
    except ValueError:
        return ""
    return text if text.isprintable() else ""


def _is_random(value: str, least: int = 20) -> bool:
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
        return 10 * len(re.findall(r"\d(?!\d)", value)) >= len(value) and _entropy(value) > 3.2
    is_mixed = value != value.lower() and value != value.upper() and ("_" not in value or 8 * digits >= len(value))
    changes = len(re.findall(r"[a-z](?![a-z])|[A-Z](?![A-Z])|\d(?!\d)", value))
    has_digits = digits >= max(3, len(value) // 12) or (digits > 0 and value.isalnum() and 2.5 * changes >= len(value))
    return has_digits and is_mixed and _entropy(value) > 3.7 and "." not in value and not _EMPTY.search(_decoded(value))


def _is_drawn(value: str) -> bool:
    """Return whether the value of a key or token was drawn at random; 16 letters will do there."""
    return _is_random(value, 16)


def _entropy(value: str) -> float:
    """Return the bits per character."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


def without_secrets(text: str, settings: bool) -> str:
    """Return a text with each secret replaced by `BLOT`; line numbers stay the same."""
    out, end = [], 0
    for start, stop in sorted(find_secrets(text, settings)):
        if start >= end:
            out += [text[end:start], BLOT]
        end = max(end, stop)
    return "".join([*out, text[end:]])
