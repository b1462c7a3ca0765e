"""The name of a repository, the same on every machine: its origin URL without credentials."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from c2llm_integrations.code.secrets import is_token

_SCP = re.compile(r"(?:[^/@:]*@)?(?P<host>[^/:@]{2,}):(?P<path>[^:].*)")  # one letter would be a Windows drive
_MAX_URL_CHARS = 4096
# Characters of no owner or name, plain or escaped: parameters or a password begin there. A scheme's ":" ends a part.
_NO_NAMES = ';?#&:|!*$^,<>"`\\'
_PARAMETERS = re.compile(
    rf"[{re.escape(_NO_NAMES)}](?!$)|[;?#&|]|%(?:25|{'|'.join(f'{ord(one):x}' for one in _NO_NAMES)})", re.I
)
# A segment after which a token stands, and what looks like one: by its prefix, as a UUID, or by digits among letters.
_BEFORE_TOKEN = re.compile(
    r"(?:x[-_])?(?:(?:gitlab[-_]ci|ci[-_]job|personal[-_]access|access|auth|private|deploy|job|api|bearer|oauth2?|refresh)[-_]?)?"
    r"token(?:[-_]auth)?|oauth2?|basic|bearer|api[-_]?key",
    re.I,
)
_TOKEN = re.compile(
    r"(?:gh[a-z]_|github_pat_|gl[a-z]{2,5}-|xox[a-z]-|hf_|npm_|pypi-|dop_v1_|AKIA|ATBB|eyJ).*"
    r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?:.*[^A-Za-z0-9])?(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{16,}(?:[^A-Za-z0-9].*)?"
)


# Names, of one label in a local network or an alias of ssh, and addresses.
_HOST = re.compile(r"[\w-]+(?:\.[\w-]+)*\.?|[0-9a-f.:]*:[0-9a-f.:]*", re.I)


def normalize_origin(url: str) -> str | None:
    """Return "host/path" of a remote URL: no scheme, user, password, port, query or ".git".

    Every way to write one remote gives one name. A path on this machine gives its last part; None means that
    nothing safe is left.
    """
    url = url.strip()
    if len(url) > _MAX_URL_CHARS or re.match(r"\w+::", url):  # after a remote helper commands and tokens may stand
        return None
    scp = None if "://" in url else _SCP.fullmatch(url)
    try:
        parts = urlsplit(url)
        host, path = (scp["host"], scp["path"]) if scp else (_host_of(parts.netloc), parts.path)
    except ValueError:
        return None
    if not scp and ("://" not in url or parts.scheme == "file"):
        folders = re.split(r"[\\/]", path if parts.scheme == "file" else url)
        # `git clone .` leaves "/home/me/repo/."; what ".." stands for is not known here.
        host, path = "", next((one for one in reversed(folders) if one not in ("", ".")), "..")
        path = "" if path == ".." else re.sub(r"^[A-Za-z]:", "", path)  # a drive
    # A password may hold an unescaped "/", a proxy's path a second URL: nothing before an "@" is kept.
    path = "/".join(_without_tokens(re.sub(r"[^/]*@", "", path))).removesuffix(".git").rstrip("/")
    host = re.split(r"[^\w.:%-]|%(?:3b|3f|23|26)", host, flags=re.I)[0]
    if not path or (host and not _is_host(host)):
        return None
    return "/".join(part for part in (host.lower(), path) if part)


def _host_of(netloc: str) -> str:
    """Return the host of a URL with its letters as they stand, by which tokens are known; of an address no zone."""
    host = netloc.rpartition("@")[2]
    return host[1:].partition("]")[0].partition("%")[0] if host.startswith("[") else host.partition(":")[0]


def _is_host(text: str) -> bool:
    return bool(_HOST.fullmatch(text)) and not is_token(text) and not any(map(_TOKEN.fullmatch, text.split(".")))


def _without_tokens(path: str) -> list[str]:
    """Return the parts of a remote's path that name an owner or a repository."""
    kept: list[str] = []
    parts = [part for part in path.split("/") if part]
    announced = False
    for after, whole in zip(range(len(parts) - 1, -1, -1), parts, strict=True):
        part = _PARAMETERS.split(whole)[0]
        is_name = not after and len(kept) < 2  # a gist's, for one, is a number that looks like a token
        is_secret = announced or bool(_TOKEN.fullmatch(part) and not is_name) or is_token(unquote(part))
        has_more = part != whole and after > 1  # a user and a password, before owner and name
        announced = after > 1 and bool(_BEFORE_TOKEN.fullmatch(unquote(part).rstrip(_NO_NAMES)))
        if part and "=" not in unquote(part) and not (announced or is_secret or has_more):
            kept.append(part)
        if part.endswith(".git"):
            break
    return kept
