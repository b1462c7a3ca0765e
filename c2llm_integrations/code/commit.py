"""The commit that a repository's rows were read from, where there is one, and links to lines in it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from c2llm_integrations.code.listing import git
from c2llm_integrations.code.reading import Source

# What a host is called in the first or second part of its name → how it writes a link to lines of a commit.
_LINKS = {
    "github": "blob/{commit}/{path}#L{start}-L{end}",
    "gitlab": "-/blob/{commit}/{path}#L{start}-{end}",
    "bitbucket": "src/{commit}/{path}#lines-{start}:{end}",
    "codeberg": "src/commit/{commit}/{path}#L{start}-L{end}",
    "gitea": "src/commit/{commit}/{path}#L{start}-L{end}",
    "forgejo": "src/commit/{commit}/{path}#L{start}-L{end}",
}


@dataclass(frozen=True)
class Claim:
    """Who fills a repository's rows: the `checkout_id` of a folder, and the commit they were all read from, if one."""

    checkout: str
    commit: str | None = None

    def __str__(self) -> str:
        """Return the claim as stores keep it."""
        return f"{self.checkout}@{self.commit}" if self.commit else self.checkout

    @classmethod
    def parse(cls, text: str) -> Claim:
        """Read what `str` gave."""
        checkout, _, commit = text.partition("@")
        return cls(checkout, commit or None)


class CommitSeen:
    """The commit that is checked out, as long as every source seen is exactly what it holds.

    `commit`: its id, or None for a folder outside git and once something was seen that differs.
    """

    def __init__(self, root: Path) -> None:
        """Read the names that the current commit of the work tree at `root` gives to its files' contents."""
        self.commit: str | None = None
        self._contents: dict[str, str] = {}
        if not os.path.lexists(root / ".git"):  # git would answer for a repository further up
            return
        head = git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        if head is None or head.returncode:
            return
        commit = head.stdout.decode().strip()
        listed = git(root, "ls-tree", "-r", "-z", "--full-tree", commit)
        if listed is not None and listed.returncode == 0:
            self.commit = commit
            for entry in listed.stdout.split(b"\0")[:-1]:
                about, _, path = entry.partition(b"\t")
                self._contents[os.fsdecode(path)] = about.split()[2].decode()

    def see(self, source: Source) -> None:
        """Compare a source with the commit; git itself is not asked, because it may run filters that a tree names."""
        if self.commit is None:
            return
        content = source.text.encode(source.encoding)
        digest = hashlib.new("sha1" if len(self.commit) == 40 else "sha256", usedforsecurity=False)
        digest.update(b"blob %d\0" % len(content))
        digest.update(content)
        if digest.hexdigest() != self._contents.get(source.path):
            self.commit = None
            self._contents.clear()


def permalink(repository: str, commit: str, path: str, start_line: int, end_line: int) -> str | None:
    """Return the address of lines of a file in a commit, or None for a repository not named by a known host."""
    host, _, project = repository.partition("/")
    link = next((_LINKS[label] for label in host.split(".")[:2] if label in _LINKS), None)
    if link is None or "." not in host or not project:
        return None
    where = link.format(commit=commit, path=quote(path), start=start_line, end=end_line)
    return f"https://{quote(host)}/{quote(project)}/{where}"
