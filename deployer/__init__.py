"""From kits to running machines: the `fedspan` command, plans, engine, SSH push, ledger."""
