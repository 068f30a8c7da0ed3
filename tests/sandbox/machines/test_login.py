"""Who can log in to a machine, and as whom it shows itself: user-data decides, as in a cloud."""

from __future__ import annotations

import os
from pathlib import Path

import paramiko
import pytest
from machine_lab import HOST_PUBLIC, LOGIN_PUBLIC, Lab, new_key, run, user_data

from deployer.sandbox.faults import Faults


def test_the_users_key_opens_and_the_host_key_is_the_one_given(lab: Lab) -> None:
    machine = lab.boot()
    client = lab.ssh(machine)
    assert run(client, "whoami; echo $USER")[1].split()[-1] == b"fedspan"
    shown = client.get_transport().get_remote_server_key()
    assert f"{shown.get_name()} {shown.get_base64()}" == HOST_PUBLIC == machine["host_key"]
    log = Path(machine["console"]).read_text()
    assert "host key from user-data" in log
    assert "accepted publickey for fedspan" in log


@pytest.mark.parametrize(
    "data",
    [
        "",
        "#cloud-config\nusers: [",
        user_data().replace("#cloud-config", "#cloud config"),
        user_data(users=[{"name": "fedspan", "ssh_authorized_keys": [new_key()[1]]}]),
        user_data(users=None),
    ],
)
def test_missing_or_wrong_user_data_lets_nobody_in(lab: Lab, data: str) -> None:
    machine = lab.boot(data)
    # Without user-data sshd is on port 22, which the rules don't open.
    with pytest.raises((OSError, EOFError, paramiko.SSHException)):
        lab.ssh(machine)


def test_without_a_host_key_in_user_data_the_machine_makes_its_own(lab: Lab) -> None:
    keys = {lab.boot(user_data(ssh_keys=None))["host_key"] for _ in range(2)}
    assert len(keys) == 2
    broken = lab.boot(user_data(ssh_keys={"ed25519_private": "-----BEGIN OPENSSH PRIVATE KEY-----\nnonsense\n"}))
    assert broken["host_key"].startswith("ssh-ed25519 ")
    assert "generated a host key" in Path(broken["console"]).read_text()
    assert run(lab.ssh(broken), "true")[0] == 0


def test_other_users_and_other_keys_are_refused(lab: Lab) -> None:
    machine = lab.boot()
    for user, private in (("root", None), ("ubuntu", None), ("..", None), ("fedspan", new_key()[0])):
        with pytest.raises(paramiko.AuthenticationException):
            lab.ssh(machine, user, private) if private else lab.ssh(machine, user)
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    with pytest.raises(paramiko.AuthenticationException):
        client.connect(machine["public_ip"], 2222, "fedspan", "fedspan", allow_agent=False, look_for_keys=False)


def test_keys_of_the_cloud_itself_log_in(lab: Lab) -> None:
    machine = lab.boot(user_data(users=None), login_keys=(("ubuntu", LOGIN_PUBLIC),))
    assert run(lab.ssh(machine, "ubuntu"), "echo $HOME")[1].strip().endswith(b"/home/ubuntu")


def test_a_rotated_host_key_and_a_new_authorized_key_count_at_the_next_connection(lab: Lab) -> None:
    machine = lab.boot()
    private, public = new_key()
    login_private, login_public = new_key()
    etc, home = Path(machine["root"], "etc/ssh"), Path(machine["root"], "home/fedspan")
    client = lab.ssh(machine)
    run(client, "umask 077; cat > $FEDSPAN_ROOT/etc/ssh/new && mv $FEDSPAN_ROOT/etc/ssh/new "
        "$FEDSPAN_ROOT/etc/ssh/ssh_host_ed25519_key", private.encode())  # fmt: skip
    run(client, "cat >> $HOME/.ssh/authorized_keys", login_public.encode() + b"\n")
    assert (etc / "ssh_host_ed25519_key").read_text() == private
    assert login_public in (home / ".ssh/authorized_keys").read_text()
    again = lab.ssh(machine, private=login_private)
    shown = again.get_transport().get_remote_server_key()
    assert shown.get_base64() == public.split()[1]
    # ... and after a reboot it is still that key: user-data counts at the first boot only.
    lab.machines.change(machine["id"], boots=1)
    assert lab.ssh(machine).get_transport().get_remote_server_key().get_base64() == public.split()[1]


def test_faults_wrong_host_key_and_never_ssh(lab: Lab) -> None:
    lab.machines.faults.write(Faults(wrong_host_key=("site-1",), never_ssh=("site-2",)))
    wrong = lab.boot()
    shown = lab.ssh(wrong).get_transport().get_remote_server_key()
    assert shown.get_base64() != HOST_PUBLIC.split()[1]
    silent = lab.boot(tags={"fedspan-participant": "site-2"})
    with pytest.raises((OSError, EOFError, paramiko.SSHException)):
        lab.ssh(silent)


def test_user_data_and_disk_are_nobody_elses_to_read(lab: Lab) -> None:
    machine = lab.boot()
    folder = Path(machine["root"]).parent
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "setup.json").stat().st_mode & 0o077 == 0
    assert (folder / "root/etc/ssh/ssh_host_ed25519_key").stat().st_mode & 0o077 == 0
    assert os.stat(folder / "root/home/fedspan/.ssh").st_mode & 0o077 == 0
