"""What user-data does to a machine, by cloud-init's rules."""

from __future__ import annotations

import base64
import gzip

import pytest
import yaml

from deployer.sandbox.machines.boot import BootPlan, plan_boot

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOd6 somebody"
HEAD = "#cloud-config\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no user-data"),
        (f"users: [{{name: fedspan, ssh_authorized_keys: ['{KEY}']}}]", "not cloud-config"),
        ("#cloud-confg\nusers: []", "not cloud-config"),
        (" #cloud-config\nusers: []", "not cloud-config"),
        (HEAD + "users: [", "failed to parse"),
        (HEAD + "- a list", "no mapping"),
        (HEAD + "users: !!python/object:os.system x", "failed to parse"),
    ],
)
def test_user_data_that_cloud_init_would_not_read_gives_nobody_a_key(text: str, why: str) -> None:
    plan = plan_boot(text)
    assert all(not keys for keys in plan.users.values())
    assert plan.host_key is None
    assert any(why in line for line in plan.log)


def test_users_get_their_own_keys_and_the_default_user_only_if_asked_for() -> None:
    plan = plan_boot(HEAD + f"users: [{{name: fedspan, ssh_authorized_keys: ['{KEY}']}}]", [("ubuntu", KEY)])
    assert plan.users == {"fedspan": (KEY,)}
    assert any("ubuntu, which user-data did not make" in line for line in plan.log)
    plan = plan_boot(HEAD + f"users: [default, {{name: ana, ssh_authorized_keys: ['{KEY}']}}]", [("ubuntu", KEY)])
    assert plan.users == {"ubuntu": (KEY,), "ana": (KEY,)}


def test_key_pair_and_top_level_keys_belong_to_the_default_user() -> None:
    assert plan_boot("", [("ubuntu", KEY)]).users == {"ubuntu": (KEY,)}
    assert plan_boot(HEAD + f"ssh_authorized_keys: ['{KEY}']").users == {"ubuntu": (KEY,)}


def test_azures_os_profile_makes_its_own_account() -> None:
    plan = plan_boot(HEAD + f"users: [{{name: ana, ssh_authorized_keys: ['{KEY}']}}]", [("fedspan", KEY)])
    assert plan.users == {"ana": (KEY,), "fedspan": (KEY,)}


@pytest.mark.parametrize("bad", ["not a key", "ssh-ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----", ""])
def test_what_is_no_public_key_opens_nothing(bad: str) -> None:
    plan = plan_boot(HEAD + f"users: [{{name: fedspan, ssh_authorized_keys: ['{bad}']}}]")
    assert plan.users == {"fedspan": ()}
    assert any("not an SSH public key" in line for line in plan.log)


def test_root_is_never_let_in() -> None:
    assert plan_boot(HEAD + f"users: [{{name: root, ssh_authorized_keys: ['{KEY}']}}]").users == {}


@pytest.mark.parametrize("name", ["../../etc", "a b", "A", "", "x" * 40, "a/b"])
def test_account_names_that_linux_refuses_make_no_account(name: str) -> None:
    assert plan_boot(HEAD + f"users: [{{name: '{name}', ssh_authorized_keys: ['{KEY}']}}]").users == {}


def _ports(path: str, content: str, *more: tuple[str, str]) -> tuple[int, ...]:
    files = [{"path": p, "content": c} for p, c in ((path, content), *more)]
    return plan_boot(HEAD + yaml.safe_dump({"write_files": files})).ssh_ports


def test_sshd_listens_where_its_files_say() -> None:
    sshd = "/etc/ssh/sshd_config.d/10.conf"
    socket = "/etc/systemd/system/ssh.socket.d/10.conf"
    assert BootPlan().ssh_ports == (22,)
    assert _ports(sshd, "PasswordAuthentication no\nPort 2222\n") == (2222,)
    assert _ports(sshd, "#Port 2222\n") == (22,)
    assert _ports(sshd, "Port 2222", (socket, "[Socket]\nListenStream=\nListenStream=2022\n")) == (2022,)
    assert _ports(socket, "[Socket]\nListenStream=0.0.0.0:2022\n") == (22, 2022)
    assert _ports(sshd, "Port 99999") == ()
    assert _ports("/etc/ssh/elsewhere.conf", "Port 2222") == (22,)


def test_written_files_are_decoded_and_bad_ones_are_told() -> None:
    zipped = base64.b64encode(gzip.compress(b"zipped")).decode()
    files = [
        {"path": "/a", "content": "text", "permissions": "0755"},
        {"path": "/b", "content": base64.b64encode(b"\x00\x01").decode(), "encoding": "b64"},
        {"path": "/c", "content": zipped, "encoding": "gz+b64"},
        {"path": "/d", "content": "not gzip", "encoding": "gzip"},
        {"path": "relative", "content": ""},
        {"path": "/e", "permissions": "rw"},
        "no mapping",
    ]
    plan = plan_boot(HEAD + f"write_files: {files!r}")
    assert [(file.path, file.content, file.mode) for file in plan.files] == [
        ("/a", b"text", 0o755),
        ("/b", b"\x00\x01", 0o644),
        ("/c", b"zipped", 0o644),
    ]
    assert sum("write_files" in line for line in plan.log) == 4


def test_the_volume_is_mounted_only_if_something_mounts_it() -> None:
    script = {"path": "/usr/local/sbin/m", "content": "mount /dev/x /var/lib/fedspan\n"}
    unit = {"path": "/etc/systemd/system/m.service", "content": "[Service]\nExecStart=/usr/local/sbin/m\n"}
    assert plan_boot(HEAD + "mounts: [[LABEL=x, /var/lib/fedspan]]").mounts_state
    assert plan_boot(HEAD + f"write_files: [{script}, {unit}]\nruncmd: [[systemctl, enable, m.service]]").mounts_state
    assert plan_boot(HEAD + f"write_files: [{script}]\nruncmd: [/usr/local/sbin/m]").mounts_state
    assert not plan_boot(HEAD + f"write_files: [{script}, {unit}]").mounts_state
    assert not plan_boot(HEAD + "mounts: [[LABEL=x, /mnt]]").mounts_state


def test_commands_are_said_not_to_run() -> None:
    plan = plan_boot(HEAD + "runcmd: [ls, [ls]]\npackages: [git]")
    assert "cloud-init: runcmd: 2 not run (this machine is a process without root)" in plan.log
    assert "cloud-init: packages: 1 not run (this machine is a process without root)" in plan.log
