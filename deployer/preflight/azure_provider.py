"""Azure: whether the resource providers are registered, and the feature that encryption at host needs."""

from __future__ import annotations

from collections.abc import Iterable

from deployer.preflight.model import Finding
from deployer.preflight.place import Place, asking

PROVIDERS = ("Microsoft.Compute", "Microsoft.Network")
FEATURE = "Microsoft.Compute/EncryptionAtHost"


def check(place: Place) -> Iterable[Finding]:
    """Nothing on AWS."""
    if place.cloud != "azure":
        return
    for namespace in PROVIDERS:
        with asking(f"{namespace}/register/action or Microsoft.Resources/subscriptions/providers/read"):
            document, _ = place.azure.get(f"/providers/{namespace}", "2021-04-01")
        state = document.get("registrationState", "")
        if state == "Registered":
            yield Finding("provider", f"{namespace} is registered")
        else:
            yield Finding(
                "provider",
                f"{namespace} is not registered in subscription {place.owner}",
                "refused",
                why=f"its state is {state}",
                next_step=f"az provider register --namespace {namespace} --subscription {place.owner} --wait",
            )
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
            why=f"{', '.join(at_host)} asks for encryption at host",
            next_step="az feature register --namespace Microsoft.Compute --name EncryptionAtHost, then "
            "az provider register --namespace Microsoft.Compute",
        )
    else:
        yield Finding(
            "provider", f"{FEATURE} is not registered, and nobody asks for it", why="disks are encrypted at rest"
        )
