"""A machine in Azure asks Azure to deallocate it, as the identity that it has of its own.

Its unit's command, run by the machine's Python with `-I`: standard library only. A fresh identity and its role take
minutes to be known everywhere, so it asks again for some; if nothing helps it says why and fails, and the unit's next
command powers the machine off all the same.
"""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

METADATA_API = "2018-02-01"
COMPUTE_API = "2024-11-01"
AUDIENCE = "https://management.azure.com/"
PATIENCE_S = 300.0
PAUSE_S = 10.0
ANSWER_S = 20.0
"""How long one answer may take."""
LONGEST = 65536


class Refused(Exception):
    """Nobody deallocates it now; the text says why."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token goes to whom it is for, and to nobody whom that one names."""

    def redirect_request(self, *_: Any) -> None:
        return None


def token(metadata: str) -> str:
    """A token of the machine's own identity for Azure's management, from the metadata service, past any proxy.

    Raises:
        Refused: there is no such service, or the machine has no identity.
    """
    query = urllib.parse.urlencode({"api-version": METADATA_API, "resource": AUDIENCE})
    url = f"{metadata}/metadata/identity/oauth2/token?{query}"
    request = urllib.request.Request(url, headers={"Metadata": "true"})  # noqa: S310 (its unit names the URL)
    answer = _ask(request, urllib.request.ProxyHandler({}))
    try:
        return str(json.loads(answer)["access_token"])
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{metadata} gives no token: {error!r}") from None


def deallocate(arm: str, vm: str, bearer: str, ca: str | None = None) -> None:
    """Ask for it once; it is on its way when this returns.

    Raises:
        Refused: Azure does not do it, or does not answer.
    """
    url = f"{arm}{vm}/deallocate?api-version={COMPUTE_API}"
    request = urllib.request.Request(url, data=b"", method="POST")  # noqa: S310 (its unit names the URL)
    request.add_unredirected_header("Authorization", f"Bearer {bearer}")
    _ask(request, urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca)))


def _ask(request: urllib.request.Request, handler: urllib.request.BaseHandler) -> bytes:
    where = f"{request.get_method()} {request.full_url.partition('?')[0]}"
    try:
        with urllib.request.build_opener(_NoRedirect(), handler).open(request, timeout=ANSWER_S) as answer:
            body: bytes = answer.read(LONGEST)
            return body
    except urllib.error.HTTPError as error:
        said = " ".join(error.read(LONGEST).decode("utf-8", "replace").split())[:500]
        raise Refused(f"{where}: {error.code} {error.reason}: {said}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Refused(f"{where}: {error}") from None


def main(argv: Sequence[str]) -> int:
    """0: Azure is at it. 1: it is not, within `--patience` seconds; why stands in the journal."""
    parser = argparse.ArgumentParser(description="Deallocate this machine by its own identity.")
    parser.add_argument("--vm", required=True, help="its resource ID")
    parser.add_argument("--arm", required=True, help="URL of Azure's management")
    parser.add_argument("--metadata", required=True, help="URL of the metadata service")
    parser.add_argument("--ca", help="file with the authority that the management's certificate is from")
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds to try")
    parser.add_argument("--pause", type=float, default=PAUSE_S, help="seconds between two tries")
    given = parser.parse_args(argv)
    until, before = time.monotonic() + given.patience, ""
    while True:
        try:
            deallocate(given.arm, given.vm, token(given.metadata), given.ca)
        except (Refused, OSError) as error:
            if str(error) != before:
                print(f"not deallocated yet: {error}", file=sys.stderr, flush=True)
            before = str(error)
        else:
            print("Azure deallocates this machine", flush=True)
            return 0
        if time.monotonic() + given.pause > until:
            print("given up: Azure bills this machine on until fedspan stop", file=sys.stderr, flush=True)
            return 1
        time.sleep(given.pause)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
