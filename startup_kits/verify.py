"""`python -m startup_kits.verify KIT --ca-fingerprint FP`: verifies a kit where it lies, on a participant's machine.

Exit code 0 and one line when all is well, else that of the error and the error on stderr.
"""

from __future__ import annotations

import argparse
import sys

from startup_kits.errors import FedspanError
from startup_kits.kit import Kit


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m startup_kits.verify", description="Verify a startup kit.")
    parser.add_argument("kit", help="the kit's folder")
    parser.add_argument("--ca-fingerprint", help="SHA-256 of the CA that it must be of")
    arguments = parser.parse_args(argv)
    try:
        kit = Kit.verify(arguments.kit, arguments.ca_fingerprint)
    except FedspanError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{kit.name} ({kit.role} of {kit.federation}): verified, CA {kit.ca_fingerprint}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
