"""Nothing of the operator's identity enters a sandbox; preflight and engine use the same identity in the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployer import realm
from deployer.credentials import azure_credential, azure_environment, check_account
from deployer.engine_find import find_engine
from deployer.errors import CredentialsError, MissingToolError, SandboxError
from deployer.keys import KeyStore
from deployer.realm_real import RealRealm
from deployer.realm_sandbox import check_attached


def test_no_credential_reaches_an_emulated_engine() -> None:
    environ = {
        "PATH": "/bin",
        "HOME": "/home/ana",
        "AWS_PROFILE": "prod",
        "AWS_SECRET_ACCESS_KEY": "s",
        "ARM_CLIENT_SECRET": "s",
        "AZURE_CLIENT_ID": "c",
        "PULUMI_ACCESS_TOKEN": "t",
        "SSH_AUTH_SOCK": "/x",
        "LANG": "C",
    }
    assert realm.scrubbed(environ) == {"PATH": "/bin", "LANG": "C"}
    assert all(realm.is_cloud_variable(name) for name in ("AWS_PROFILE", "ARM_TENANT_ID", "AZURE_CLIENT_ID"))


def test_an_engine_with_an_unattached_package_does_not_start() -> None:
    assert check_attached("aws:1234,azure-native:1235")
    for value in ("aws:1234", "azure-native:1", "", "aws:,azure-native:1"):
        with pytest.raises(SandboxError, match="is not attached"):
            check_attached(value)


def test_both_families_of_azure_names_say_the_same() -> None:
    found = azure_environment({"ARM_CLIENT_ID": "arm", "AZURE_CLIENT_ID": "azure", "AZURE_TENANT_ID": "t"}, "sub")
    assert found["AZURE_CLIENT_ID"] == found["ARM_CLIENT_ID"] == "arm"
    assert found["ARM_TENANT_ID"] == "t"
    assert found["ARM_SUBSCRIPTION_ID"] == found["AZURE_SUBSCRIPTION_ID"] == "sub"


def test_the_preflights_identity_follows_the_providers_order() -> None:
    full = {"ARM_TENANT_ID": "11111111-1111-1111-1111-111111111111", "ARM_CLIENT_ID": "c", "ARM_CLIENT_SECRET": "s"}
    assert type(azure_credential(full)).__name__ == "ClientSecretCredential"
    assert type(azure_credential({"ARM_USE_MSI": "true"})).__name__ == "ManagedIdentityCredential"
    assert type(azure_credential({})).__name__ == "AzureCliCredential"


def test_credentials_of_another_account_are_refused() -> None:
    check_account("site-2", "account", "222222222222", "222222222222")
    check_account("site-2", "account", None, "333333333333")
    with pytest.raises(CredentialsError, match="profile hospital-b belongs to 333333333333") as caught:
        check_account("site-2", "account", "222222222222", "333333333333", profile="hospital-b")
    assert caught.value.exit_code == 5


def test_the_engines_command_is_looked_for_and_its_absence_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    environ: dict[str, str] = {"PATH": str(tmp_path / "nowhere")}
    assert find_engine(environ) is None
    with pytest.raises(MissingToolError, match="`pulumi` command is not installed") as caught:
        RealRealm(environ).engine_root()
    assert "get.pulumi.com" in str(caught.value)
    command = tmp_path / ".pulumi" / "bin" / "pulumi"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    assert find_engine(environ) == tmp_path / ".pulumi"


def test_a_real_engine_never_gets_an_emulated_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    found = RealRealm({"PULUMI_DEBUG_PROVIDERS": "aws:1", "AWS_PROFILE": "prod"}).engine_environment()
    assert "PULUMI_DEBUG_PROVIDERS" not in found
    assert found["AWS_PROFILE"] == "prod"


class _Sandbox:
    def azure_environment(self, subscription: Any = None) -> dict[str, str]:
        return {}

    ssh_port = 2222


def test_entering_a_sandbox_takes_credentials_out_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from deployer.realm_sandbox import SandboxRealm

    monkeypatch.setenv("ARM_CLIENT_SECRET", "s3cret")
    monkeypatch.setenv("AWS_PROFILE", "prod")
    SandboxRealm(_Sandbox()).enter()  # type: ignore[arg-type]  # only what enter() asks of a sandbox
    import os

    assert "ARM_CLIENT_SECRET" not in os.environ
    assert "AWS_PROFILE" not in os.environ


def test_a_replaced_machine_gets_a_new_host_key_only_when_it_stands(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path)
    first = keys.host("site-1").public
    assert keys.host("site-1").public == first
    renewed = keys.renew_host("site-1").public
    assert renewed != first
    assert keys.host("site-1").public == renewed
    keys.settle_host("site-1")
    assert keys.host("site-1").public == renewed
    assert keys.host_path("site-1").stat().st_mode & 0o777 == 0o600
    keys.pin("52.1.2.3", 22, first)
    keys.pin("52.1.2.3", 22, renewed)
    keys.pin("52.1.2.4", 2222, first)
    lines = keys.known_hosts.read_text().splitlines()
    assert lines == [f"52.1.2.3 {' '.join(renewed.split()[:2])}", f"[52.1.2.4]:2222 {' '.join(first.split()[:2])}"]
    keys.unpin("52.1.2.3", 22)
    assert len(keys.known_hosts.read_text().splitlines()) == 1
    keys.destroy()
    assert list(tmp_path.iterdir()) == []


def test_a_real_deployment_installs_each_provider_plugin_once_before_any_stack(tmp_path: Path) -> None:
    """Held against a command that writes down what it was asked: no real engine is needed for the order."""
    import sys
    from types import SimpleNamespace

    from deployer.interrupts import Interrupts
    from deployer.live import Silent
    from deployer.member import Member
    from deployer.prepare import install_plugins
    from deployer.runlog import RunLog

    command = tmp_path / "bin" / "pulumi"
    command.parent.mkdir()
    asked = tmp_path / "asked"
    command.write_text(
        f"#!{sys.executable}\nimport sys\nprint('v3.260.0')\n"
        f"open({str(asked)!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10))\n"
    )
    command.chmod(0o755)
    deployment: Any = SimpleNamespace(
        realm=RealRealm({"FEDSPAN_PULUMI_ROOT": str(tmp_path), "PATH": "/bin"}), home=SimpleNamespace(folder=tmp_path)
    )
    crew: Any = SimpleNamespace(
        deployment=deployment, screen=Silent(), interrupts=Interrupts(), log=RunLog(tmp_path, "up")
    )
    members = [Member(name, "site", cloud, tmp_path) for name, cloud in (("a", "aws"), ("b", "azure"), ("c", "aws"))]
    install_plugins(crew, members)
    lines = [line for line in asked.read_text().splitlines() if "plugin" in line]
    assert [line.split()[:5] for line in lines] == [
        ["--non-interactive", "plugin", "install", "resource", "aws"],
        ["--non-interactive", "plugin", "install", "resource", "azure-native"],
    ]
