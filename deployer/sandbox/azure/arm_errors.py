"""ARM's errors: a status, a code, a message, sometimes a target and details, in the shape that Azure's SDKs read.

The codes are Azure's own. Where no record of Azure's own code was at hand, the emulator's is descriptive:
InvalidTagCount, NetcfgAddressSpacePrefixesOverlap, NetworkInterfaceMustHaveOnePrimaryIpConfiguration,
PrivateIPAddressMissing, PublicIPAddressIdleTimeoutIsOutOfRange, PublicIPAddressVersionNotSupported,
SecurityRuleDescriptionTooLong, SecurityRuleParameterConflict, SecurityRuleParameterMissing,
SkuPropertyCannotBeChanged. That Azure refuses such a request is sure, the word is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ArmError(Exception):
    """A refusal. `status` is HTTP's, `code` one of Azure's own words; the text is what a user reads."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        target: str | None = None,
        details: Sequence[dict[str, Any]] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.status, self.code, self.message, self.target = status, code, message, target
        self.details = list(details)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """`{"error": {...}}`, as the resource manager and the providers below it answer."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.target:
            error["target"] = self.target
        if self.details:
            error["details"] = self.details
        return {"error": error}


def invalid_parameter(target: str, message: str) -> ArmError:
    """Compute's usual refusal of a value."""
    return ArmError(400, "InvalidParameter", message, target=target)


def missing_parameter(name: str) -> ArmError:
    """Compute's refusal of a body that lacks something."""
    return invalid_parameter(name, f"Required parameter '{name}' is missing (null).")


def network_format(message: str, code: str = "InvalidJson") -> ArmError:
    """The network provider's refusal of a body that it cannot parse: the reason is in the details."""
    return ArmError(
        400, "InvalidRequestFormat", "Cannot parse the request.", details=[{"code": code, "message": message}]
    )


def change_not_allowed(what: str) -> ArmError:
    """Compute's refusal to change what is fixed when a machine is made."""
    return ArmError(409, "PropertyChangeNotAllowed", f"Changing property '{what}' is not allowed.", target=what)


def resource_not_found(type_: str, name: str, group: str) -> ArmError:
    return ArmError(
        404,
        "ResourceNotFound",
        f"The Resource '{type_}/{name}' under resource group '{group}' was not found. For more details please go to"
        " https://aka.ms/ARMResourceNotFoundFix",
    )


def group_not_found(name: str) -> ArmError:
    return ArmError(404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found.")


def bad_reference(referenced: str, by: str) -> ArmError:
    return ArmError(
        400,
        "InvalidResourceReference",
        f"Resource {referenced} referenced by resource {by} was not found. Please make sure that the referenced"
        " resource exists, and that both resources are in the same region.",
    )
