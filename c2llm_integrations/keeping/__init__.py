"""An index that stays current while somebody works on the code: in a running process, for agents and for `--watch`."""
