"""`python -m deployer.sandbox.engine`: the sandbox's `pulumi` command."""

from __future__ import annotations

from deployer.sandbox.engine.cli import entry

if __name__ == "__main__":
    entry()
