"""What the emulator knows of one resource type, and what all types share: names, tags, places."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from deployer.sandbox.azure import catalogue
from deployer.sandbox.azure.arm_errors import ArmError, network_format
from deployer.sandbox.azure.ids import ResourceId
from deployer.sandbox.azure.schema import Kind as Shape
from deployer.sandbox.azure.schema import Misfit, canonical, misfit
from deployer.sandbox.azure.state import Body, Cloud, Record

_NETWORK_NAME = re.compile(r"\w(?:[\w.-]{0,78}\w)?\Z", re.ASCII)
_TAG_RESERVED = re.compile(r"[<>%&\\?/\x00-\x1f]")


class ResourceKind:
    """One type. Every method is called with the cloud's lock held; a refusal is an `ArmError` before any change."""

    type: ClassVar[str]
    space: ClassVar[str]  # the SDK whose models describe the body
    model: ClassVar[str]
    tracked: ClassVar[bool] = True  # has a location and tags
    creating: ClassVar[str] = "Updating"  # the state while the first operation runs
    accepted: ClassVar[int] = 201  # the status of a PUT that makes something
    updated: ClassVar[int] = 200  # the status of a PUT that changes something
    patches: ClassVar[bool] = False  # PATCH takes properties, not only tags
    patch_model: ClassVar[str] = "TagsObject"
    aliases: ClassVar[tuple[str, ...]] = ()  # further names by which faults may call the type

    @property
    def namespace(self) -> str:
        return self.type.split("/", 1)[0]

    def check_name(self, resource: ResourceId) -> None:
        if not _NETWORK_NAME.match(resource.name):
            raise ArmError(
                400,
                "InvalidResourceName",
                f"Resource name {resource.name} is invalid. The name can be up to 80 characters long. It must begin"
                " with a word character, and it must end with a word character or with '_'. The name may contain word"
                " characters or '.', '-', '_'.",
            )

    def refuse_body(self, wrong: Misfit) -> ArmError:
        """The error for a body that does not fit the model."""
        if wrong.problem == "unknown":
            return network_format(f"{wrong.detail} '{wrong.model}'. Path '{wrong.path}'.")
        return network_format(f"{wrong.detail} Path '{wrong.path}'.")

    def fit(self, body: Body) -> Body:
        """`body` checked against the SDK's model, in Azure's spelling, without what only the service sets."""
        shape = Shape("object", model=self.model)
        if wrong := misfit(self.space, shape, body):
            raise self.refuse_body(wrong)
        fitted: Body = canonical(self.space, shape, body)
        fitted.pop("id", None)
        fitted.pop("name", None)
        return fitted

    def apply(self, cloud: Cloud, resource: ResourceId, body: Body, old: Record | None) -> Record:
        """Checks everything, then makes or changes the record (and its children) and returns it."""
        raise NotImplementedError

    def settled(self, cloud: Cloud, record: Record) -> None:
        """The operation that made or changed `record` is over; may raise what a cloud finds out only then."""

    def check_delete(self, cloud: Cloud, record: Record) -> None:
        """Raises when something else still needs `record`."""

    def remove(self, cloud: Cloud, record: Record) -> None:
        """`record` goes, with all that lies in it."""
        cloud.records.pop(record.id.key, None)

    def show(self, cloud: Cloud, record: Record) -> Body:
        """The resource as GET answers it."""
        raise NotImplementedError

    def fault_names(self) -> tuple[str, ...]:
        return (self.type, *self.aliases)


def check_tags(tags: Any) -> None:
    """ARM's rules for tags: at most 50, names to 512 characters without reserved ones, values to 256."""
    if not isinstance(tags, dict):
        return
    if len(tags) > 50:
        raise ArmError(
            400,
            "InvalidTagCount",
            f"The number of tags '{len(tags)}' exceeds the maximum of 50 tags that a resource may have.",
        )
    for name, value in tags.items():
        if _TAG_RESERVED.search(name):
            raise ArmError(
                400,
                "InvalidTagNameCharacters",
                f"The tag names '{name}' have reserved characters '<,>,%,&,\\,?,/' or control characters.",
            )
        if len(name) > 512:
            raise ArmError(400, "InvalidTagName", f"The tag name '{name[:40]}…' exceeds the maximum length of 512.")
        if isinstance(value, str) and len(value) > 256:
            raise ArmError(
                400, "InvalidTagValueLength", f"Tag value too large. Following tag value '{value[:40]}…' exceeded the"
                " maximum length. Maximum allowed length for tag value - '256' characters.",
            )  # fmt: skip


def check_place(kind: ResourceKind, resource: ResourceId, body: Body, old: Record | None) -> None:
    """Fills in the one spelling of the location; refuses an unknown one and a change of it."""
    given = body.get("location")
    if not given:
        raise ArmError(400, "LocationRequired", "The location property is required for this definition.")
    place = catalogue.region(given)
    if place is None:
        listed = ",".join(sorted(catalogue.REGIONS))
        raise ArmError(
            400,
            "LocationNotAvailableForResourceType",
            f"The provided location '{given}' is not available for resource type '{resource.type}'. List of available"
            f" regions for the resource type is '{listed}'.",
        )
    if old is not None and old.location != place:
        raise ArmError(
            409,
            "InvalidResourceLocation",
            f"The resource '{resource.name}' already exists in location '{old.location}' in resource group"
            f" '{resource.group}'. A resource with the same name cannot be created in location '{place}'. Please select"
            " a new resource name.",
        )
    body["location"] = place


def check_zones(resource: ResourceId, body: Body, old: Record | None) -> None:
    """Zones exist in the region, and are fixed for life."""
    asked = [str(zone) for zone in body.get("zones") or []]
    offered = catalogue.zones(body["location"])
    if unknown := [zone for zone in asked if zone not in offered]:
        raise ArmError(
            400,
            "InvalidAvailabilityZone",
            f"The zone(s) '{','.join(unknown)}' for resource '{resource}' is not supported. The supported zones for"
            f" location '{body['location']}' are '{','.join(offered)}'",
        )
    if old is not None and sorted(asked) != sorted(old.zones):
        raise ArmError(
            400,
            "ResourceAvailabilityZonesCannotBeModified",
            f"Resource {resource} has an existing availability zone constraint {', '.join(old.zones) or 'Regional'} and"
            f" the request has availability zone constraint {', '.join(asked) or 'Regional'}, which do not match. Zones"
            " cannot be added/updated/removed once the resource is created. The resource cannot be updated from"
            " regional to zonal or vice-versa.",
        )


def envelope(record: Record, properties: Body, **more: Any) -> Body:
    """What every network resource shows around its properties."""
    shown: Body = {
        "name": record.id.name,
        "id": str(record.id),
        "etag": f'W/"{record.etag}"',
        "type": record.id.type,
        **{key: value for key, value in record.body.items() if key != "properties"},
        **more,
    }
    shown["properties"] = {"provisioningState": record.state, **properties}
    return shown
