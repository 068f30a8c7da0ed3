"""The nspawn driver: what a machine is, read from inside and from outside. One AWS machine for most of it."""

from __future__ import annotations

import base64
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from machine_lab import HOST_PUBLIC, LOGIN_PUBLIC
from nspawn_lab import LISTEN, PROBE, SSH, SSH_RULE, Guest, NspawnLab, answers, stack_user_data
from waiting import until

from deployer.sandbox.faults import Faults
from deployer.sandbox.machines.nspawn import cgroup, core, volumes
from deployer.sandbox.machines.nspawn.kind import group_prefix
from deployer.sandbox.model import Rule

pytestmark = pytest.mark.slow

VOLUME = ("vol-0a1b", "/dev/sdf")


@pytest.fixture(scope="module")
def aws(systems: NspawnLab) -> Guest:
    """A machine as the AWS stack makes it, with its state volume."""
    return systems.guest(volumes=(VOLUME,))


@pytest.fixture(scope="module")
def azure(systems: NspawnLab) -> Guest:
    """Azure's login comes from osProfile; this user-data knows of no users."""
    return systems.guest(
        "clinic",
        "#cloud-config\nwrite_files: [{path: /etc/told, content: by custom data}]\n",
        cloud="azure",
        id="/subscriptions/1/vm#2",
        login_keys=(("clinic", LOGIN_PUBLIC),),
        volumes=(("/subscriptions/1/disks/state", "lun0"),),
    )


def test_an_aws_machine_boots_from_the_metadata_service(aws: Guest) -> None:
    assert "DataSourceEc2" in aws.sh("cloud-init status --long")
    assert aws.sh("hostname") == "site-1"
    assert aws.sh("sudo -n id -u") == "0"
    assert aws.sh("ps -p 1 -o comm=") == "systemd"
    assert aws.sh("systemctl --failed --no-legend") == ""
    key = aws.client.get_transport().get_remote_server_key()  # type: ignore[union-attr]
    assert f"{key.get_name()} {key.get_base64()}" == " ".join(HOST_PUBLIC.split()[:2])


def test_it_is_what_the_clouds_images_are(aws: Guest) -> None:
    assert aws.sh("python3 -c 'import ensurepip'; echo $?") == "1"
    assert aws.sh("systemctl is-enabled unattended-upgrades apt-daily-upgrade.timer") == "enabled\nenabled"
    assert 'Unattended-Upgrade "1"' in aws.sh("apt-config dump APT::Periodic::Unattended-Upgrade")


def test_the_metadata_service_wants_a_token(aws: Guest) -> None:
    told = aws.python(
        "import urllib.request, urllib.error\n"
        "base = 'http://169.254.169.254/latest/'\n"
        "def ask(path, method='GET', **headers):\n"
        "    headers = {'X-aws-ec2-metadata-' + name.replace('_', '-'): value for name, value in headers.items()}\n"
        "    request = urllib.request.Request(base + path, headers=headers, method=method)\n"
        "    try:\n"
        "        return urllib.request.urlopen(request, timeout=5).read().decode()\n"
        "    except urllib.error.HTTPError as error:\n"
        "        return str(error.code)\n"
        "print(ask('meta-data/instance-id'))\n"
        "print(ask('api/token', 'PUT'))\n"
        "token = ask('api/token', 'PUT', token_ttl_seconds='60')\n"
        "for path in ('meta-data/instance-id', 'meta-data/public-ipv4', 'meta-data/nothing'):\n"
        "    print(ask(path, token=token))\n"
    ).splitlines()
    assert told == ["401", "400", aws.machine["id"], aws.address, "404"]


def test_a_token_does_not_travel_further_than_the_machine(aws: Guest) -> None:
    """The answer that brings it has the hop limit as its TTL: a router behind the machine may not pass it on."""
    program = base64.b64encode(_TTL.encode()).decode()
    told = aws.sh(f"""sudo -n python3 -c "import base64; exec(base64.b64decode('{program}'))" """)
    assert told == "200 by TTL 1"


