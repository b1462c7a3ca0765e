"""`python -m c2llm_integrations`: the same as the `c2llm` command."""

import sys

if __name__ == "__main__":
    # Python puts the current folder first, and a repository's json.py would be run instead of Python's own.
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        del sys.path[0]
    from c2llm_integrations.cli.main import main

    main()
