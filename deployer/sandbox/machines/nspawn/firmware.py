"""What a machine's firmware would tell its system, and what is on its disk before the first boot.

A cloud is recognised by cloud-init from the firmware's tables. A container has the host's tables, which cloud-init
ignores for that reason; what it believes also in a container is the hypervisor's UUID in /sys, where EC2's begins with
"ec2". nspawn's /sys is the host's, read-only: a unit that runs before cloud-init lays one over it that has this file.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from deployer.sandbox.machines.boot import plan_boot
from deployer.sandbox.model import MachineSpec

UNIT = "sandbox-firmware.service"
_SCRIPT = "/usr/local/lib/sandbox/firmware"
_UUID = "/usr/local/lib/sandbox/hypervisor-uuid"
SEED = "/var/lib/cloud/seed/nocloud-net"

_FIRMWARE = f"""\
#!/bin/sh
# Lays a /sys over the container's that is the same and also shows the hypervisor's UUID.
set -eu
new=/run/sandbox-sys
mkdir -p "$new"
mount -t tmpfs -o mode=755,nosuid,nodev,noexec tmpfs "$new"
for folder in /sys/*; do
  mkdir "$new/${{folder#/sys/}}"
  mount --rbind "$folder" "$new/${{folder#/sys/}}"
done
mkdir "$new/hypervisor"
cp {_UUID} "$new/hypervisor/uuid"
mount --rbind "$new" /sys
mount -o remount,bind,ro /sys
"""

_FIRMWARE_UNIT = f"""\
[Unit]
Description=The sandbox's firmware
DefaultDependencies=no
ConditionPathExists={_UUID}
ConditionPathExists=!/sys/hypervisor/uuid
Before=cloud-init-local.service cloud-init.service sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={_SCRIPT}
"""

DEFAULT_USER = "ubuntu"
"""The account of the images that the stacks ask for; AWS's key pair goes to it."""

_CLOUD_CONFIG = f"""\
# Only what a server has: no locales beside C.UTF-8.
locale: false
# The sandbox sets the interface up before the machine boots, as a cloud's DHCP would.
network: {{config: disabled}}
system_info:
  default_user:
    name: {DEFAULT_USER}
    gecos: {DEFAULT_USER}
    groups: [adm, sudo]
    sudo: ["ALL=(ALL) NOPASSWD:ALL"]
    lock_passwd: true
    shell: /bin/bash
"""

_JOURNAL = """\
# To the console, where the sandbox keeps it as a cloud keeps a boot log.
[Journal]
ForwardToConsole=yes
TTYPath=/dev/console
MaxLevelConsole=info
"""

LINKS = {
    f"/etc/systemd/system/sysinit.target.wants/{UNIT}": f"../{UNIT}",
    # Logins at a console that nobody sees; the clock, the kernel's settings and the interface are the sandbox's.
    **{
        f"/etc/systemd/system/{unit}": "/dev/null"
        for unit in ("console-getty.service", "getty@.service", "systemd-sysctl.service", "systemd-networkd.service")
    },
}
"""Symbolic links on a new machine's disk: path -> target."""

Files = dict[str, tuple[int, str]]
"""path -> (mode, text)"""


def first_disk(spec: MachineSpec) -> Files:
    """What lies on a new machine's disk before its first boot.

    AWS: cloud-init's datasource Ec2 and the hypervisor that it is recognised by; everything else comes from the
    metadata service. Azure and machines without a cloud: the datasource NoCloud, written from osProfile: its user is
    the image's default user, its keys are the metadata's keys, its custom data is the user-data. (The datasource
    Azure itself wants a provisioning disk and Azure's wire server.)
    """
    common: Files = {
        _SCRIPT: (0o755, _FIRMWARE),
        f"/etc/systemd/system/{UNIT}": (0o644, _FIRMWARE_UNIT),
        "/etc/systemd/journald.conf.d/10-console.conf": (0o644, _JOURNAL),
        "/etc/cloud/cloud.cfg.d/90-image.cfg": (0o644, _CLOUD_CONFIG),
    }
    if spec.cloud == "aws":
        return {
            **common,
            "/etc/cloud/cloud.cfg.d/95-datasource.cfg": (0o644, "datasource_list: [ Ec2 ]\n"),
            _UUID: (0o644, hypervisor_uuid(spec.id) + "\n"),
        }
    metadata: dict[str, Any] = {"instance-id": instance_id(spec.id), "public-keys": [key for _, key in spec.login_keys]}
    config: dict[str, Any] = {"datasource_list": ["NoCloud"]}
    if spec.login_keys:
        config["system_info"] = {"default_user": {"name": spec.login_keys[0][0]}}
    # JSON is YAML too.
    return {
        **common,
        "/etc/cloud/cloud.cfg.d/95-datasource.cfg": (0o644, json.dumps(config) + "\n"),
        f"{SEED}/meta-data": (0o600, json.dumps(metadata) + "\n"),
        f"{SEED}/user-data": (0o600, spec.user_data),
    }


def hypervisor_uuid(machine_id: str) -> str:
    """A UUID of EC2's kind."""
    digits = hashlib.sha256(machine_id.encode()).hexdigest()
    return f"ec2{digits[:5]}-{digits[5:9]}-{digits[9:13]}-{digits[13:17]}-{digits[17:29]}"


def instance_id(machine_id: str) -> str:
    """The id that cloud-init remembers a machine by; ARM's resource ids are paths, which it can't take."""
    if machine_id.startswith("i-"):
        return machine_id
    return f"i-{hashlib.sha256(machine_id.encode()).hexdigest()[:17]}"


def ssh_ports(spec: MachineSpec) -> tuple[int, ...]:
    """The ports on which user-data lets sshd listen."""
    return plan_boot(spec.user_data, spec.login_keys).ssh_ports


def faulty(never_ssh: bool, host_key: tuple[str, str] | None) -> Files:
    """Files of the faults: no SSH server at all, or one with another host key (private, public)."""
    found: Files = {}
    if never_ssh:
        found["/etc/ssh/sshd_not_to_be_run"] = (0o644, "fault\n")
    if host_key is not None:
        found["/etc/ssh/fault_key"] = (0o600, host_key[0])
        found["/etc/ssh/fault_key.pub"] = (0o644, host_key[1])
        found["/etc/ssh/sshd_config.d/00-fault.conf"] = (0o644, "HostKey /etc/ssh/fault_key\n")
    return found
