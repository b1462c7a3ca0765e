"""`python -I -m c2llm_integrations`: the same as the `c2llm` command.

Without -I, Python runs a c2llm_integrations.py of the current folder instead, or a types.py and the like that its own
`-m` imports, before a line of this package.
"""

import sys

if __name__ == "__main__":
    # Without -I, Python puts the current folder first, and a repository's json.py would be run instead of Python's own.
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        del sys.path[0]
    from c2llm_integrations.cli.main import main

    main()