_TTL = """
import socket
packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
packets.settimeout(5)
asker = socket.create_connection(("169.254.169.254", 80), timeout=5)
asker.sendall(b"PUT /latest/api/token HTTP/1.0\\r\\nX-aws-ec2-metadata-token-ttl-seconds: 60\\r\\n\\r\\n")
while True:
    packet = packets.recv(65536)
    if b"HTTP/1.1 200" in packet and packet[12:16] == bytes([169, 254, 169, 254]):
        print("200 by TTL", packet[8])
        break
"""


def test_an_azure_machine_has_its_login_from_os_profile(azure: Guest) -> None:
    assert azure.sh("cat /etc/told") == "by custom data"
    assert azure.sh("sudo -n id -u") == "0"
    # tokens of its identity, and Azure's management; nothing else
    targets = [("169.254.169.254", port) for port in (80, 443, 22)]
    assert azure.python(PROBE.format(targets=targets)).split() == ["open", "open", "refused"]
    assert azure.sh("readlink /dev/disk/azure/scsi1/lun0").startswith("/dev/loop")


def test_nothing_leaves_the_sandbox(aws: Guest, azure: Guest) -> None:
    there = [("8.8.8.8", 53), ("198.51.100.10", 22), ("10.0.0.1", 22), ("172.17.0.1", 22)]
    for guest in (aws, azure):
        told = guest.python(PROBE.format(targets=there)).splitlines()
        assert "open" not in told
        assert told[0] == "Network is unreachable"
        assert guest.sh("getent hosts example.org", check=False) == ""


def test_open_is_what_the_rules_say_and_nothing_else(systems: NspawnLab, aws: Guest, azure: Guest) -> None:
    ports = [22, 8002, 8003, 9000]
    aws.python(LISTEN.format(ports=[8002, 8003, 9000]))
    probe = PROBE.format(targets=[(aws.address, port) for port in ports])

    def see(what: str, here: str, there: str, *rules: Rule) -> None:
        """Rules follow at once, but not before the call returns: what is seen has to become what is expected."""
        words = {"+": "open", "-": "nothing"}
        systems.machines.change(aws.machine["id"], ingress=rules)
        wanted = [words[sign] for sign in here], [words[sign] for sign in there]
        until(
            lambda: ([answers(aws.address, port) for port in ports], azure.python(probe).split()) == wanted, what=what
        )

    two = Rule(8002, 8003, "tcp", f"{azure.address}/32")
    see("two ports for one machine", "+---", "-++-", SSH_RULE, two, Rule(9000, 9000, "udp", "0.0.0.0/0"))
    assert systems.seen(aws.machine["id"])["ports"] == [22, 8002, 8003]
    see("everything for all", "++++", "++++", Rule(9000, 9000, "-1", "0.0.0.0/0"))
    see("SSH only", "+---", "----", SSH_RULE)
    assert aws.sh("echo still here") == "still here"


def test_the_machine_knows_its_private_address_and_sees_public_ones(aws: Guest) -> None:
    assert "inet 10.0.0.4/24" in aws.sh("ip -4 addr show eth0")
    assert aws.sh("echo $SSH_CONNECTION").split()[:1] == ["198.51.100.10"]
    assert aws.address not in aws.sh("ip addr")


def test_the_state_volume_is_formatted_once_and_mounted(aws: Guest) -> None:
    until(lambda: aws.sh("systemctl is-active fedspan-state", check=False) == "active", what="the volume")
    assert aws.sh("findmnt -no FSTYPE /var/lib/fedspan") == "ext4"
    assert aws.sh("sudo -n e2label /dev/xvdf") == "fedspan-state"
    assert "noatime" in aws.sh("findmnt -no OPTIONS /var/lib/fedspan")


def test_a_machine_that_reboots_itself_comes_back_with_its_disk_and_volume(systems: NspawnLab, aws: Guest) -> None:
    until(lambda: aws.sh("systemctl is-active fedspan-state", check=False) == "active", what="the volume")
    before = aws.sh("cat /proc/sys/kernel/random/boot_id; echo on disk | sudo tee /root/note >/dev/null")
    aws.sh("echo on volume | sudo tee /var/lib/fedspan/note >/dev/null; sync")
    aws.sh("sudo -n systemctl reboot", check=False)
    aws.client.close()
    again = _after_reboot(systems, aws, before)
    assert again.sh("sudo cat /root/note /var/lib/fedspan/note") == "on disk\non volume"
    assert systems.seen(aws.machine["id"])["state"] == "running"
    aws.client = again.client


