"""The plugin speaks the names of the installed pulumi-aws package: nothing misspelt, nothing made up."""

from __future__ import annotations

import inspect
from typing import Any

import pulumi_aws as aws
import pytest
from pulumi_aws import ebs, ec2, ssm, vpc

from deployer.sandbox.aws.functions import FUNCTIONS
from deployer.sandbox.aws.provider import RESOURCES, VERSION
from deployer.sandbox.aws.resource import AwsResource

MODULES = {"ec2": ec2, "vpc": vpc, "ebs": ebs}
BY_TOKEN = {resource.token: resource for resource in RESOURCES}


def sdk_class(token: str) -> Any:
    return getattr(MODULES[token.split(":")[1].split("/")[0]], token.split(":")[-1])


def wire_names(cls: Any) -> set[str]:
    """The names on the wire of a class's properties (`cidr_block` is `cidrBlock`)."""
    names = set()
    for name, member in inspect.getmembers(cls):
        if isinstance(member, property) and member.fget is not None and not name.startswith("_"):
            names.add(getattr(member.fget, "_pulumi_name", name))
    return names - {"id", "urn", "pulumi_resource_name", "pulumi_resource_type"}


def arguments(token: str) -> set[str]:
    """What a program can give: the parameters of the class's own constructor."""
    signature = inspect.signature(sdk_class(token)._internal_init)
    given = set(signature.parameters) - {"__self__", "resource_name", "opts", "__props__"}
    return {_camel(name) for name in given}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


@pytest.mark.parametrize("token", sorted(BY_TOKEN))
def test_inputs_are_arguments_of_the_sdks_class(token: str) -> None:
    assert sorted(BY_TOKEN[token].inputs - arguments(token)) == []


@pytest.mark.parametrize("token", sorted(BY_TOKEN))
def test_outputs_are_properties_of_the_sdks_class_and_complete(token: str) -> None:
    resource: AwsResource = BY_TOKEN[token]()
    known = wire_names(sdk_class(token))
    assert sorted({*resource.computed, *resource.inputs} - known) == []
    # What a program can read and cannot give comes from the cloud: the plugin must tell it.
    only_outputs = known - arguments(token)
    assert sorted(only_outputs - set(resource.computed)) == []


@pytest.mark.parametrize("token", sorted(BY_TOKEN))
def test_what_decides_about_a_replacement_is_spelt_right(token: str) -> None:
    resource = BY_TOKEN[token]
    for path in {*resource.replace_on, *resource.sets, *resource.optional, *resource.not_read}:
        assert path.split(".")[0] in resource.inputs, path
    assert set(resource.required) <= resource.inputs
    assert set(resource.defaults) <= resource.inputs


def test_the_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert version("pulumi-aws") == VERSION


@pytest.mark.parametrize(
    ("token", "function", "result"),
    [
        ("aws:ssm/getParameter:getParameter", ssm.get_parameter, "ssm.get_parameter.GetParameterResult"),
        ("aws:ec2/getAmi:getAmi", ec2.get_ami, "ec2.get_ami.GetAmiResult"),
        ("aws:index/getRegion:getRegion", aws.get_region, "get_region.GetRegionResult"),
    ],
)
def test_functions_bear_the_sdks_tokens(token: str, function: Any, result: str) -> None:
    source = inspect.getsource(inspect.getmodule(function))  # type: ignore[arg-type]
    assert f"'{token}'" in source
    assert token in FUNCTIONS
    assert result.rsplit(".", 1)[-1] in source
