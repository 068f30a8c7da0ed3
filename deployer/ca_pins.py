"""Which CA a kit's federation has, kept outside of the kit: whoever could swap a kit cannot swap this.

One small file for each participant of a federation that was ever started here, under
`$XDG_STATE_HOME/fedspan/pins/FEDERATION/NAME`. The first start is told the fingerprint (or a person compares it); later
starts refuse another one, whatever they are told.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from deployer.errors import RefusedError
from startup_kits.certificates import normal_fingerprint
from startup_kits.errors import KitError
from startup_kits.kit import Kit
from startup_kits.workspace import write_private

Ask = Callable[[str], None]
"""Asks a person; raises RefusedError unless the answer is yes."""


def state_home() -> Path:
    """`$XDG_STATE_HOME/fedspan`: what belongs to this person on this machine, and to no kit or workspace."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "fedspan"


def pin_path(kit: Kit) -> Path:
    """Where the CA of this kit's participant is kept."""
    return state_home() / "pins" / kit.federation / kit.name


def pinned_ca(kit: Kit) -> str | None:
    """The fingerprint that was accepted for this participant, None before the first start."""
    try:
        return normal_fingerprint(pin_path(kit).read_text().strip())
    except FileNotFoundError:
        return None


def accept_ca(kit: Kit, told: str | None, ask: Ask | None) -> bool:
    """Accepts the kit's CA or refuses the kit; the first time pins it.

    Args:
        kit: opened or verified.
        told: the fingerprint that the owner was told, None if they gave none.
        ask: how to ask them to compare it; None where nobody is there.

    Returns:
        whether it was pinned just now.

    Raises:
        KitError: another CA than the pinned one, or than the one told.
        RefusedError: the first start, no fingerprint, and nobody to ask or the answer was no.
    """
    pinned = pinned_ca(kit)
    if told is not None and normal_fingerprint(told) != kit.ca_fingerprint:
        raise KitError(
            "the kit is of another CA than the one you name",
            participant=kit.name,
            why=f"its fingerprint is {kit.ca_fingerprint}, you gave {normal_fingerprint(told)}",
            next_step="ask the federation's lead for the right kit, and read the fingerprint to each other",
        )
    if pinned is not None:
        if pinned != kit.ca_fingerprint:
            raise KitError(
                f"this is another {kit.federation} than the one that was started here",
                participant=kit.name,
                why=f"its CA is {kit.ca_fingerprint}, at the first start it was {pinned}",
                next_step="call the federation's lead. If they made a new CA, and the fingerprint that you were read "
                f"is this one: rm '{pin_path(kit)}', then start again",
            )
        return False
    if told is None:
        if ask is None:
            raise RefusedError(
                "the first start needs the CA's fingerprint",
                participant=kit.name,
                why=f"the kit's is {kit.ca_fingerprint}, and nobody is there to compare it",
                next_step="start it with --ca-fingerprint FINGERPRINT, as the federation's lead read it to you",
            )
        ask(
            f"{kit.name} of {kit.federation}: the kit's CA has the fingerprint\n  {kit.ca_fingerprint}\n"
            "Is it the one that the federation's lead read to you?"
        )
    path = pin_path(kit)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, f"{kit.ca_fingerprint}\n".encode())
    return True
