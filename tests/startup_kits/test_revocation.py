"""Revocation in the workspace: the signed list, whom it names, and what provisioning makes of it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fl_runtime.wire.revocations import RevocationList, read_file
from startup_kits import revocation
from startup_kits.certificates import Authority
from startup_kits.errors import KitError
from startup_kits.kit import Kit
from startup_kits.provision import ProvisionResult
from startup_kits.spec import load_spec
from startup_kits.workspace import Workspace

Make = Callable[..., ProvisionResult]


@pytest.fixture
def authority(workspace: Workspace, make: Make) -> Callable[[], Authority]:
    make()
    paths = [workspace.ca_dir / name for name in ("ca.crt", "ca.key")]
    return lambda: Authority.load(paths[0].read_bytes(), paths[1].read_bytes(), b"a long passphrase")


def site(workspace: Workspace) -> str:
    return next(iter(load_spec(workspace.spec_path).sites))


def revoke(workspace: Workspace, authority: Callable[[], Authority], *who: str) -> revocation.Revocations:
    found = [one for name in who for one in revocation.find(workspace, name)]
    return revocation.revoke(workspace, load_spec(workspace.spec_path).name, found, "a test", authority)


def serial(kit: Path) -> str:
    return revocation.serial_of(Kit.open(kit).certificate)


def contents(kit: Path) -> dict[str, bytes]:
    return {str(path.relative_to(kit)): path.read_bytes() for path in sorted(kit.rglob("*")) if path.is_file()}


def test_a_revoked_name_is_on_a_signed_list_that_the_runtime_believes_in_every_kit(
    workspace: Workspace, authority: Callable[[], Authority]
) -> None:
    name = site(workspace)
    current = revoke(workspace, authority, name)
    assert (current.number, current.serials) == (1, {serial(workspace.kits_dir / name)})
    spec = load_spec(workspace.spec_path)
    kits = [workspace.kits_dir / one for one in ("server", *spec.sites, *spec.admins)]
    for kit in kits:
        Kit.verify(kit)
        found = read_file(kit / "local/revoked.json")
        assert found is not None
        listed = RevocationList.parse(*found, (kit / "startup/ca.crt").read_bytes())
        assert (listed.number, listed.federation, listed.serials) == (1, spec.name, current.serials)
        assert listed.fresh()
    entry = json.loads((workspace.state_dir / "revocations.json").read_text())["entries"][0]
    assert (entry["name"], entry["reason"]) == (name, "a test")


def test_provisioning_gives_a_revoked_participant_a_new_key_and_leaves_the_others_alone(
    workspace: Workspace, authority: Callable[[], Authority], make: Make
) -> None:
    name = site(workspace)
    revoke(workspace, authority, name)
    kits = {path.parent.parent for path in workspace.kits_dir.glob("*/startup/participant.yml")}
    before = {kit.name: contents(kit) for kit in kits}
    local = (workspace.kits_dir / name / "local/policy.yml").read_bytes()
    (workspace.kits_dir / name / "local/policy.yml").write_bytes(local + b"# mine\n")
    result = make()
    assert (result.created, result.updated) == ([], [name])
    after = {kit.name: contents(kit) for kit in kits}
    assert {kit for kit in before if before[kit] != after[kit]} == {name}
    for path in ("startup/participant.key", "startup/participant.crt"):
        assert before[name][path] != after[name][path]
    assert after[name]["local/policy.yml"].endswith(b"# mine\n")
    assert serial(workspace.kits_dir / name) not in revocation.load(workspace).serials
    Kit.verify(workspace.kits_dir / name)
    assert make().updated == []


def test_a_name_stands_for_every_certificate_that_it_ever_got(
    workspace: Workspace, authority: Callable[[], Authority], make: Make
) -> None:
    name = site(workspace)
    first = serial(workspace.kits_dir / name)
    (workspace.kits_dir / name).rename(workspace.root / "lost")  # a kit that was lost, and made anew
    make()
    second = serial(workspace.kits_dir / name)
    assert first != second
    assert revoke(workspace, authority, name).serials == {first, second}


def test_revoking_again_signs_nothing_and_renewing_gives_a_new_number(
    workspace: Workspace, authority: Callable[[], Authority]
) -> None:
    name = site(workspace)

    def never() -> Authority:
        raise AssertionError("the CA was asked")

    first = revoke(workspace, authority, name)
    assert revoke(workspace, never, name) == first
    assert revoke(workspace, never, f"0x{serial(workspace.kits_dir / name).upper()}") == first
    renewed = revocation.revoke(workspace, "digits", [], "", authority)
    assert (renewed.number, renewed.serials) == (2, first.serials)
    other = revoke(workspace, authority, "server")
    assert (other.number, len(other.serials)) == (3, 2)


def test_a_list_near_its_end_is_renewed_by_provisioning_and_forgets_what_has_expired(
    workspace: Workspace, authority: Callable[[], Authority], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation, "LIST_LIFETIME", dt.timedelta(days=3))
    stale = revocation.Issued("ab" * 10, "gone", "site", dt.datetime.now(dt.timezone.utc).timestamp() - 9 * 86400)
    first = revocation.revoke(workspace, "digits", [*revocation.find(workspace, site(workspace)), stale], "", authority)
    assert first.number == 1
    assert stale.serial not in first.serials
    monkeypatch.undo()
    make()
    renewed = revocation.load(workspace)
    assert renewed.number == 2
    assert make().updated == []
    assert revocation.load(workspace).number == 2


def test_a_federation_that_never_revoked_anything_carries_no_list(workspace: Workspace, make: Make) -> None:
    make()
    assert not list(workspace.kits_dir.glob("*/local/revoked.json"))
    assert revocation.load(workspace).number == 0


def test_a_new_site_gets_the_list_with_its_kit(
    workspace: Workspace, authority: Callable[[], Authority], make: Make
) -> None:
    revoke(workspace, authority, "server")
    text = workspace.spec_path.read_text().replace("\nsites:\n", "\nsites:\n  added:\n    target: kit\n", 1)
    workspace.spec_path.write_text(text)
    assert make().created == ["added"]
    assert (workspace.kits_dir / "added/local/revoked.json").exists()


@pytest.mark.parametrize("who", ["nobody-here", "ab", "zz" * 20, ""])
def test_what_is_neither_a_name_nor_a_serial_is_refused(
    workspace: Workspace, authority: Callable[[], Authority], who: str
) -> None:
    with pytest.raises(KitError, match="has no certificate here"):
        revocation.find(workspace, who)


def test_a_serial_that_is_not_known_here_can_be_revoked_too(
    workspace: Workspace, authority: Callable[[], Authority]
) -> None:
    number = x509.random_serial_number()
    assert f"{number:x}" in revoke(workspace, authority, f"{number:x}").serials


def test_the_keys_of_renewed_kits_stay_private(
    workspace: Workspace, authority: Callable[[], Authority], make: Make
) -> None:
    name = site(workspace)
    revoke(workspace, authority, name)
    make()
    key = workspace.kits_dir / name / "startup/participant.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert serialization.load_pem_private_key(key.read_bytes(), None)
