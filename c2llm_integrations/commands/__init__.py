"""The commands of `c2llm`, a module for each group of them; `cli.py` puts them together.

A module here imports at its top only what is light: `c2llm --help` reads them all.
"""
