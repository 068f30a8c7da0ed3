"""One's own address as the clouds see it, for `ssh_from: auto`. A failure is an error, never a wider rule."""

from __future__ import annotations

import ipaddress
import ssl
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from deployer.errors import UnreachableError
from deployer.settings import setting

# services of different owners that answer with the caller's address as plain text
SERVICES = ("https://checkip.amazonaws.com", "https://api.ipify.org", "https://ifconfig.me/ip", "https://icanhazip.com")

# so many of them must say the same
AGREEMENT = 2


def _fetch(url: str) -> str:
    request = urllib.request.Request(url, headers={"User-Agent": "curl/8"})  # noqa: S310 (fixed https URLs)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    with opener.open(request, timeout=setting("MY_ADDRESS_TIMEOUT")) as answer:
        text: str = answer.read(100).decode("ascii", "replace").strip()
    return text


def agreed(answers: Mapping[str, str]) -> str | None:
    """The public IPv4 address that at least AGREEMENT services named and none contradicted, else None. Pure."""
    addresses: Counter[str] = Counter()
    for answer in answers.values():
        try:
            address = ipaddress.IPv4Address(answer)
        except ValueError:
            continue
        if address.is_global:
            addresses[str(address)] += 1
    if len(addresses) != 1:
        return None
    address_text, count = addresses.most_common(1)[0]
    return address_text if count >= AGREEMENT else None


def ask_the_world(fetch: Callable[[str], str] = _fetch) -> str:
    """This machine's public IPv4 address.

    Raises:
        UnreachableError: too few services answered, or they disagree.
    """
    answers: dict[str, str] = {}

    def ask(url: str) -> None:
        try:
            answers[url] = fetch(url)
        except (OSError, urllib.error.URLError) as error:
            answers[url] = f"no answer ({error})"

    with ThreadPoolExecutor(len(SERVICES)) as pool:
        list(pool.map(ask, SERVICES))
    address = agreed(answers)
    if address is None:
        raise UnreachableError(
            "this machine's own address can't be found out",
            why="; ".join(f"{url} said {answer!r}" for url, answer in sorted(answers.items())),
            next_step="name it in federation.yml: defaults: {ssh_from: [198.51.100.7/32]}",
        )
    return address
