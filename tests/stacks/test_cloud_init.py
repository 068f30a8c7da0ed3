"""User-data: valid for cloud-init, small, the same each time, and no more in it than a machine needs at birth."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from stack_samples import HOST_KEY, PUBLIC_KEY, sample

from stacks.args import CUSTOM_DATA_LIMIT, Gpu
from stacks.cloud_init import user_data

SITUATIONS: dict[str, dict[str, Any]] = {
    "site": {},
    "server": {"role": "server"},
    "server on another SSH port": {"role": "server", "ssh_port": 2222},
    "site with GPUs": {"size": "g4dn.xlarge", "gpus": Gpu(1, 16)},
    "another login": {"ssh_user": "ubuntu"},
}


def files(text: str) -> dict[str, str]:
    return {entry["path"]: entry["content"] for entry in yaml.safe_load(text)["write_files"]}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_cloud_init_s_own_schema_accepts_it(situation: str, tmp_path: Path) -> None:
    cloud_init = shutil.which("cloud-init")
    if cloud_init is None:
        pytest.skip("cloud-init is not installed: apt-get install cloud-init")
    path = tmp_path / "user-data"
    path.write_text(user_data(sample(**SITUATIONS[situation])))
    done = subprocess.run(
        [cloud_init, "schema", "--config-file", str(path)], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Valid" in done.stdout


def test_it_holds_the_host_key_the_public_key_and_the_login() -> None:
    config = yaml.safe_load(user_data(sample(ssh_user="keeper")))
    assert config["ssh_keys"] == {"ed25519_private": HOST_KEY.private, "ed25519_public": HOST_KEY.public}
    assert config["ssh_deletekeys"] is True
    (user,) = config["users"]
    assert (user["name"], user["ssh_authorized_keys"]) == ("keeper", [PUBLIC_KEY])
    assert user["lock_passwd"] is True
    assert config["ssh_pwauth"] is False
    assert config["disable_root"] is True


def test_it_installs_nothing_and_leaves_security_updates_on() -> None:
    text = user_data(sample())
    config = yaml.safe_load(text)
    assert not {"packages", "package_update", "package_upgrade", "apt"} & set(config)
    assert 'APT::Periodic::Unattended-Upgrade "1"' in files(text)["/etc/apt/apt.conf.d/20auto-upgrades"]


def test_a_machine_with_gpus_holds_nvidia_s_packages_back() -> None:
    path = "/etc/apt/apt.conf.d/52fedspan-hold-nvidia"
    assert path not in files(user_data(sample()))
    assert '"libnvidia-"' in files(user_data(sample(size="g4dn.xlarge", gpus=Gpu(1, 16))))[path]
    assert path in files(user_data(sample("azure", size="Standard_NC4as_T4_v3")))


@given(st.integers(1, 65535))
@settings(deadline=None, max_examples=15)
def test_the_ssh_port_reaches_the_daemon_and_its_socket(port: int) -> None:
    written = files(user_data(sample(ssh_port=port)))
    assert f"Port {port}\n" in written["/etc/ssh/sshd_config.d/10-fedspan.conf"]
    # Ubuntu 24.04 listens by socket activation; the empty line takes its own port 22 away.
    assert written["/etc/systemd/system/ssh.socket.d/10-fedspan.conf"].endswith(
        f"[Socket]\nListenStream=\nListenStream={port}\n"
    )


def test_the_same_arguments_give_the_same_text_whatever_does_not_concern_the_machine() -> None:
    # A text that differs replaces a machine: a rule, a tag, a size or a disk more must not.
    base = user_data(sample())
    assert user_data(sample(ssh_ingress=("10.0.0.0/24", "10.0.1.0/24"))) == base
    assert user_data(sample(tags={"cost": "1"}, owner="someone@else.example")) == base
    assert user_data(sample(size="m7i.xlarge", state_disk_gib=64, spot=True)) == base
    assert user_data(sample(cloud="azure")) == base


def test_it_stays_far_below_what_ec2_takes() -> None:
    longest = sample(size="g4dn.xlarge", gpus=Gpu(1, 16), participant="p" * 32)
    assert len(user_data(longest).encode()) < CUSTOM_DATA_LIMIT / 2
