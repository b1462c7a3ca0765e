"""The `c2llm` command; only here anything is printed."""
