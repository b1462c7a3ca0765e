"""The commit that a repository's rows were read from, where there is one, and links to lines in it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import quote

from c2llm_integrations.code.git import GitFolder
from c2llm_integrations.errors import RepositoryError

# What a host is called in the first or second part of its name → how it writes a link to lines of a commit.
_LINKS = {
    "github": "blob/{commit}/{path}#L{start}-L{end}",
    "gitlab": "-/blob/{commit}/{path}#L{start}-{end}",
    "bitbucket": "src/{commit}/{path}#lines-{start}:{end}",
    "codeberg": "src/commit/{commit}/{path}#L{start}-L{end}",
    "gitea": "src/commit/{commit}/{path}#L{start}-L{end}",
    "forgejo": "src/commit/{commit}/{path}#L{start}-L{end}",
}


class CommitSeen:
    """The commit that is checked out, as long as every file seen is exactly what it holds.

    `commit`: its id, or None for a folder outside git and once something was seen that differs; `notes`: a line that
    says why git cannot list it, if so.
    """

    def __init__(self, root: Path) -> None:
        """Read the names that the current commit of the work tree at `root` gives to its files' contents."""
        self.commit: str | None = None
        self.notes: list[str] = []
        self._contents: dict[str, str] = {}
        git = GitFolder.of(root)  # of this very folder, not of one further up
        if git is not None:
            try:
                self.commit, self._contents = git.contents()
            except RepositoryError as error:
                self.notes.append(
                    f"git cannot list the files of the current commit ({error}): hits have no links to it"
                )

    def see(self, path: str, data: bytes) -> None:
        """Compare a file with the commit; git itself is not asked, because it may run filters that a tree names."""
        if self.commit is None:
            return
        digest = hashlib.new("sha1" if len(self.commit) == 40 else "sha256", usedforsecurity=False)
        digest.update(b"blob %d\0" % len(data))
        digest.update(data)
        if digest.hexdigest() != self._contents.get(path):
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
