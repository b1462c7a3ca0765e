"""Git repositories to index."""

import subprocess

SETTINGS = (
    *("-c", "user.name=n", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"),
    *("-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always"),
)


def git(folder, *arguments, input=None):
    """Run git in a folder as somebody with a name, and return what it says."""
    command = ["git", *SETTINGS, "-C", *map(str, (folder, *arguments))]
    return subprocess.run(command, check=True, capture_output=True, text=True, input=input).stdout.strip()


def commit_all(folder):
    """Make a repository of what a folder holds."""
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "all")


def commit_modules(folder, count):
    """Make a repository of so many files, each with a function, all committed."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"module_{number}.py").write_text(f"def number_{number}():\n    return {number}\n")
    commit_all(folder)
