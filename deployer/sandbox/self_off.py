"""What a cloud does about a machine that powers itself off: EC2 stops or terminates it, Azure goes on billing it."""

from __future__ import annotations

import logging
from typing import Any

from deployer.sandbox.aws import accounts
from deployer.sandbox.azure.arm_server import ArmServer
from deployer.sandbox.model import MachineSpec

_LOG = logging.getLogger(__name__)


def switched_off(spec: MachineSpec, aws_url: str, azure: ArmServer) -> None:
    """Make the cloud's view of `spec` what it is after a power-off from inside."""
    try:
        _act(spec, aws_url, azure)
    except Exception:  # the machine's own thread asks: it must go on whatever a cloud says
        _LOG.exception("the cloud of %s could not be told that it is off", spec.id)


def _act(spec: MachineSpec, aws_url: str, azure: ArmServer) -> None:
    if spec.cloud == "aws":
        ec2 = _ec2(spec, aws_url)
        answer = ec2.describe_instance_attribute(InstanceId=spec.id, Attribute="instanceInitiatedShutdownBehavior")
        if answer["InstanceInitiatedShutdownBehavior"].get("Value") == "terminate":
            ec2.terminate_instances(InstanceIds=[spec.id])
        else:
            ec2.stop_instances(InstanceIds=[spec.id])
    elif spec.cloud == "azure":
        machine, _, vm_id = spec.id.partition("#")
        azure.powered_off(machine, vm_id)


def _ec2(spec: MachineSpec, url: str) -> Any:
    import boto3

    whose = accounts.credentials(spec.account)
    session = boto3.session.Session(whose.access_key, whose.secret_key, region_name=spec.region)
    return session.client("ec2", endpoint_url=url)
