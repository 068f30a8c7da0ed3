"""A machine that stands and is replaced or resized: its new size must be had before the old one is taken away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from deployer.engine_events import Step
from deployer.errors import CapacityError
from deployer.ledger_rows import Event, Row
from deployer.member import Member
from deployer.plan import ParticipantPlan, Plan
from deployer.preflight import image
from deployer.preflight.model import Finding
from deployer.preflight.place import Place, Wanted
from deployer.preflight.standing import Standing, creates, from_row, is_resized, standing
from deployer.session import Session
from stacks.args import Gpu, ParticipantArgs
from tests.deployer.decision_samples import VM, member, step
from tests.stacks.stack_samples import sample

AZURE_VM = "azure-native:compute:VirtualMachine"
GPU_CODE, STANDARD_CODE = "L-DB2E81BA", "L-1216C47A"
VCPUS = {"m7i.large": 2, "m7i.2xlarge": 8, "g5.xlarge": 4}
CORES = {"Standard_D4s_v5": ("DSv5", 4), "Standard_D8s_v5": ("DSv5", 8), "Standard_NC4as_T4_v3": ("NCAST4", 4)}


class AwsClients:
    """What EC2 and Service Quotas answer: which machines run, how many vCPUs may."""

    def __init__(self, running: list[dict[str, str]], limits: dict[str, int]) -> None:
        self.pages = {
            "describe_instances": [{"Reservations": [{"Instances": running}]}],
            "describe_instance_types": [
                {
                    "InstanceTypes": [
                        {"InstanceType": name, "VCpuInfo": {"DefaultVCpus": count}} for name, count in VCPUS.items()
                    ]
                }
            ],
            "describe_instance_type_offerings": [
                {
                    "InstanceTypeOfferings": [
                        {"InstanceType": name, "Location": zone}
                        for name in VCPUS
                        for zone in ("eu-central-1a", "eu-central-1b")
                        if (name, zone) != ("g5.xlarge", "eu-central-1b")
                    ]
                }
            ],
        }
        self.limits = limits

    def client(self, service: str) -> Any:
        missing = type("Missing", (Exception,), {})
        return SimpleNamespace(
            get_paginator=lambda call: SimpleNamespace(paginate=lambda **_: self.pages[call]),
            get_service_quota=lambda QuotaCode, **_: {
                "Quota": {"QuotaName": QuotaCode, "Value": self.limits[QuotaCode]}
            },
            exceptions=SimpleNamespace(NoSuchResourceException=missing, ParameterNotFound=missing),
        )


def azure_clients(used: dict[str, int], limits: dict[str, int]) -> Any:
    """What Azure answers: the sizes, and of each quota how many cores are used."""
    skus = [
        SimpleNamespace(
            name=name,
            resource_type="virtualMachines",
            family=family,
            capabilities=[SimpleNamespace(name="vCPUs", value=str(cores))],
            location_info=[],
            restrictions=[],
        )
        for name, (family, cores) in CORES.items()
    ]
    usages = [
        SimpleNamespace(
            name=SimpleNamespace(value=name, localized_value=name), current_value=used.get(name, 0), limit=limit
        )
        for name, limit in limits.items()
    ]
    compute = SimpleNamespace(
        resource_skus=SimpleNamespace(list=lambda **_: skus), usage=SimpleNamespace(list=lambda _: usages)
    )
    return SimpleNamespace(compute=compute)


def findings(
    site: Member, args: ParticipantArgs, step_: Step, state: Any, clients: Any, subject: str = "quota", events: Any = ()
) -> list[Finding]:
    """What `up` finds before it does that step to the machine in that state."""
    access = SimpleNamespace(account_id="1", profile=None, subscription_id="s")
    deployment: Any = SimpleNamespace(
        realm=SimpleNamespace(clients=lambda *_: clients), ledger=SimpleNamespace(events=lambda _: events)
    )
    up: Any = SimpleNamespace(
        parts={site.name: SimpleNamespace(member=site, args=args, access=access, state=state)}, allow_fallback=False
    )
    plan = Plan(
        "digits", "real", "real", "d", "now", (ParticipantPlan(site.name, "site", site.target, steps=(step_,)),)
    )
    _, found = Session(deployment, [site], crew=None, up=up).preflight(plan)  # type: ignore[arg-type]  # not asked
    return [one for one in found if one.subject == subject]


def aws_state(spot: bool = False) -> Any:
    market = {"instanceMarketOptions": {"marketType": "spot"}} if spot else {}
    inputs = {"instanceType": "m7i.large", "ami": "ami-old", **market}
    outputs = {"availabilityZone": "eu-central-1b"}
    return {"resources": [{"type": VM, "custom": True, "id": "i-old", "inputs": inputs, "outputs": outputs}]}


AZURE_STATE = {
    "resources": [
        {
            "type": AZURE_VM,
            "custom": True,
            "id": "/vm",
            "inputs": {"hardwareProfile": {"vmSize": "Standard_D4s_v5"}, "zones": ["2"]},
        }
    ]
}
RUNNING = [{"InstanceId": "i-old", "InstanceType": "m7i.large"}, {"InstanceId": "i-x", "InstanceType": "m7i.large"}]
AWS_SITE, AZURE_SITE = member("site-1"), member("site-1", "azure")


def args_of(cloud: str, wanted: str, **more: Any) -> ParticipantArgs:
    return sample(cloud, size=wanted, **more)


def test_a_machine_that_gets_gpus_is_not_deleted_where_there_is_no_quota_for_them() -> None:
    wanted = args_of("aws", "g5.xlarge", gpus=Gpu(1, 16))
    clients = AwsClients(RUNNING, {GPU_CODE: 0, STANDARD_CODE: 4})
    (refused,) = findings(AWS_SITE, wanted, step("replace"), aws_state(), clients)
    assert (refused.level, refused.error) == ("refused", CapacityError)
    assert f"vCPUs of {GPU_CODE}: 0 of 0 used, 4 needed" in refused.what


@pytest.mark.parametrize(("limit", "level"), [(10, "ok"), (9, "refused")])
def test_a_resized_machine_gives_back_what_it_uses(limit: int, level: str) -> None:
    resize = step("update", "site-1-vm", VM, "instanceType")
    clients = AwsClients(RUNNING, {STANDARD_CODE: limit})
    (found,) = findings(AWS_SITE, args_of("aws", "m7i.2xlarge"), resize, aws_state(), clients)
    assert found.level == level
    assert found.what.endswith(f"4 of {limit} used (2 of them by what is replaced or resized), 8 needed")
    if level == "refused":
        assert "--desired-value 10 " in found.next_step
    stopped = AwsClients(RUNNING[1:], {STANDARD_CODE: 10})  # it uses nothing: it needs all of it
    (found,) = findings(AWS_SITE, args_of("aws", "m7i.2xlarge"), resize, aws_state(), stopped)
    assert found.what.endswith("2 of 10 used, 8 needed")


@pytest.mark.parametrize(
    ("wanted", "change", "limits", "told"),
    [
        ("Standard_D8s_v5", "update", {"cores": 12, "DSv5": 7}, "DSv5: 4 of 7 used (4 of them by what is"),
        ("Standard_D8s_v5", "update", {"cores": 12, "DSv5": 8}, ""),
        ("Standard_NC4as_T4_v3", "replace", {"cores": 8, "DSv5": 4, "NCAST4": 0}, "NCAST4: 0 of 0 used, 4 needed"),
        ("Standard_NC4as_T4_v3", "replace", {"cores": 8, "DSv5": 4, "NCAST4": 4}, ""),
    ],
)
def test_azure_counts_what_is_given_back_by_family_and_in_total(
    wanted: str, change: str, limits: dict[str, int], told: str
) -> None:
    clients = azure_clients({"cores": 8, "DSv5": 4}, limits)
    changed = step(change, "site-1-vm", AZURE_VM, "hardwareProfile.vmSize")
    found = findings(AZURE_SITE, args_of("azure", wanted), changed, AZURE_STATE, clients)
    assert len(found) == 2
    refused = [one.what for one in found if one.level == "refused"]
    assert [what.startswith(told) for what in refused] == ([True] if told else [])


def test_the_new_size_must_be_offered_where_machine_and_disk_are() -> None:
    clients = AwsClients(RUNNING, {GPU_CODE: 4})
    (refused,) = findings(AWS_SITE, args_of("aws", "g5.xlarge"), step("replace"), aws_state(), clients, "size")
    assert refused.what == "g5.xlarge is not offered in zone eu-central-1b"
    assert refused.why == "its machine and disk are there; it can be had in eu-central-1a"
    assert "zone:" not in refused.next_step  # another zone means another disk


def test_spot_machines_that_stand_are_not_made_on_demand_instead() -> None:
    site, wanted = member("site-1", spot=True), args_of("aws", "m7i.2xlarge", spot=True)
    running = [{"InstanceId": "i-old", "InstanceType": "m7i.large", "InstanceLifecycle": "spot"}]
    clients = AwsClients(running, {"L-34B43A08": 4, STANDARD_CODE: 64})
    stood = [Event(1.0, "site-1", "machine", "", "")]
    (found,) = findings(site, wanted, step("replace"), aws_state(spot=True), clients, events=stood)
    assert found.level == "refused"
    assert found.what.endswith("2 of 4 used (2 of them by what is replaced or resized), 8 needed")
    first, instead = findings(site, wanted, step("create"), None, clients)
    assert (first.level, instead.level) == ("warning", "ok")


def test_what_changes_a_machine_s_size_and_what_does_not() -> None:
    assert is_resized(step("update", "site-1-vm", VM, "instanceType"))
    assert is_resized(step("update", "site-1-vm", AZURE_VM, "hardwareProfile"))
    tags = step("update", "site-1-vm", VM, "tags")
    assert not is_resized(tags)
    assert standing([tags], aws_state()) is None
    assert standing([step("create")], aws_state()) is None
    role = step("replace", "site-1-role", "azure-native:authorization:RoleAssignment")
    made = creates([step("replace"), role, step("replace", "site-1-vpc", "aws:ec2/vpc:Vpc"), tags])
    assert dict(made) == {VM: 1, role.type: 1}
    assert standing([step("replace")], aws_state(spot=True)) == Standing(
        "i-old", "m7i.large", True, "eu-central-1b", "ami-old"
    )
    assert standing([step("replace", "v", AZURE_VM)], AZURE_STATE) == Standing("/vm", "Standard_D4s_v5", False, "2")


def test_a_replaced_machine_boots_its_ami_again_so_that_one_must_be_there() -> None:
    def asked(describe: Callable[..., Any], **more: Any) -> list[Finding]:
        ssm = SimpleNamespace(get_parameter=lambda **_: {"Parameter": {"Value": "ami-new"}})
        clients: Any = SimpleNamespace(
            client=lambda name: ssm if name == "ssm" else SimpleNamespace(describe_images=describe)
        )
        stands = standing([step("replace")], aws_state())
        wanted = Wanted(AWS_SITE, args_of("aws", "m7i.2xlarge", **more), creates([step("replace")]), False, stands)
        return list(image.check(Place("aws", "eu-central-1", "1", None, clients, (wanted,))))

    (refused,) = asked(lambda ImageIds: {"Images": []})
    assert (refused.level, refused.why) == ("refused", "ami-old is not available, and its machine boots that one again")
    assert refused.next_step == "name another one with `image:` in federation.yml"
    (found,) = asked(lambda ImageIds: {"Images": [{"ImageId": ImageIds[0]}]}, reimage=True)
    assert "ami-new" in found.what


def test_doctor_knows_from_the_ledger_which_machines_change() -> None:
    wanted = args_of("aws", "m7i.large")
    outputs = {"vm_id": "i-old", "image": "ubuntu-24.04"}
    row = Row("site-1", "site", "aws", "registered", region="eu-central-1", size="m7i.large", outputs=outputs)
    assert from_row("aws", row, wanted) == ({}, None)
    made, stands = from_row("aws", row, args_of("aws", "m7i.2xlarge"))
    assert (dict(made), stands) == ({}, Standing("i-old", "m7i.large", False))
    made, stands = from_row("aws", row, args_of("aws", "g5.xlarge"))
    assert (dict(made), stands) == ({VM: 1}, Standing("i-old", "m7i.large", False))
    made, stands = from_row("aws", replace(row, phase="address", outputs={}), wanted)
    assert (dict(made), stands) == ({VM: 1}, None)
    made, stands = from_row("aws", replace(row, region="us-east-1"), wanted)
    assert made["aws:ec2/vpc:Vpc"] == 1
    assert stands is None
