"""Provisioning: idempotent, one CA, a certificate and a signed kit for each participant."""

from __future__ import annotations

import datetime as dt
import stat
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from startup_kits import certificates
from startup_kits.errors import KitError
from startup_kits.kit import Kit
from startup_kits.passphrase import PassphraseSource
from startup_kits.provision import ProvisionResult
from startup_kits.torch_source import TorchSource
from startup_kits.workspace import Workspace

Make = Callable[..., ProvisionResult]


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def change_spec(workspace: Workspace, old: str, new: str) -> None:
    text = workspace.spec_path.read_text()
    assert old in text
    workspace.spec_path.write_text(text.replace(old, new, 1))


def test_provisioning_twice_changes_nothing_at_all(workspace: Workspace, make: Make) -> None:
    first = make(zip_kits=True)
    assert first.created == ["server", "site-1", "site-2", "site-3", "ana@hospital-a.example"]
    before = snapshot(workspace.root)
    second = make(zip_kits=True)
    assert second.unchanged == first.created
    assert (second.created, second.updated) == ([], [])
    assert second.ca_fingerprint == first.ca_fingerprint
    assert snapshot(workspace.root) == before


def test_a_site_added_to_the_spec_adds_one_kit_and_touches_no_other(workspace: Workspace, make: Make) -> None:
    make()
    before = snapshot(workspace.kits_dir)
    change_spec(workspace, "admins:", "  site-4:\n    target: kit\nadmins:")
    assert make().created == ["site-4"]
    after = snapshot(workspace.kits_dir)
    assert {path: value for path, value in after.items() if not path.startswith("site-4/")} == before


def test_another_port_signs_all_kits_anew_and_keeps_keys_certificates_and_local_files(
    workspace: Workspace, make: Make
) -> None:
    result = make()
    site = result.kits["site-1"]
    (site / "local" / "policy.yml").write_text("submitters: []  # the site's own\n")
    (site / "transfer" / "notes").write_text("mine")
    kept = ["startup/participant.key", "startup/participant.crt", "local/policy.yml", "transfer/notes"]
    before = [(site / path).read_bytes() for path in kept]
    change_spec(workspace, "port: 8002", "port: 9002")
    assert set(make().updated) == set(result.created)
    assert Kit.verify(site).port == 9002
    assert [(site / path).read_bytes() for path in kept] == before


def test_data_paths_of_the_spec_reach_the_kit_until_the_site_writes_its_own(workspace: Workspace, make: Make) -> None:
    site = make().kits["site-1"]
    change_spec(workspace, "/srv/data/digits}  # where", "/mnt/digits}  # where")
    assert make().updated == ["site-1"]
    assert Kit.open(site).data() == {"digits": "/mnt/digits"}
    (site / "local" / "data.yml").write_text("data: {digits: /own}\n")
    change_spec(workspace, "/mnt/digits", "/other/digits")
    assert "site-1" in make().unchanged
    assert Kit.open(site).data() == {"digits": "/own"}


def test_the_residency_of_the_spec_is_signed_into_the_kits_of_whoever_may_deploy_one(
    workspace: Workspace, make: Make
) -> None:
    kits = make().kits
    residencies = {name: Kit.verify(kit).residency for name, kit in kits.items() if "@" not in name}
    assert residencies == dict.fromkeys(("server", "site-1", "site-2", "site-3"), ("EU",))
    change_spec(workspace, "residency: [EU]", "residency: [EU, UK]")
    assert "site-1" in make().updated
    assert Kit.verify(kits["site-1"]).residency == ("EU", "UK")


def test_certificates_say_who_one_is_and_what_one_may(make: Make) -> None:
    kits = make().kits
    server, site, admin = (Kit.verify(kits[name]) for name in ("server", "site-1", "ana@hospital-a.example"))
    assert server.certificate.subject.rfc4514_string() == "OU=server,O=digits,CN=server"
    assert admin.certificate.subject.rfc4514_string() == "2.5.4.12=lead,OU=admin,O=digits,CN=ana@hospital-a.example"
    usages = server.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    usages = site.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    names = server.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["server.digits.fedspan"]
    backdated = dt.datetime.now(dt.timezone.utc) - site.certificate.not_valid_before_utc
    assert dt.timedelta(hours=23) < backdated < dt.timedelta(hours=25)


def test_openssl_trusts_every_certificate_for_its_purpose(workspace: Workspace, make: Make) -> None:
    for name, kit in make().kits.items():
        purpose = "sslserver" if name == "server" else "sslclient"
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose]
        command += ["-CAfile", str(kit / "startup/ca.crt"), str(kit / "startup/participant.crt")]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("openssl is not installed")
        assert done.returncode == 0, done.stderr


def test_the_hostname_of_the_spec_is_added_to_the_servers_certificate(workspace: Workspace, make: Make) -> None:
    kits = make().kits
    change_spec(workspace, "# hostname: fl.hospital-a.example", "hostname: fl.hospital-a.example")
    assert "server" in make().updated
    server = Kit.verify(kits["server"])
    names = server.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["server.digits.fedspan", "fl.hospital-a.example"]


def test_a_certificate_near_its_end_is_renewed_with_the_key_it_has(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "LIFETIME", dt.timedelta(days=20))
    kit = make().kits["site-1"]
    key, serial = (kit / "startup/participant.key").read_bytes(), Kit.open(kit).certificate.serial_number
    monkeypatch.undo()
    assert "site-1" in make().updated
    assert (kit / "startup/participant.key").read_bytes() == key
    assert Kit.verify(kit).certificate.serial_number != serial


