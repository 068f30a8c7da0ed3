"""Wrong arguments are refused before any engine or cloud sees them, with the field and what would be right."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stack_samples import HOST_KEY, PRIVATE_BODY, PUBLIC_KEY, sample

from stacks.args import Gpu, HostKey
from stacks.cidr import cidrs
from stacks.cloud_checks import check_for
from stacks.errors import StackArgumentError

WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "SSH open to the world": ({"ssh_ingress": ("0.0.0.0/0",)}, "ssh_ingress", "opens a port to the world"),
    "SSH open to half of the world": ({"ssh_ingress": ("128.0.0.0/1",)}, "ssh_ingress", "opens a port to the world"),
    "SSH from nowhere": ({"ssh_ingress": ()}, "ssh_ingress", "nobody could log in"),
    "no network": ({"ssh_ingress": ("hospital",)}, "ssh_ingress", "is no IPv4 network"),
    "IPv6": ({"ssh_ingress": ("2001:db8::/32",)}, "ssh_ingress", "is IPv6"),
    "host bits": ({"ssh_ingress": ("10.0.0.5/24",)}, "ssh_ingress", "10.0.0.0/24 or 10.0.0.5/32"),
    "a bare address": ({"ssh_ingress": ("10.0.0.5",)}, "ssh_ingress", "10.0.0.5/32"),
    "the same network twice": ({"ssh_ingress": ("10.0.0.0/24", "10.0.0.0/24")}, "ssh_ingress", "is there twice"),
    "runtime open to the world": (
        {"role": "server", "runtime_ingress": ("0.0.0.0/0",)},
        "runtime_ingress",
        "opens a port to the world",
    ),
    "too many rules": (
        {"role": "server", "runtime_ingress": tuple(f"10.1.{i}.0/24" for i in range(60))},
        "runtime_ingress",
        "61 rules, and a security group takes 60",
    ),
    "too many rules with the one for SSH while a command is logged in": (
        {
            "role": "server",
            "ssh_access": "during-operations",
            "ssh_ingress": (),
            "runtime_ingress": tuple(f"10.1.{i}.0/24" for i in range(60)),
        },
        "runtime_ingress",
        "61 rules, and a security group takes 60",
    ),
    "server without a port": ({"role": "server", "runtime_port": None}, "runtime_port", "a server needs one"),
    "site with a port": ({"runtime_port": 8002}, "runtime_port", "a site has no ingress but SSH"),
    "site with runtime rules": ({"runtime_ingress": ("10.0.0.0/24",)}, "runtime_port", "no ingress but SSH"),
    "one port for two": ({"role": "server", "runtime_port": 22}, "runtime_port", "is the SSH port too"),
    "no such port": ({"ssh_port": 70000}, "ssh_port", "70000 is no port"),
    "spot server": ({"role": "server", "spot": True}, "spot", "never a spot machine"),
    "an admin": ({"role": "admin"}, "role", "has no machine"),
    "upper case": ({"federation": "Digits"}, "federation", "start with a letter"),
    "a long name": ({"participant": "s" * 33}, "participant", "2 to 32"),
    "a deployment with blanks": ({"deployment": "d 1"}, "deployment", "a-z, 0-9 and -"),
    "no owner": ({"owner": ""}, "owner", "can't be a tag"),
    "root as login": ({"ssh_user": "root"}, "ssh_user", "can't be the login name"),
    "a login with blanks": ({"ssh_user": "a b"}, "ssh_user", "can't be the login name"),
    "no disk": ({"state_disk_gib": 0}, "state_disk_gib", "outside 1 to 16384"),
    "a tiny OS disk": ({"os_disk_gib": 4}, "os_disk_gib", "outside 8 to 2048"),
    "a key of two lines": ({"public_key": PUBLIC_KEY + "\n" + PUBLIC_KEY}, "public_key", "in one line"),
    "no key": ({"public_key": "ssh-ed25519 AAAA"}, "public_key", "no OpenSSH public key"),
    "a private key for a public one": ({"public_key": HOST_KEY.private}, "public_key", "no OpenSSH public key"),
    "a public host key for the private one": (
        {"host_key": HostKey(private=HOST_KEY.public, public=HOST_KEY.public)},
        "host_key.private",
        "no OpenSSH private key",
    ),
    "half a host key": (
        {"host_key": HostKey(private=HOST_KEY.private[:60], public=HOST_KEY.public)},
        "host_key.private",
        "is cut off",
    ),
    "our own tag": ({"tags": {"fedspan:owner": "me"}}, "tags", "is reserved"),
    "AWS's tag": ({"tags": {"aws:thing": "me"}}, "tags", "is reserved"),
    "one tag in two cases": ({"tags": {"Cost": "1", "cost": "2"}}, "tags", "differ in case only"),
    "a tag that AWS refuses": ({"tags": {"cost": "a|b"}}, "tags", "can't be a tag's value"),
    "too many tags": ({"tags": {f"t{i}": "x" for i in range(31)}}, "tags", "30 are left"),
}

WRONG_FOR_A_CLOUD: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "Azure's size on AWS": ("aws", {"size": "Standard_D4s_v5"}, "size", "no EC2 instance type"),
    "AWS's size on Azure": ("azure", {"size": "m7i.large"}, "size", "no Azure VM size"),
    "Graviton": ("aws", {"size": "m7g.large"}, "size", "Arm processor"),
    "Graviton with GPU": ("aws", {"size": "g5g.xlarge"}, "size", "Arm processor"),
    "Ampere": ("azure", {"size": "Standard_D4ps_v5"}, "size", "Arm processor"),
    "another region's zone": ("aws", {"zone": "eu-west-1a"}, "zone", "no zone of eu-central-1"),
    "a zone's letter": ("aws", {"zone": "a"}, "zone", "like eu-central-1a"),
    "AWS's zone on Azure": ("azure", {"zone": "westeurope-1"}, "zone", "Azure's are 1, 2 and 3"),
    "encryption at host on AWS": ("aws", {"encryption_at_host": True}, "encryption_at_host", "always encrypted"),
    "self_deallocate on AWS": ("aws", {"self_deallocate": True}, "self_deallocate", "EC2 terminates a machine"),
    "a zone where none are": ("azure", {"region": "westus", "zone": "1"}, "zone", "westus has no zones that are known"),
}


@pytest.mark.parametrize("situation", WRONG)
def test_wrong_arguments_are_refused(situation: str) -> None:
    more, field, text = WRONG[situation]
    with pytest.raises(StackArgumentError) as caught:
        sample("aws", **more)
    assert caught.value.field == field
    assert text in str(caught.value)
    assert PRIVATE_BODY not in str(caught.value)


@pytest.mark.parametrize("situation", WRONG_FOR_A_CLOUD)
def test_what_one_cloud_would_refuse_is_refused_here(situation: str) -> None:
    cloud, more, field, text = WRONG_FOR_A_CLOUD[situation]
    with pytest.raises(StackArgumentError) as caught:
        check_for(cloud, sample(cloud, **more))  # type: ignore[arg-type]
    assert caught.value.field == field
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "size", ["m7i.large", "g4dn.xlarge", "g5.xlarge", "g6e.xlarge", "p4d.24xlarge", "m7i-flex.large"]
)
def test_x86_sizes_of_aws_are_not_taken_for_arm(size: str) -> None:
    check_for("aws", sample("aws", size=size))


@pytest.mark.parametrize(
    "size", ["Standard_D4s_v5", "Standard_NC4as_T4_v3", "Standard_NV36ads_A10_v5", "Standard_D4ds_v5"]
)
def test_x86_sizes_of_azure_are_not_taken_for_arm(size: str) -> None:
    check_for("azure", sample("azure", size=size))


def test_an_error_names_the_participant_and_what_would_be_right() -> None:
    with pytest.raises(StackArgumentError) as caught:
        sample("aws", ssh_ingress=("0.0.0.0/0",))
    assert str(caught.value) == (
        "ssh_ingress: 0.0.0.0/0 opens a port to the world (site-1)\n"
        "  next: name the addresses that need it, for example 203.0.113.7/32"
    )
    assert caught.value.exit_code == 3


def test_gpus_need_a_number() -> None:
    with pytest.raises(StackArgumentError, match=r"gpus\.count"):
        Gpu(0, 16)
    with pytest.raises(StackArgumentError, match=r"gpus\.memory"):
        Gpu(1, -1)


def test_arguments_are_frozen_and_hide_the_private_key() -> None:
    args = sample(tags={"cost-centre": "42"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        args.size = "m7i.xlarge"  # type: ignore[misc]
    with pytest.raises(TypeError):
        args.tags["other"] = "x"  # type: ignore[index]
    assert PRIVATE_BODY not in repr(args)


def test_cidrs_brings_any_collection_into_the_form_that_the_arguments_want() -> None:
    assert cidrs(["203.0.113.7", "10.0.0.0/24", "203.0.113.7/32"]) == ("10.0.0.0/24", "203.0.113.7/32")
    with pytest.raises(StackArgumentError, match="IPv6"):
        cidrs(["2001:db8::1"])


@given(st.lists(st.ip_addresses(v=4).map(str), min_size=1, max_size=30))
def test_what_cidrs_returns_is_always_accepted(addresses: list[str]) -> None:
    args = sample(ssh_ingress=cidrs(addresses))
    assert len(args.ssh_ingress) == len(set(addresses))


def test_the_fingerprint_is_the_one_that_ssh_keygen_prints(tmp_path: Any) -> None:
    import shutil
    import subprocess

    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    printed = subprocess.run(["ssh-keygen", "-lf", f"{path}.pub"], check=True, capture_output=True, text=True).stdout
    key = HostKey(private=path.read_text(), public=path.with_suffix(".pub").read_text().strip())
    assert key.fingerprint == printed.split()[1]
    sample(host_key=key, public_key=key.public)
