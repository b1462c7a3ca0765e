"""What an archive says of itself: where it comes from, its licence, and whether that lets us learn from it."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from importlib.metadata import PackageMetadata
from pathlib import Path
from typing import Any

from benchmarks.nano_recipe.corpus import content_of_deb

_PERMISSIVE = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python|HPND|CMU|Unlicense|Zlib|Public.Domain|public-domain|ZPL|Zope|0BSD|CC0|PostgreSQL"
    r"|libpng|BlueOak|Expat|OpenLDAP|BSL|Boost|matplotlib|OpenSSL|^Go$|X11",
    re.IGNORECASE,
)
_COPYLEFT = re.compile(r"GPL|MPL|Mozilla|EPL|Eclipse|CDDL|EUPL|Elastic|SSPL|BUSL|Commercial|GNU", re.IGNORECASE)


def permissive(licence: str) -> bool:
    """Whether a declared licence, or one of its `OR` alternatives, is permissive and not copyleft."""
    choices = re.split(r"\s+OR\s+|\s+or\s+|/|\|", licence)
    return any(_PERMISSIVE.search(choice) and not _COPYLEFT.search(choice) for choice in choices)


def licence_of(archive: Path) -> str:
    """The licence named in a wheel's or sdist's metadata, package.json, or Debian's copyright file; "" if none is."""
    if archive.suffix == ".tgz":
        declared = _package_json(archive).get("license", "")
        return declared if isinstance(declared, str) else str(declared.get("type", ""))
    if archive.suffix == ".deb":
        return _from_debian(_member(content_of_deb(archive), r"share/doc/[^/]+/copyright$"))
    if ".orig.tar." in archive.name:
        beside = sorted(archive.parent.glob(archive.name.split(".orig")[0] + "-*.debian.tar.*"))
        return _from_debian(_member(beside[0].read_bytes(), r"debian/copyright$")) if beside else ""
    return licence_in(_python_metadata(archive))


def licence_in(message: Message | PackageMetadata) -> str:
    """Return the licence that a Python distribution's metadata names; "" if none is."""
    short = (message["License"] or "").strip()
    classifiers = [c.split(" :: ")[-1] for c in message.get_all("Classifier") or [] if c.startswith("License ::")]
    return message["License-Expression"] or (short if 0 < len(short) < 60 else "") or "; ".join(classifiers)


def source_of(archive: Path) -> str:
    """Where an archive comes from, as `fetch` takes it: registry:name=version."""
    if archive.suffix == ".deb" or ".orig.tar." in archive.name:
        kind = "debian" if archive.suffix == ".deb" else "debian-source"
        name, version = archive.name.split(".orig")[0].replace("%3a", ":").split("_")[:2]
        return f"{kind}:{name}={version}"
    if archive.suffix == ".tgz":
        package = _package_json(archive)
        return f"npm:{package['name']}={package['version']}"
    message = _python_metadata(archive)
    return f"pypi:{message['Name']}={message['Version']}"


def _python_metadata(archive: Path) -> Message:
    if archive.suffix != ".whl":
        return Parser().parsestr(_member(archive.read_bytes(), r"^[^/]+/PKG-INFO$"))
    with zipfile.ZipFile(archive) as zipped:
        name = next(name for name in zipped.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(zipped.read(name).decode(errors="replace"))


def _package_json(archive: Path) -> dict[str, Any]:
    return dict(json.loads(_member(archive.read_bytes(), r"^[^/]+/package\.json$") or "{}"))


def _from_debian(text: str) -> str:
    found = re.search(r"(?ms)^Files:\s*\*.*?^License:\s*(\S[^\n]*)", text) or re.search(r"(?m)^License:\s*(\S.*)", text)
    if found:
        return found[1].strip()
    plain = re.search(r"Apache|MIT|BSD|zlib|public domain", text)
    return plain[0] if plain and not re.search("GPL|Mozilla Public", text) else ""


def _member(raw: bytes, pattern: str) -> str:
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        for item in tar:
            if item.isfile() and re.search(pattern, item.name) and (file := tar.extractfile(item)):
                return file.read().decode(errors="replace")
    return ""
