"""What makes a collection hold what a repository or a set of records holds: compare, write, verify, delete."""
