"""Find tokens, passwords and private keys in the text of any file.

The rules are our own because the scanners available as libraries take a tenth of a second per file. `issuers` has what
is known by its looks, `private_keys` keys; `addresses`, `commands` and `calls` what is logged in with, `manifests`
Kubernetes' Secrets, `tables` what a column's name says. `named` has what is set to a name that says it: in quotes,
without (`bare`), or as one of several (`lists`); `names` has those names, and `values` judges a value by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from c2llm_integrations.code.secrets.addresses import find_in_addresses
from c2llm_integrations.code.secrets.calls import find_arguments
from c2llm_integrations.code.secrets.commands import find_in_commands
from c2llm_integrations.code.secrets.issuers import find_hashes, find_tokens, is_token
from c2llm_integrations.code.secrets.manifests import find_manifest_secrets
from c2llm_integrations.code.secrets.named import find_named
from c2llm_integrations.code.secrets.private_keys import find_wallet_keys, find_web_keys, has_private_key
from c2llm_integrations.code.secrets.tables import find_in_tables

__all__ = ["BLOT", "find_secrets", "has_private_key", "is_token", "without_secrets"]

# Replaces a secret.
BLOT = "[secret]"
_FINDERS = (
    *(find_tokens, find_hashes, find_in_addresses, find_in_commands, find_arguments, find_web_keys),
    *(find_wallet_keys, find_manifest_secrets, find_in_tables),
)


def find_secrets(text: str, settings: bool) -> Iterator[tuple[int, int]]:
    """Yield where each secret begins and ends; `settings`: the text has names and values, as YAML or .properties."""
    for find in _FINDERS:
        yield from find(text)
    yield from find_named(text, settings)


def without_secrets(text: str, settings: bool) -> str:
    """Return a text with each secret replaced by `BLOT`; line numbers stay the same."""
    out, end = [], 0
    for start, stop in sorted(find_secrets(text, settings)):
        if start >= end:
            out += [text[end:start], BLOT]
        end = max(end, stop)
    return "".join([*out, text[end:]])
