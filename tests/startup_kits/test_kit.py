"""Kits: whatever was changed, added or taken away is refused by its name; what belongs to the site is free."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from startup_kits.errors import KitError
from startup_kits.kit import Endpoint, Kit
from startup_kits.provision import ProvisionResult
from startup_kits.workspace import Workspace

Make = Callable[..., ProvisionResult]


@pytest.fixture
def kit(make: Make) -> Path:
    return make().kits["site-1"]


def refused(kit: Path, fingerprint: str | None = None) -> str:
    with pytest.raises(KitError) as caught:
        Kit.verify(kit, fingerprint)
    return str(caught.value)


SIGNED = ["start.sh", "stop.sh", "README.txt", "startup/participant.yml", "startup/start.sh"]


@pytest.mark.parametrize("path", SIGNED)
def test_a_changed_file_is_refused_by_name(kit: Path, path: str) -> None:
    with (kit / path).open("a") as file:
        file.write("\n")
    assert f"{path} was changed" in refused(kit)


@pytest.mark.parametrize("path", ["start.sh", "README.txt", "startup/start.sh"])
def test_a_missing_file_is_refused_by_name(kit: Path, path: str) -> None:
    (kit / path).unlink()
    assert f"{path} is missing" in refused(kit)


@pytest.mark.parametrize("path", ["evil.sh", "startup/evil.py", "startup/deep/evil", "locals"])
def test_an_added_file_is_refused_by_name(kit: Path, path: str) -> None:
    (kit / path).parent.mkdir(exist_ok=True)
    (kit / path).write_text("evil")
    assert f"{path} was added" in refused(kit)


def test_a_link_in_place_of_a_file_is_refused(kit: Path, tmp_path: Path) -> None:
    content = (kit / "start.sh").read_text()
    (tmp_path / "elsewhere.sh").write_text(content)
    (kit / "start.sh").unlink()
    (kit / "start.sh").symlink_to(tmp_path / "elsewhere.sh")
    assert "start.sh in the kit is not a plain file" in refused(kit)


def test_what_belongs_to_the_site_is_free(kit: Path) -> None:
    (kit / "local/policy.yml").write_text("submitters: []\n")
    (kit / "local/own.txt").write_text("x")
    (kit / "transfer/model.bin").write_bytes(b"\0" * 1000)
    assert Kit.verify(kit).name == "site-1"


def test_a_signature_of_another_kit_of_the_same_ca_does_not_fit(kit: Path) -> None:
    other = kit.with_name("site-2")
    shutil.copy(other / "startup/signature.json", kit / "startup/signature.json")
    assert "signature is for something else" in refused(kit)


def test_a_kit_signed_by_another_ca_is_refused_in_every_mixture(make: Make, kit: Path, tmp_path: Path) -> None:
    from startup_kits.example import example
    from startup_kits.passphrase import PassphraseSource
    from startup_kits.provision import provision
    from startup_kits.spec import load_spec

    (tmp_path / "other").mkdir()
    (tmp_path / "other/federation.yml").write_text(example())
    workspace = Workspace.find(tmp_path / "other")
    source = PassphraseSource(workspace.passphrase_path, environ={"FEDSPAN_PASSPHRASE": "x"})
    other = provision(workspace, load_spec(workspace.spec_path), source).kits["site-1"]
    ours = Kit.open(kit).ca_fingerprint
    assert "the kit is of another CA" in refused(other, ours)
    shutil.copy(other / "startup/ca.crt", kit / "startup/ca.crt")
    assert "another CA" in refused(kit, ours)
    assert "signature is not the CA's" in refused(kit)
    shutil.copy(other / "startup/signature.json", kit / "startup/signature.json")
    assert "was not issued by" in refused(kit) or "was changed" in refused(kit)


def test_the_fingerprint_may_be_typed_in_any_common_form(kit: Path) -> None:
    fingerprint = Kit.open(kit).ca_fingerprint
    for typed in (fingerprint, fingerprint.lower(), fingerprint.replace(":", ""), f"SHA256:{fingerprint}"):
        Kit.verify(kit, typed)
    assert "is no SHA-256 fingerprint" in refused(kit, "AB:CD")


def test_the_private_key_must_be_private_present_and_the_right_one(kit: Path) -> None:
    key = kit / "startup/participant.key"
    key.chmod(0o644)
    assert f"chmod 600 {key}" in refused(kit)
    key.chmod(0o600)
    other = kit.with_name("site-2") / "startup/participant.key"
    shutil.copy(other, key)
    assert "does not belong to the certificate" in refused(kit)
    key.unlink()
    assert "startup/participant.key is missing" in refused(kit)


def test_the_servers_address_is_unsigned_and_moves_without_a_new_kit(kit: Path) -> None:
    assert Kit.open(kit).endpoint() == Endpoint(None)
    before = (kit / "startup/signature.json").read_bytes()
    assert Kit.open(kit).set_endpoint("198.51.100.9:8002", proxy="http://proxy:3128")
    assert not Kit.open(kit).set_endpoint("198.51.100.9:8002")
    assert Kit.open(kit).set_endpoint("198.51.100.10:8002")
    assert Kit.verify(kit).endpoint() == Endpoint("198.51.100.10:8002", "http://proxy:3128")
    assert (kit / "startup/signature.json").read_bytes() == before


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("startup/participant.yml", "[1, 2"),
        ("startup/participant.yml", "version: 1\n"),
        ("startup/participant.yml", "- a\n"),
        ("startup/ca.crt", "no certificate"),
        ("startup/participant.crt", ""),
        ("startup/signature.json", "{}"),
        ("startup/signature.json", '{"version": 1, "files": [], "signature": "!!"}'),
        ("startup/signature.json", "[" * 100000),
    ],
)
def test_a_damaged_file_is_a_clear_error(kit: Path, path: str, content: str) -> None:
    (kit / path).write_text(content)
    assert "Traceback" not in refused(kit)


def test_a_kit_of_a_newer_version_says_what_to_install(kit: Path) -> None:
    file = kit / "startup/participant.yml"
    file.write_text(file.read_text().replace("version: 1", "version: 2").replace("runtime: 0", "runtime: 9"))
    assert "pip install --upgrade 'fedspan>=9" in refused(kit)


@pytest.mark.parametrize("line", ["federation: digits", "name: site-1"])
def test_a_name_that_would_lead_elsewhere_as_a_path_is_refused(kit: Path, line: str) -> None:
    path = kit / "startup/participant.yml"
    key = line.split(":")[0]
    path.write_text(path.read_text().replace(f"{line}\n", f"{key}: ../../elsewhere\n"))
    with pytest.raises(KitError, match="is no name"):
        Kit.open(kit)


def test_verify_as_a_command_answers_by_exit_code_and_one_message(kit: Path) -> None:
    command = [sys.executable, "-m", "startup_kits.verify", str(kit)]
    fine = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (fine.returncode, fine.stderr) == (0, "")
    assert "site-1 (site of digits): verified" in fine.stdout
    (kit / "README.txt").write_text("no")
    bad = subprocess.run(command, capture_output=True, text=True, check=False)
    assert bad.returncode == 4
    assert "README.txt was changed" in bad.stderr


def test_start_without_fedspan_gives_the_command_that_installs_it(kit: Path, tmp_path: Path) -> None:
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run([kit / "startup/start.sh"], capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 16
    assert "python3 -m pip install --user 'fedspan>=" in done.stderr


def test_scripts_hand_kit_and_arguments_to_fedspan_whatever_the_folder_is_called(kit: Path, tmp_path: Path) -> None:
    moved = tmp_path / "a folder; with $(odd) 'name'"
    kit.rename(moved)
    recorder = tmp_path / "fedspan"
    recorder.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    recorder.chmod(0o755)
    environ = {**os.environ, "FEDSPAN": str(recorder)}
    for script, verb in (("start.sh", "start"), ("stop.sh", "stop"), ("startup/start.sh", "start")):
        command = [moved / script, "--server", "a b:1"]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, check=True)
        assert done.stdout.splitlines() == ["kit", verb, str(moved), "--server", "a b:1"]
