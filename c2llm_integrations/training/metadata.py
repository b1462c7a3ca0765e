"""The licence an archive declares, and whether its sources may be learned from."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

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
    if archive.name.endswith(".whl"):
        with zipfile.ZipFile(archive) as zipped:
            name = next(n for n in zipped.namelist() if n.endswith(".dist-info/METADATA"))
            return _from_metadata(zipped.read(name).decode(errors="replace"))
    if archive.suffix == ".tgz":
        declared = json.loads(_member(archive.read_bytes(), r"^[^/]+/package\.json$") or "{}").get("license", "")
        return declared if isinstance(declared, str) else str(declared.get("type", ""))
    if archive.suffix == ".deb":
        raw = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], capture_output=True, check=True).stdout
        return _from_debian(_member(raw, r"share/doc/[^/]+/copyright$"))
    if ".orig.tar." in archive.name:
        beside = sorted(archive.parent.glob(archive.name.split(".orig")[0] + "-*.debian.tar.*"))
        return _from_debian(_member(beside[0].read_bytes(), r"debian/copyright$")) if beside else ""
    return _from_metadata(_member(archive.read_bytes(), r"^[^/]+/PKG-INFO$"))


def _from_metadata(text: str) -> str:
    message = Parser().parsestr(text)
    short = (message.get("License") or "").strip()
    classifiers = [c.split(" :: ")[-1] for c in message.get_all("Classifier", []) if c.startswith("License ::")]
    return message.get("License-Expression") or (short if 0 < len(short) < 60 else "") or "; ".join(classifiers)


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
