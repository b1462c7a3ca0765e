"""`python -m c2llm_integrations`: the same as the `c2llm` command."""

from c2llm_integrations.cli import main

if __name__ == "__main__":
    main()
