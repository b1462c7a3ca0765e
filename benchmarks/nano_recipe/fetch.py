"""The sources listed in a corpus.tsv → archives in a folder, through the registries' own clients."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path


def command(source: str, folder: Path) -> list[str]:
    """The client call that downloads `registry:name=version` to `folder` (apt writes to its working folder).

    Debian's sources come in the version of the system's own release: their packaging decides the full number.
    """
    registry, _, rest = source.partition(":")
    name, _, version = rest.partition("=")
    return {
        "pypi": [sys.executable, "-m", "pip", "download", "--no-deps", "-d", str(folder), f"{name}=={version}"],
        "npm": ["npm", "pack", "--pack-destination", str(folder), f"{name}@{version}"],
        "debian": ["apt-get", "download", f"{name}={version}"],
        "debian-source": ["apt-get", "source", "--download-only", name],
    }[registry]


def fetch(table: Path, folder: Path) -> list[str]:
    """Download all sources of `table` that were not refused; return those that could not be had."""
    folder.mkdir(parents=True, exist_ok=True)
    with table.open(encoding="utf-8") as lines:
        sources = [row["source"] for row in csv.DictReader(lines, delimiter="\t") if row["pairs"] != "refused"]
    return [source for source in sources if subprocess.run(command(source, folder.resolve()), cwd=folder).returncode]