def _after_reboot(systems: NspawnLab, guest: Guest, boot_id: str) -> Guest:
    def rebooted() -> Guest | None:
        new = systems.login(guest.machine)
        if new.sh("cat /proc/sys/kernel/random/boot_id", check=False) in ("", boot_id):
            new.client.close()
            return None
        return new

    again: Guest = until(rebooted, what="the reboot")
    until(lambda: again.sh("systemctl is-active fedspan-state", check=False) == "active", what="the volume")
    return again


def test_stopped_it_answers_nobody_and_started_it_is_the_same(systems: NspawnLab, aws: Guest) -> None:
    aws.sh("echo again | sudo tee /root/note >/dev/null")
    systems.machines.change(aws.machine["id"], running=False)
    assert answers(aws.address, 22) == "nothing"
    assert systems.seen(aws.machine["id"])["state"] == "stopped"
    systems.machines.change(aws.machine["id"], running=True)
    aws.client = systems.login(aws.machine).client
    assert aws.sh("sudo cat /root/note") == "again"


def test_the_rate_of_a_link_is_held(systems: NspawnLab, aws: Guest) -> None:
    def seconds() -> float:
        begun = time.monotonic()
        assert len(aws.sh("head -c 750000 /dev/urandom | base64 -w0")) == 1_000_000
        return time.monotonic() - begun

    # 1 MB at 2 Mbit/s takes 4 s, less what the link's bucket lets through at once.
    systems.machines.faults.write(Faults(links={"site-1": {"rate_mbit": 2.0}}))
    systems.machines.change(aws.machine["id"])
    try:
        until(lambda: seconds() > 3.5, what="the slow link")
    finally:
        systems.machines.faults.write(Faults())
        systems.machines.change(aws.machine["id"])
    until(lambda: seconds() < 3.0, what="the fast link")


def test_delay_and_loss_are_made_or_said_to_be_impossible(systems: NspawnLab, aws: Guest) -> None:
    systems.machines.faults.write(Faults(links={"site-1": {"delay_ms": 200.0}}))
    machine = systems.machines.change(aws.machine["id"])
    try:
        problems = until(lambda: systems.seen(machine["id"])["problems"] or _slow(aws.address), what="the link")
        if problems is not True:  # a kernel without netem
            assert problems[0].startswith("link: tc qdisc add")
    finally:
        systems.machines.faults.write(Faults())
        systems.machines.change(aws.machine["id"])
    until(lambda: systems.seen(machine["id"])["problems"] == [], what="no problem")


def _slow(address: str) -> bool:
    begun = time.monotonic()
    with socket.create_connection((address, 22), timeout=5):
        return time.monotonic() - begun > 0.15


def test_a_replaced_machine_has_the_address_and_the_volume_of_the_one_before(systems: NspawnLab, aws: Guest) -> None:
    until(lambda: aws.sh("systemctl is-active fedspan-state", check=False) == "active", what="the volume")
    aws.sh("echo kept | sudo tee /var/lib/fedspan/kept >/dev/null; sync")
    address = aws.address
    systems.machines.remove(aws.machine["id"])
    new = systems.guest(id="i-new", public_ip=address, volumes=(VOLUME,))
    until(lambda: new.sh("systemctl is-active fedspan-state", check=False) == "active", what="the volume")
    assert new.address == address
    assert new.sh("cat /var/lib/fedspan/kept") == "kept"
    assert new.sh("sudo cat /root/note 2>&1", check=False).endswith("No such file or directory")


def test_a_running_machine_gets_another_public_address(systems: NspawnLab) -> None:
    guest = systems.guest()
    new = systems.machines.address()
    systems.machines.change(guest.machine["id"], public_ip=new)
    until(lambda: answers(new, 22) == "open", what="the new address")
    assert answers(guest.address, 22) == "nothing"
    systems.machines.change(guest.machine["id"], public_ip=None)
    until(lambda: answers(new, 22) == "nothing", what="no address")
    assert systems.seen(guest.machine["id"])["problems"] == []
    systems.machines.remove(guest.machine["id"])


