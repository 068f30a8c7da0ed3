"""Azure: whether the resource providers are registered, and the feature that encryption at host needs."""

from __future__ import annotations

from collections.abc import Iterable

from deployer.preflight.model import Finding
from deployer.preflight.place import Place, asking

PROVIDERS = ("Microsoft.Compute", "Microsoft.Network")
SHUTDOWN = "Microsoft.DevTestLab"
"""Of the daily shutdown, which a machine with an end gets on its last day."""
FEATURE = "Microsoft.Compute/EncryptionAtHost"


def check(place: Place) -> Iterable[Finding]:
    """Nothing on AWS."""
    if place.cloud != "azure":
        return
    for namespace in PROVIDERS:
        yield _provider(place, namespace)
    if ending := [one for one in place.wanted if one.args.expires]:
        now = any(one.args.deallocate_at for one in ending)
        yield _provider(place, SHUTDOWN, "" if now else f"the last day of {', '.join(one.name for one in ending)}")
    yield from _at_host(place)


def _provider(place: Place, namespace: str, later: str = "") -> Finding:
    """Whether one is registered; `later`: for what it will be needed, where nothing needs it yet."""
    with asking(f"{namespace}/register/action or Microsoft.Resources/subscriptions/providers/read"):
        document, _ = place.azure.get(f"/providers/{namespace}", "2021-04-01")
    state = document.get("registrationState", "")
    if state == "Registered":
        return Finding("provider", f"{namespace} is registered")
    return Finding(
        "provider",
        f"{namespace} is not registered in subscription {place.owner}",
        "warning" if later else "refused",
        why=f"its state is {state}" + (f"; Azure's daily shutdown needs it on {later}" if later else ""),
        next_step=f"az provider register --namespace {namespace} --subscription {place.owner} --wait",
    )


def _at_host(place: Place) -> Iterable[Finding]:
    """The feature, where somebody asks for it."""
    at_host = [one.name for one in place.wanted if one.args.encryption_at_host]
    with asking("Microsoft.Features/providers/features/read"):
        document, _ = place.azure.get(
            "/providers/Microsoft.Features/providers/Microsoft.Compute/features/EncryptionAtHost", "2021-07-01"
        )
    registered = document.get("properties", {}).get("state") == "Registered"
    if registered:
        yield Finding("provider", f"{FEATURE} is registered")
    elif at_host:
        yield Finding(
            "provider",
            f"{FEATURE} is not registered in subscription {place.owner}",
            "refused",
            why=f"{', '.join(at_host)} {'ask' if len(at_host) > 1 else 'asks'} for encryption_at_host",
            next_step="az feature register --namespace Microsoft.Compute --name EncryptionAtHost, then "
            "az provider register --namespace Microsoft.Compute",
        )
    else:
        yield Finding(
            "provider", f"{FEATURE} is not registered, and nobody asks for it", why="disks are encrypted at rest"
        )
