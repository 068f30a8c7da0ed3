"""Whether a fixed name is somebody else's: on Azure a resource group of that name may be there already."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from deployer.errors import CloudError, RefusedError
from deployer.preflight.model import Finding
from deployer.preflight.place import NotAsked, Place
from deployer.settle.model import Whose
from stacks.names import azure_name

if TYPE_CHECKING:
    from deployer.realm import Realm


def check(place: Place, realm: Realm) -> Iterable[Finding]:
    """AWS gives IDs of its own: there nothing can clash."""
    if place.cloud != "azure" or not place.wanted:
        return
    world = realm.world("azure", place.wanted[0].member, place.access)
    for one in place.wanted:
        whose = Whose.of(one.args)
        try:
            world.check(whose)
        except RefusedError as error:
            yield Finding(
                "names", error.what, "refused", one.name, error.why or "", error.next_step or "", error=RefusedError
            )
        except CloudError as error:
            raise NotAsked(error.why or error.what, "Microsoft.Resources/subscriptions/resourceGroups/read") from error
        else:
            group = azure_name(whose.federation, whose.participant, "rg")
            yield Finding("names", f"resource group {group} is free, or ours", participant=one.name)