def test_machines_of_one_network_reach_one_another_as_the_rules_allow(systems: NspawnLab) -> None:
    inner = Rule(SSH, SSH, "tcp", "10.99.1.0/24")
    one = systems.guest(network="vpc-1", private_ip="10.99.1.4")
    behind = {"network": "vpc-1", "public_ip": None, "ingress": (inner,)}
    hidden = systems.boot(stack_user_data(), private_ip="10.99.2.4", **behind)
    other = systems.boot(stack_user_data(), private_ip="10.99.3.4", **{**behind, "network": "vpc-2"})
    ask = PROBE.format(targets=[("10.99.2.4", SSH), ("10.99.2.4", 8002), ("10.99.3.4", SSH)])
    until(lambda: one.python(ask).split() == ["open", "nothing", "nothing"], what="SSH inside")
    systems.machines.change(hidden["id"], ingress=())
    until(lambda: one.python(ask).split()[0] == "nothing", what="no SSH inside")
    systems.machines.remove(one.machine["id"], hidden["id"], other["id"])


def test_a_volume_that_can_not_be_attached_leaves_no_device(
    systems: NspawnLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError("no device")

    monkeypatch.setattr(volumes, "FileIO", refused)
    with pytest.raises(OSError, match="no device"):
        volumes.Attached(str(tmp_path)).attach([VOLUME])
    said = subprocess.run(["losetup", "--list"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in said


def test_faults_of_ssh_are_seen(systems: NspawnLab) -> None:
    systems.machines.faults.write(Faults(never_ssh=("mute",), wrong_host_key=("other",)))
    try:
        mute = systems.boot(stack_user_data(), ingress=(SSH_RULE,), tags={"fedspan:participant": "mute"})
        other = systems.boot(stack_user_data(), ingress=(SSH_RULE,), tags={"fedspan:participant": "other"})
        guest = systems.login(other)
        key = guest.client.get_transport().get_remote_server_key()  # type: ignore[union-attr]
        assert key.get_base64() != HOST_PUBLIC.split()[1]
        assert "cloud-init" in until(lambda: _console(mute, "cloud-init"), what="its console")
        assert answers(mute["public_ip"], 22) == "refused"
    finally:
        systems.machines.faults.write(Faults())


def _console(machine: dict[str, Any], word: str) -> str:
    text = Path(machine["console"]).read_text(errors="replace")
    return text if word in text else ""


def test_a_killed_supervisor_takes_its_machine_along_and_leaves_nothing(systems: NspawnLab) -> None:
    guest = systems.guest(tags={"fedspan:participant": "doomed"})
    machine = systems.seen(guest.machine["id"])
    name = Path(machine["root"]).parent.name
    # The driver's own child is `unshare`; what it started is the machine's supervisor.
    supervisor = int(Path(f"/proc/{machine['pid']}/task/{machine['pid']}/children").read_text().split()[0])
    subprocess.run(["kill", "-KILL", str(supervisor)], check=True)
    until(lambda: systems.seen(guest.machine["id"])["state"] == "crashed", what="the crash")
    assert answers(guest.address, 22) == "nothing"
    groups = [group for tree in cgroup.hierarchies() for group in tree.glob(f"*{name}")]
    assert groups == []
    assert name not in subprocess.run(["ps", "-axo", "args"], capture_output=True, text=True, check=True).stdout


def test_afterwards_nothing_is_left_on_the_computer(systems: NspawnLab) -> None:
    """The last one of this module: it ends the sandbox."""
    home, network = systems.machines.home, systems.machines.core
    assert network is not None
    systems.close()
    systems.machines.close()
    said = subprocess.run("ip netns; ip link; ip route; losetup; mount", shell=True, capture_output=True, text=True)
    assert said.returncode == 0
    assert not re.search(rf"\b{network.name}\b", said.stdout)
    assert str(network.block) not in said.stdout
    assert str(home) not in said.stdout
    assert not (home / core.NOTE).exists()
    for tree in cgroup.hierarchies():
        assert list(tree.glob(f"{group_prefix(home)}*")) == []
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert "fedspan" not in tables