def test_secrets_are_private_to_their_owner_and_the_ca_key_is_encrypted(workspace: Workspace, make: Make) -> None:
    kits = make(environ={}).kits
    private = [workspace.passphrase_path, workspace.ca_dir / "ca.key", kits["site-1"] / "startup/participant.key"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in private] == [0o600] * 3
    assert [stat.S_IMODE(path.stat().st_mode) for path in (workspace.state_dir, workspace.ca_dir)] == [0o700] * 2
    assert b"ENCRYPTED PRIVATE KEY" in (workspace.ca_dir / "ca.key").read_bytes()
    assert (workspace.state_dir / ".gitignore").read_text() == "*\n"


def test_a_lost_or_wrong_passphrase_is_a_clear_error_and_changes_nothing(workspace: Workspace, make: Make) -> None:
    make()
    change_spec(workspace, "admins:", "  site-4: {target: kit}\nadmins:")
    before = snapshot(workspace.root)
    with pytest.raises(KitError, match="the passphrase is wrong"):
        make(environ={"FEDSPAN_PASSPHRASE": "another"})
    with pytest.raises(KitError, match="passphrase is missing"):
        make(environ={})
    assert snapshot(workspace.root) == before


def test_the_passphrase_comes_from_file_environment_or_a_person(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from a file\n")
    stored = workspace.passphrase_path
    assert PassphraseSource(stored, file, {"FEDSPAN_PASSPHRASE": "x"}).existing() == b"from a file"
    assert PassphraseSource(stored, None, {"FEDSPAN_PASSPHRASE_FILE": str(file)}).existing() == b"from a file"
    assert PassphraseSource(stored, None, {"FEDSPAN_PASSPHRASE": "x"}).existing() == b"x"
    assert PassphraseSource(stored, None, {}, ask=lambda prompt: "typed").existing() == b"typed"
    assert not stored.exists()


def test_kits_without_their_ca_are_never_given_a_new_one(workspace: Workspace, make: Make) -> None:
    make()
    (workspace.ca_dir / "ca.crt").unlink()
    with pytest.raises(KitError, match=r"restore \.fedspan/ca from your backup"):
        make()


def test_another_federation_in_the_same_folder_is_refused(workspace: Workspace, make: Make) -> None:
    make()
    change_spec(workspace, "name: digits", "name: lungs")
    with pytest.raises(KitError, match="belongs to the federation digits, not to lungs"):
        make()


def test_a_kit_whose_site_left_the_spec_is_kept_and_told(workspace: Workspace, make: Make) -> None:
    make()
    text = workspace.spec_path.read_text()
    start, end = text.index("  site-3:"), text.index("admins:")
    workspace.spec_path.write_text(text[:start] + text[end:])
    assert make().left_over == ["site-3"]
    assert (workspace.kits_dir / "site-3/startup/participant.yml").exists()


def test_a_tampered_kit_is_refused_when_provisioning_again(workspace: Workspace, make: Make) -> None:
    kit = make().kits["site-2"]
    (kit / "start.sh").write_text("#!/bin/sh\nrm -rf ~\n")
    with pytest.raises(KitError, match=r"start\.sh was changed\n  next: move .*site-2 away"):
        make()


def test_a_provision_that_was_killed_between_its_renames_goes_on(workspace: Workspace, make: Make) -> None:
    kit = make().kits["site-1"]
    key = (kit / "startup/participant.key").read_bytes()
    kit.rename(kit.with_name(".site-1.4711.old"))
    make()
    assert (Kit.verify(kit).path / "startup/participant.key").read_bytes() == key


def test_a_zip_gives_the_same_kit_with_scripts_that_run_and_a_private_key(make: Make, tmp_path: Path) -> None:
    result = make(zip_kits=True)
    subprocess.run(["unzip", "-q", result.zips["site-1"], "-d", tmp_path / "out"], check=True) if _has_unzip() else (
        zipfile.ZipFile(result.zips["site-1"]).extractall(tmp_path / "out")
    )
    if _has_unzip():
        assert Kit.verify(tmp_path / "out/site-1").name == "site-1"
        assert (tmp_path / "out/site-1/start.sh").stat().st_mode & 0o111
    assert (tmp_path / "out/site-1/startup/signature.json").exists()


def _has_unzip() -> bool:
    try:
        return subprocess.run(["unzip", "-v"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_an_admins_kit_has_no_start_script_and_the_servers_no_data(make: Make) -> None:
    kits = make().kits
    admin = kits["ana@hospital-a.example"]
    assert not (admin / "start.sh").exists()
    assert not (admin / "startup/start.sh").exists()
    assert not (kits["server"] / "local/data.yml").exists()
    assert (kits["site-1"] / "local/data.yml").exists()
    assert (kits["site-1"] / "startup/start.sh").exists()


def test_torch_is_carried_signed_in_the_kit_and_absent_where_nothing_was_said(workspace: Workspace, make: Make) -> None:
    kits = make().kits
    assert "torch" not in (kits["site-1"] / "startup/participant.yml").read_text()
    assert Kit.verify(kits["site-1"]).torch is None
    index = 'torch: {index: https://download.pytorch.org/whl/cpu, version: "2.13.0"}'
    change_spec(workspace, "    size: m7i.large", f"    size: m7i.large\n    {index}")
    assert make().updated == ["site-2"]
    assert make().updated == []
    assert Kit.verify(kits["site-2"]).torch == TorchSource("https://download.pytorch.org/whl/cpu", "2.13.0")
    text = (kits["site-2"] / "startup/participant.yml").read_text()
    (kits["site-2"] / "startup/participant.yml").write_text(text.replace("pytorch.org", "example.org"))
    with pytest.raises(KitError, match=r"participant\.yml was changed"):
        Kit.verify(kits["site-2"])
