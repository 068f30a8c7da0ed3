"""A standing machine gets another image where another one is wanted, and never because fedspan itself was renewed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployer.deployment import lead
from deployer.part import Part
from deployer.plan_make import Planner
from startup_kits.passphrase import PassphraseSource
from startup_kits.provision import provision
from startup_kits.spec import load_spec
from startup_kits.workspace import Workspace

SPEC = """\
version: 1
name: digits
server: {target: kit}
sites: {site-1: {target: CLOUD, region: REGION, size: SIZE IMAGE}}
admins: {ana@hospital-a.example: {role: lead}}
"""
PLACE = "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/shared/providers/Microsoft.Compute"
AMI, OTHER_AMI = "ami-0123456789abcdef0", "ami-0123456789abcdef1"
GALLERY, MANAGED = f"{PLACE}/galleries/g/images/ubuntu/versions/1.0.0", f"{PLACE}/images/golden"
UBUNTU = {"publisher": "Canonical", "offer": "ubuntu-24_04-lts", "sku": "server"}


def args_of(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: str,
    image: str | None,
    inputs: dict[str, Any] | None,
    told: str = "",
) -> Any:
    """The stack's arguments for that size and image, where a machine with these inputs stands and `told` its image."""
    monkeypatch.setenv("FEDSPAN_PASSPHRASE", "correct horse battery staple")
    cloud, region = ("azure", "westeurope") if size.startswith("Standard") else ("aws", "eu-central-1")
    words = {"CLOUD": cloud, "REGION": region, "SIZE": size, "IMAGE": f", image: {image}" if image else ""}
    text = SPEC
    for word, value in words.items():
        text = text.replace(word, value)
    (folder / "federation.yml").write_text(text)
    workspace = Workspace.find(folder / "federation.yml")
    spec = load_spec(workspace.spec_path)
    provision(workspace, spec, PassphraseSource.for_terminal(workspace.passphrase_path, None))
    realm: Any = SimpleNamespace(ssh_port=22)
    planner = Planner(lead(workspace, spec, realm), _networks=("198.51.100.0/24",))
    kind = "azure-native:compute:VirtualMachine" if cloud == "azure" else "aws:ec2/instance:Instance"
    stack = {"type": "pulumi:pulumi:Stack", "outputs": {"image": told, "region": region}}
    machine = {"type": kind, "custom": True, "id": "vm", "inputs": inputs}
    state = {"resources": [stack, machine]} if inputs else None
    return planner.arguments(Part(planner.deployment.members["site-1"], state))


def azure(secure: bool = True, **reference: str) -> dict[str, Any]:
    profile = {"securityProfile": {"securityType": "TrustedLaunch"}} if secure else {}
    return {"storageProfile": {"imageReference": reference}, **profile}


CASES = {
    "the first machine": ("m7i.large", AMI, None, "", False),
    "the same": ("m7i.large", AMI, {"ami": AMI}, AMI, False),
    "the same, told as the cloud's by an older fedspan": ("m7i.large", AMI, {"ami": AMI}, "ubuntu-24.04", False),
    "another": ("m7i.large", OTHER_AMI, {"ami": AMI}, AMI, True),
    "another, told as the cloud's": ("m7i.large", OTHER_AMI, {"ami": AMI}, "ubuntu-24.04", True),
    "one instead of the cloud's": ("m7i.large", AMI, {"ami": OTHER_AMI}, "ubuntu-24.04", True),
    "the cloud's instead of one": ("m7i.large", None, {"ami": AMI}, AMI, True),
    "a newer one of the cloud's": ("m7i.large", None, {"ami": OTHER_AMI}, "ubuntu-24.04", False),
    "the cloud's for GPUs": ("g4dn.xlarge", None, {"ami": AMI}, "ubuntu-24.04", True),
    "an own one for GPUs": ("g4dn.xlarge", AMI, {"ami": AMI}, "dlami-ubuntu-22.04", False),
    "azure, the same": ("Standard_D4s_v5", GALLERY, azure(id=GALLERY), "ubuntu-24.04", False),
    "azure, the same as ARM writes it": ("Standard_D4s_v5", GALLERY, azure(id=GALLERY.upper()), GALLERY, False),
    "azure, another": ("Standard_D4s_v5", GALLERY, azure(id=MANAGED, secure=False), MANAGED, True),
    "azure, one instead of the cloud's": ("Standard_D4s_v5", GALLERY, azure(**UBUNTU), "ubuntu-24.04", True),
    "azure, the cloud's instead of one": ("Standard_D4s_v5", None, azure(id=GALLERY), "ubuntu-24.04", True),
    "azure, the cloud's": ("Standard_D4s_v5", None, azure(**UBUNTU), "ubuntu-24.04", False),
}


@pytest.mark.parametrize("case", CASES)
def test_another_image_is_taken_where_the_machine_boots_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    size, image, inputs, told, another = CASES[case]
    assert args_of(tmp_path, monkeypatch, size, image, inputs, told).reimage is another


@pytest.mark.parametrize(
    ("inputs", "trusted"),
    [
        (None, True),
        (azure(id=GALLERY), True),
        (azure(id=GALLERY, secure=False), False),  # getting it would replace the machine, whose image is the same
        (azure(id=MANAGED, secure=False), True),
        (azure(**UBUNTU, secure=False), True),
    ],
)
def test_a_machine_that_stands_without_trusted_launch_gets_it_with_another_image_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: dict[str, Any] | None, trusted: bool
) -> None:
    told = "hpc-ubuntu-22.04"
    assert args_of(tmp_path, monkeypatch, "Standard_NC4as_T4_v3", GALLERY, inputs, told).trusted_launch is trusted
