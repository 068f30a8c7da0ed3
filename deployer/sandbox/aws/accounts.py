"""The sandbox's AWS accounts: dummy credentials that say themselves whose they are.

An access key is `AKIASBOX` and the twelve digits of its account, so that any account a `federation.yml` names exists
in the sandbox without being registered. Real credentials are no such keys: the emulation refuses them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_ACCOUNT = "111111111111"
# The named profiles of a sandbox's shared credentials file; README and examples speak of hospitals a to d.
PROFILES: dict[str, str] = {
    "default": DEFAULT_ACCOUNT,
    "hospital-a": "111111111111",
    "hospital-b": "222222222222",
    "hospital-c": "333333333333",
    "hospital-d": "444444444444",
}
_KEY = re.compile(r"AKIASBOX(\d{12})\Z")


def register_profile(name: str, account: str) -> str:
    """Adds a profile; one that is known already keeps its account. Answers the account that the profile has."""
    access_key(account)  # raises ValueError for what is no account id
    if not re.fullmatch(r"[A-Za-z0-9_.@+-]{1,64}", name):
        raise ValueError(f"no name for a profile: {name!r}")
    return PROFILES.setdefault(name, account)


@dataclass(frozen=True)
class Credentials:
    """What a client signs with. The signature is not verified; the key says the account."""

    access_key: str
    secret_key: str
    account: str


def access_key(account: str) -> str:
    """The access key of an account (twelve digits)."""
    if not re.fullmatch(r"\d{12}", account):
        raise ValueError(f"an AWS account id has twelve digits: {account!r}")
    return f"AKIASBOX{account}"


def account_of(key: str) -> str | None:
    """The account of an access key, or None when it is none of the sandbox's."""
    found = _KEY.match(key)
    return found.group(1) if found else None


def credentials(account: str) -> Credentials:
    return Credentials(access_key(account), f"sandbox-secret-of-{account}", account)


def credentials_file() -> str:
    """Text of a shared credentials file (`~/.aws/credentials`) with every profile of the sandbox."""
    return "\n".join(
        f"[{name}]\naws_access_key_id = {credentials(account).access_key}\n"
        f"aws_secret_access_key = {credentials(account).secret_key}\n"
        for name, account in PROFILES.items()
    )
