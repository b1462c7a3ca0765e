"""Recognize the folders of Git, Subversion, Mercurial, Bazaar, Darcs, CVS, Jujutsu and Pijul by their content.

A backup has any name and may lack parts; what is left still says where the sources came from, and with which password.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from c2llm_integrations.code.safe_open import read_inside

# Parts of a folder that git keeps; the first ones have names that no project gives its files.
_GIT_OWN = (
    *("HEAD", "packed-refs", "COMMIT_EDITMSG", "FETCH_HEAD", "ORIG_HEAD"),
    *("refs/heads", "logs/HEAD", "info/exclude"),
)
_GIT_PARTS = (*_GIT_OWN, "objects", "refs", "commondir", "config", "hooks", "index", "logs")
# Further ones, whose names projects use as well: they count beside what a HEAD or a configuration of git says.
_GIT_OTHERS = ("description", "info", "branches", "modules", "worktrees", "shallow")
_HEAD = re.compile(r"ref:\s*refs/\S+\s*|(?:[0-9a-f]{40}|[0-9a-f]{64})\s*")
_CONFIG = re.compile(r"^[ \t]*repositoryformatversion[ \t]*=", re.MULTILINE | re.IGNORECASE)
# Bytes that are read of either.
_MAX_BYTES = 2**16
# What others keep: one part, and more of which one is beside it.
_KEPT_BY_OTHERS = (
    # a checkout of Subversion, also an old one, and its server's repository
    ("wc.db", ("entries", "format", "pristine")),
    ("text-base", ("entries", "prop-base", "all-wcprops", "format")),
    ("db/fs-type", ("format", "conf", "hooks", "locks")),
    ("conf/svnserve.conf", ("format", "db", "hooks", "locks")),
    # Mercurial
    ("requires", ("store", "dirstate", "hgrc")),
    ("00changelog.i", ("store", "dirstate", "hgrc", "branch", "data")),
    ("store/00changelog.i", ("dirstate", "hgrc", "branch", "cache")),
    # Bazaar, Darcs, CVS
    ("branch-format", ("branch", "repository", "checkout")),
    ("hashed_inventory", ("patches", "inventories", "prefs")),
    ("Entries", ("Root", "Repository")),
    # Jujutsu, Pijul
    ("op_store", ("op_heads", "store")),
    ("working_copy/checkout", ("repo", "working_copy/tree_state", "working_copy/type")),
    ("pristine/db", ("changes", "config")),
)
# The same of a server's repository of Subversion that lost its `db/fs-type`: a file, and folders.
_SUBVERSION = ("format", ("db", "hooks", "conf"))


def is_git_folder(folder: str | Path) -> bool:
    """Return whether a folder, whatever its name, is one that git keeps, without files of a work tree.

    A copy may lack parts, such as empty folders, and a worktree's own git folder has no objects. So two parts are
    enough, if the name of one is used by git alone, or it says what only git's says.
    """
    found = [part for part in _GIT_PARTS if os.path.lexists(f"{folder}/{part}")]
    if not found:
        return False
    names = {part.partition("/")[0] for part in found}
    if len(names) > 1 and any(part in _GIT_OWN for part in found):
        return True
    if all(os.path.isdir(f"{folder}/{part}") for part in ("objects", "refs")) and os.path.isfile(f"{folder}/config"):
        return True
    says = ("HEAD" in names and _is_head(folder)) or ("config" in names and _CONFIG.search(_read(folder, "config")))
    return bool(says) and (len(names) > 1 or any(os.path.lexists(f"{folder}/{part}") for part in _GIT_OTHERS))


def is_kept_by_another(folder: str | Path) -> bool:
    """Return whether another version control than git keeps a folder, whatever its name."""
    for part, others in _KEPT_BY_OTHERS:
        if os.path.lexists(f"{folder}/{part}") and any(os.path.lexists(f"{folder}/{other}") for other in others):
            return True
    file, folders = _SUBVERSION
    return os.path.isfile(f"{folder}/{file}") and all(os.path.isdir(f"{folder}/{one}") for one in folders)


def _is_head(folder: str | Path) -> bool:
    if os.path.islink(f"{folder}/HEAD"):  # as the first releases of git made it
        return os.readlink(f"{folder}/HEAD").startswith("refs/")
    return _HEAD.fullmatch(_read(folder, "HEAD")) is not None


def _read(folder: str | Path, name: str) -> str:
    try:
        return read_inside(Path(folder), name, _MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
