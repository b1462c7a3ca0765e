"""Find secrets that look like nothing else: tokens by their issuer, and passwords as systems store them, hashed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from c2llm_integrations.code.secrets.values import entropy, is_filler, is_set_password

# Runs of characters that are long enough for a token, and what tokens look like by their issuer.
_RUN = re.compile(r"[A-Za-z0-9_.~+/=:-]{20,}")
_TOKENS = (
    # Amazon, GitHub, GitLab
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Z0-9])",
    r"gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{60,}",
    r"gl(?:pat|dt|rt|ptt|agent|soat|cbt|ft|imt|ffct|oas|wt|rtr)-[\w-]{20,}|GR1348941[\w-]{20}",
    # Azure
    r"[\w~.-]{3}\dQ~[\w~.-]{31,34}|[A-Za-z0-9]{52}JQQJ99[A-Za-z0-9]{18}AZDO[A-Za-z0-9]{4}",
    r"[A-Za-z0-9+/]{64,90}(?:\+ASt|AStG|ACDb|\+ACR|AzFu|AzSe|AIoT)[A-Za-z0-9+/]{4,12}={0,2}",
    # Atlassian
    r"ATATT3[\w=-]{50,}|ATBB[A-Za-z0-9]{24,}|ATCTT3[\w=-]{50,}",
    # Slack, Discord
    r"xox[abeoprs](?:\.xox[bp])?(?:-[A-Za-z0-9]+){2,}|xapp-\d-[A-Z0-9]+-\d+-[a-z0-9]+",
    r"hooks\.slack\.com/services/T\w{8,}/B\w{8,}/\w{20,}",
    r"discord(?:app)?\.com/api/webhooks/\d{15,}/[\w-]{50,}|[MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27,38}",
    # Stripe, Google
    r"(?:sk|rk)_(?:live|test|prod)_\w{20,}|whsec_[A-Za-z0-9+/]{32,}",
    r"AIza[\w-]{35}(?![\w-])|GOCSPX-[\w-]{28}|ya29\.[\w-]{40,}",
    # providers of language models
    r"sk-(?:proj|svcacct|admin|or-v1|lf)-[\w-]{32,}|sk-ant-[\w-]{32,}|sk-[A-Za-z0-9]{32,}",
    r"hf_[A-Za-z0-9]{34}(?!\w)|api_org_[A-Za-z]{34}|r8_\w{37}|gsk_[A-Za-z0-9]{48,}|xai-[A-Za-z0-9]{70,}|pplx-[A-Za-z0-9]{40,}",
    # senders of mail and text messages
    r"SG\.[\w-]{20,24}\.[\w-]{39,50}|key-[0-9a-f]{32}(?!\w)|xkeysib-[0-9a-f]{64}-\w{16}|SK[0-9a-f]{32}(?!\w)",
    # registries of packages and images
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-AgE[\w-]{50,}|rubygems_[0-9a-f]{48}|oy2[a-z0-9]{43}|dckr_[po]at_[\w-]{27,}",
    # clouds, clusters and what manages their secrets
    r"do[oprt]_v1_[0-9a-f]{64}|hv[sbr]\.[\w-]{24,}|\w{14}\.atlasv1\.[\w-]{60,}|dapi[0-9a-f]{32}|dp\.(?:pt|st|ct|sa)\.\w{40,}",
    r"SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}",
    # shops, monitoring, and other services
    r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}|EAACEdEose0cBA\w+|sq0(?:csp|atp)-[\w-]{22,}|NRAK-[A-Z0-9]{27}|glsa_\w{32}_[0-9a-f]{8}",
    r"glc_[\w+/=]{32,}|nvapi-[\w-]{60,}|tvly-[\w-]{20,}|lsv2_[ps][tk]_\w{40,}|sb_secret_\w{20,}|pul-[0-9a-f]{40}",
    r"pat-(?:na|eu)\d-[0-9a-f-]{36}|pat\w{14}\.[0-9a-f]{64}|HRKU-[\w-]{36,}|[0-9a-f]{32}-us\d{1,2}(?!\w)|CFPAT-[\w-]{43}|napi_\w{60,}",
    r"lin_api_\w{40}|ntn_\w{40,}|secret_[A-Za-z0-9]{43}(?!\w)|PMAK-[0-9a-f]{24}-[0-9a-f]{34}|sbp_[0-9a-f]{40}",
    r"pscale_(?:tkn|pw|oauth)_[\w=.-]{32,}|fo1_[\w-]{43}|FlyV1fm\d_[\w+/=]{80,}|CCIPAT_\w+|bkua_[0-9a-f]{40}",
    r"sntry[su]_[\w+/=]{50,}|figd_[\w-]{38,}|tskey-\w+-\w+-\w+|AGE-SECRET-KEY-1[0-9A-Z]{50,}|\d{8,10}:AA[\w-]{33}(?![\w-])",
    # keys of Laravel
    r"base64:(?:[A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{22}==)(?![\w+/=])",
    # JSON Web Tokens
    r"eyJ[\w-]{16,300}\.eyJ[\w-]{16,2000}\.[\w-]{20,}",
)
_TOKEN = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(_TOKENS)})", re.ASCII)
_SAMPLE = re.compile(r"example|your|abcdefgh|(.)\1{5}", re.I)
# What follows the "$" of a stored password: crypt's methods, which /etc/shadow and .htpasswd have, Argon2 and PBKDF2.
_HASHES = (
    r"(?:1|apr1)\$[\w./]{1,8}\$[\w./]{22}",
    r"5\$(?:rounds=\d{1,9}\$)?[\w./]{1,16}\$[\w./]{43}|6\$(?:rounds=\d{1,9}\$)?[\w./]{1,16}\$[\w./]{86}",
    r"2[abxy]?\$\d\d\$[\w./]{53}|g?y\$[\w./]{1,9}\$[\w./]{1,86}\$[\w./]{43}|7\$[\w./]{11,86}\$[\w./]{43}",
    r"(?:argon2(?:id|[id])|scrypt)\$(?:v=\d{1,3}\$)?[\w=,]{1,40}\$[\w+/]{11,86}\$[\w+/]{22,172}",
    r"pbkdf2(?:-sha\d{1,3})?\$\d{1,9}\$[\w./]{8,86}\$[\w./]{27,172}",
)
_HASH = re.compile(rf"\$(?:{'|'.join(_HASHES)})(?![\w./])", re.ASCII)
# The same of frameworks (Django), directories (LDAP), and databases (PostgreSQL, MySQL), and one that Windows had.
_OTHER_HASH = re.compile(
    r"\b(?:pbkdf2_sha\d{1,3}\$\d{1,9}\$\w{4,86}\$[\w+/]{27,86}={0,2}|SCRAM-SHA-256\$\d{1,9}:[\w+/=]{8,86}\$[\w+/=]{44}:[\w+/=]{44}"
    r"|[0-9a-fA-F]{32}:[0-9a-fA-F]{32}(?=:::))|\{S?(?:SHA\d{0,3}|MD5)\}[\w+/]{22,172}={0,2}(?![\w+/])|(?<=')\*[0-9A-F]{40}(?=')",
    re.ASCII,
)
# The oldest of crypt's methods on a line of .htpasswd; its 13 characters alone say little.
_OLD_HASH = re.compile(r":(?=[./\w]{0,12}[0-9])(?=[./\w]{0,12}[A-Z])([./A-Za-z0-9]{13})(?=\r?\n|$)", re.ASCII)
_USER_BEFORE = re.compile(r"(?:^|\n)[\w.@-]{1,64}$", re.ASCII)
# Those of network devices, after the number of how they are written: in clear, reversibly (7), hashed, or in Base64.
_WRITTEN = re.compile(
    r"\b(?:password|secret|key|key-string|pre-shared-key|community) {1,4}(?:level \d{1,2} {1,4})?"
    r"(?:[68] {1,4}(\$[^\s\"']{20,200})|6 {1,4}([A-i]{18,200})(?!\S)"
    r"|9 {1,4}(\$9\$[^\s\"']{20,200})|7 {1,4}[\"']?([0-9A-Fa-f]{8,130})(?![\w.])"
    r"|4 {1,4}([A-Za-z0-9./]{43})(?!\w)|0 {1,4}[\"']?([^\s\"'`<>{}()\[\],;]{4,128}))"
)
# As Juniper writes them, and the seed of one-time passwords, or several of them, in the URI that a QR code shows.
_JUNIPER = re.compile(r"-(?:key|password|text)[ \t]{1,4}\"(\$[189]\$[^\s\"]{6,200})\"")
_SEED = re.compile(
    r"otpauth(?:-migration)?://[^\s\"'`<>]{0,200}?[?&](?:secret=([A-Za-z2-7]{12,256}={0,6})|data=([\w%+/=-]{20,4096}))"
)


def is_token(text: str) -> bool:
    """Return whether a text holds what looks like a token by its issuer, even if it is a sample."""
    return _TOKEN.search(text) is not None


def find_tokens(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each token begins and ends."""
    for run in _RUN.finditer(text):
        for match in _TOKEN.finditer(run[0]):
            if entropy(match[0]) > 3.2 and not _SAMPLE.search(match[0]):
                yield run.start() + match.start(), run.start() + match.end()


def find_hashes(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each stored password begins and ends."""
    if "$" in text:
        yield from (match.span() for match in _HASH.finditer(text) if not _SAMPLE.search(match[0]))
    if any(sign in text for sign in ("pbkdf2_", "SCRAM-", ":::", "SHA", "MD5}", "'*")):
        yield from (match.span() for match in _OTHER_HASH.finditer(text) if not _SAMPLE.search(match[0]))
    if any(map(text.__contains__, ("password", "secret", "key 6", "key 7", "key-string", "community"))):
        for match in _WRITTEN.finditer(text):
            group = match.lastindex or 0
            if group < 6 or is_set_password(match[group]):
                yield match.span(group)
    if '"$' in text:
        yield from (match.span(1) for match in _JUNIPER.finditer(text))
    for match in _SEED.finditer(text) if "otpauth" in text else ():
        if not is_filler(match[match.lastindex or 0]):
            yield match.span(match.lastindex or 0)
    for match in _OLD_HASH.finditer(text):
        if _USER_BEFORE.search(text[max(0, match.start() - 65) : match.start()]):
            yield match.span(1)
