"""Make a collection equal to a repository or a set of records: compare, write, verify, delete."""
