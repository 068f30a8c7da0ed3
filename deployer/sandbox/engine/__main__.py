"""`python -m deployer.sandbox.engine`: the sandbox's `pulumi` command."""

from __future__ import annotations

import sys

from deployer.sandbox.engine.cli import main

sys.exit(main())
