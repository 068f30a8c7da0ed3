"""A role assignment's body, in the SDK's manner.

Its SDK is not among the installed ones; property names are those of API version 2022-04-01. Annotations are types here
and not texts: the emulator reads them.
"""

from typing import Any, Optional

from azure.mgmt.compute._utils.model_base import Model, rest_field


class RoleAssignmentProperties(Model):  # type: ignore[misc]  # the SDK keeps the type to itself
    """Which principal has which role."""

    scope: Optional[str] = rest_field(visibility=["read"])  # noqa: UP045 (read by the SDK's base)
    role_definition_id: Optional[str] = rest_field(name="roleDefinitionId")  # noqa: UP045
    principal_id: Optional[str] = rest_field(name="principalId")  # noqa: UP045
    principal_type: Optional[str] = rest_field(name="principalType")  # noqa: UP045
    description: Optional[str] = rest_field()  # noqa: UP045
    condition: Optional[str] = rest_field()  # noqa: UP045
    condition_version: Optional[str] = rest_field(name="conditionVersion")  # noqa: UP045
    created_on: Optional[str] = rest_field(name="createdOn", visibility=["read"])  # noqa: UP045
    updated_on: Optional[str] = rest_field(name="updatedOn", visibility=["read"])  # noqa: UP045
    created_by: Optional[str] = rest_field(name="createdBy", visibility=["read"])  # noqa: UP045
    updated_by: Optional[str] = rest_field(name="updatedBy", visibility=["read"])  # noqa: UP045
    delegated_managed_identity_resource_id: Optional[str] = rest_field(  # noqa: UP045
        name="delegatedManagedIdentityResourceId"
    )


class RoleAssignment(Model):  # type: ignore[misc]
    """The resource, by the name that Pulumi's package has for it."""

    __flattened_items = ["roleDefinitionId"]
    id: Optional[str] = rest_field(visibility=["read"])  # noqa: UP045
    name: Optional[str] = rest_field(visibility=["read"])  # noqa: UP045
    type: Optional[str] = rest_field(visibility=["read"])  # noqa: UP045
    system_data: Optional[Any] = rest_field(name="systemData", visibility=["read"])  # noqa: UP045
    properties: Optional[RoleAssignmentProperties] = rest_field()  # noqa: UP045
