"""Revocation end to end: from `fedspan revoke` to cancelled streams, refused calls, and sites that know it too."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import yaml
from federation import PATIENCE_S, Federation, Process, TestCA, free_port, serial, signed, until

from fl_runtime.admin import Session
from fl_runtime.errors import FlError, RefusedError
from fl_runtime.kit import read_kit
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire import rpc, tls
from fl_runtime.wire.revocations import RevocationBook, RevocationList, write_file

SPEC = """
version: 1
name: digits
server: {{target: kit, port: {port}, hostname: localhost}}
sites:
  site-1: {{target: kit}}
  site-2: {{target: kit}}
admins:
  ana@example.org: {{role: lead}}
  bob@example.org: {{role: member}}
"""


# --- the list itself


@pytest.fixture
def ca() -> TestCA:
    return TestCA()


def pem(ca: TestCA) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return ca.certificate.public_bytes(Encoding.PEM)


def test_a_list_of_another_ca_or_a_changed_one_is_refused(ca: TestCA) -> None:
    document, signature = signed(ca, 1, "abc")
    assert RevocationList.parse(document, signature, pem(ca)).is_revoked("abc")
    for bad in ((document, signed(TestCA(), 1, "abc")[1]), (document.replace(b"abc", b"abd"), signature), (b"", b"")):
        with pytest.raises(RefusedError, match="not signed by this federation's CA"):
            RevocationList.parse(*bad, pem(ca))


def test_a_list_is_fresh_until_its_end_and_revokes_beyond_it(ca: TestCA) -> None:
    listed = RevocationList.parse(*signed(ca, 1, "abc", days=1), pem(ca))
    assert listed.fresh()
    assert not listed.fresh(time.time() + 2 * 86400)
    assert not listed.fresh(time.time() - 2 * 86400)
    assert RevocationList.parse(*signed(ca, 1, "abc", days=-1), pem(ca)).is_revoked("abc")


def test_only_a_higher_number_replaces_a_list_also_after_a_restart(ca: TestCA, tmp_path: Path) -> None:
    kit = ca.kit(tmp_path / "kit", "site-1", "site", port=1)
    seen: list[int] = []
    book = RevocationBook(tmp_path, kit, pem(ca), "digits", lambda found: seen.append(found.number))
    assert not book.is_revoked("abc")
    assert book.offer(*signed(ca, 5, "abc"))
    for old in (4, 5):
        assert not book.offer(*signed(ca, old))
    again = RevocationBook(tmp_path, kit, pem(ca), "digits")
    assert again.current is not None
    assert (again.current.number, again.is_revoked("abc"), seen) == (5, True, [5])
    with pytest.raises(RefusedError, match="of the federation other"):
        again.offer(*signed(ca, 9, federation="other"))


def test_a_damaged_list_lets_nobody_in_until_the_kit_has_one(ca: TestCA, tmp_path: Path) -> None:
    kit = ca.kit(tmp_path / "kit", "site-1", "site", port=1)
    RevocationBook(tmp_path, kit, pem(ca), "digits").offer(*signed(ca, 5, "abc"))
    kept = tmp_path / "revoked.json"
    kept.write_bytes(kept.read_bytes()[:20])
    with pytest.raises(FlError, match=r"(?s)can't be read.*revoke --renew") as told:
        RevocationBook(tmp_path, kit, pem(ca), "digits")
    assert str(kit / "local/revoked.json") in str(told.value)
    write_file(kit / "local/revoked.json", *signed(ca, 6, "abc"))
    assert RevocationBook(tmp_path, kit, pem(ca), "digits").is_revoked("abc")
    assert RevocationBook(tmp_path, tmp_path, pem(ca), "digits").is_revoked("abc")  # and it is kept anew


def test_a_list_in_the_kit_is_seen_when_it_changes_and_nonsense_there_does_no_harm(ca: TestCA, tmp_path: Path) -> None:
    kit = ca.kit(tmp_path / "kit", "site-1", "site", port=1)
    book = RevocationBook(tmp_path, kit, pem(ca), "digits")
    file = kit / "local/revoked.json"
    for text in ("", "[]", "{}", '{"document": "x", "signature": "eA=="}', "\0" * 50):
        file.write_text(text)
        book.look()
        assert book.current is None
    write_file(file, *signed(ca, 1, "abc"))
    book.look()
    assert book.is_revoked("abc")
    write_file(file, *signed(TestCA(), 2))
    book.look()
    assert book.is_revoked("abc")


def test_a_list_that_a_full_disk_does_not_take_is_taken_when_there_is_room_and_said_once(
    ca: TestCA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kit = ca.kit(tmp_path / "kit", "site-1", "site", port=1)
    book = RevocationBook(tmp_path, kit, pem(ca), "digits")
    write_file(kit / "local/revoked.json", *signed(ca, 1, "abc"))

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as now:
        now.setattr(os, "fsync", full)
        for _ in range(3):
            book.look()
        assert book.current is None
    book.look()
    assert book.is_revoked("abc")
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == 1
    assert "No space left" in said[0]


def test_a_list_of_which_a_bit_was_changed_lets_nobody_in(ca: TestCA, tmp_path: Path) -> None:
    """In what was signed, in the signature, or around them; where only the note is hit whose list it is, it holds."""
    kit = ca.kit(tmp_path / "kit", "site-1", "site", port=1)
    RevocationBook(tmp_path, kit, pem(ca), "digits").offer(*signed(ca, 5, "abc"))
    kept = tmp_path / "revoked.json"
    whole = kept.read_bytes()
    signature = whole.index(json.loads(whole)["signature"].encode())

    def flipped(*places: int) -> bytes:
        return bytes(byte ^ (at in places) for at, byte in enumerate(whole))

    note = whole.index(b"BEGIN CERTIFICATE") + 60
    for places in ([whole.index(b"abc")], [signature + 20], [whole.index(b'"signature"') + 2], [signature + 20, note]):
        kept.write_bytes(flipped(*places))
        with pytest.raises(FlError, match=r"(?s)can't be read.*is damaged.*revoke --renew"):
            RevocationBook(tmp_path, kit, pem(ca), "digits")
    kept.write_bytes(flipped(signature + 20, whole.index(b'"ca"') + 1))
    with pytest.raises(FlError, match="is damaged"):
        RevocationBook(tmp_path, kit, pem(ca), "digits")
    kept.write_bytes(flipped(note))
    assert RevocationBook(tmp_path, kit, pem(ca), "digits").is_revoked("abc")
    assert kept.read_bytes() == whole


def test_a_federation_that_was_provisioned_anew_begins_without_a_list(ca: TestCA, tmp_path: Path) -> None:
    kit = ca.kit(tmp_path / "kit", "site-1", "site", port=1)
    RevocationBook(tmp_path, kit, pem(ca), "digits").offer(*signed(ca, 5, "abc"))
    anew = TestCA()
    book = RevocationBook(tmp_path, kit, pem(anew), "digits")
    assert book.current is None
    assert book.offer(*signed(anew, 1, "abd"))
    assert RevocationBook(tmp_path, kit, pem(anew), "digits").is_revoked("abd")


def test_a_list_that_an_older_version_kept_counts_and_is_guarded_from_then_on(
    ca: TestCA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not say whose it is: one that does not hold may be damaged, or of a CA that is no more."""
    kit, kept = ca.kit(tmp_path / "kit", "site-1", "site", port=1), tmp_path / "revoked.json"
    write_file(kept, *signed(TestCA(), 5, "abc"))
    assert RevocationBook(tmp_path, kit, pem(ca), "digits").current is None
    assert "not signed by this federation's CA" in caplog.text
    write_file(kept, *signed(ca, 5, "abc"))
    assert RevocationBook(tmp_path, kit, pem(ca), "digits").is_revoked("abc")
    kept.write_text(kept.read_text().replace("abc", "abd"))
    with pytest.raises(FlError, match="is damaged"):
        RevocationBook(tmp_path, kit, pem(ca), "digits")


# --- a federation that its lead provisioned


class Provisioned:
    """Kits of `fedspan provision`, a server and two sites that run, and the lead's command line."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        self.spec = root / "federation.yml"
        self.spec.write_text(SPEC.format(port=self.port))
        (root / "state").mkdir()
        self.env = {"FEDSPAN_BIND": "127.0.0.1", "no_proxy": "127.0.0.1,localhost", "OMP_NUM_THREADS": "1"}
        self.command("provision")
        self.server = self.process("server")
        self.sites = {name: self.process(name) for name in ("site-1", "site-2")}

    def process(self, name: str) -> Process:
        return Process(self.kit(name), self.root / "state" / name, self.env)

    def kit(self, name: str) -> Path:
        return self.root / "kits" / name

    def command(self, *argv: str) -> int:
        from deployer.cli.app import run

        return run(["-f", str(self.spec), "--yes", *argv])

    def registered(self, *names: str) -> None:
        until(
            lambda: {n for n, row in self.server.status().get("sites", {}).items() if row["registered"]} >= set(names),
            what=f"{names} registered",
        )


@pytest.fixture
def provisioned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provisioned]:
    monkeypatch.setenv("FEDSPAN_PASSPHRASE", "a long passphrase")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    made = Provisioned(tmp_path)
    try:
        for process in (made.server, *made.sites.values()):
            process.start()
        made.registered(*made.sites)
        yield made
    finally:
        for process in (*made.sites.values(), made.server):
            process.stop()


def test_fedspan_revoke_ends_a_sites_stream_at_once_and_provision_gives_it_a_new_identity(
    provisioned: Provisioned, capsys: pytest.CaptureFixture[str]
) -> None:
    fed, site = provisioned, provisioned.sites["site-2"]
    old = serial(fed.kit("site-2"))
    assert fed.command("revoke", "site-2", "--reason", "its laptop was stolen") == 0
    said = capsys.readouterr().out
    assert "in force at the server and at every connected site" in said
    assert "site-2: still in federation.yml. fedspan provision makes a new certificate" in said
    until(lambda: not fed.server.status()["sites"]["site-2"]["registered"])
    error = until(lambda: site.status().get("error"))
    assert error["why"] == "the certificate of site-2 is revoked"
    assert "fedspan provision" in error["next"]
    assert old in (fed.root / "state/site-1/revoked.json").read_text()  # the other site knows it too
    assert fed.server.status()["sites"]["site-1"]["registered"]

    fed.server.stop()  # and the server does not forget
    fed.server.start()
    fed.registered("site-1")
    time.sleep(1.0)
    assert not fed.server.status()["sites"]["site-2"]["registered"]

    site.stop()
    assert fed.command("provision") == 0
    assert serial(fed.kit("site-2")) != old
    site.start()
    fed.registered("site-1", "site-2")


def test_a_revoked_admin_can_neither_ask_nor_submit_and_what_it_watches_ends(
    provisioned: Provisioned, tmp_path: Path
) -> None:
    fed = provisioned
    bob = read_kit(fed.kit("bob@example.org"))
    job = tmp_path / "job"
    job.mkdir()
    (job / "train.py").write_text("import fl_runtime.client as flare\nflare.init()\nwhile flare.is_running(): pass\n")
    (job / "job.yml").write_text(
        yaml.safe_dump({"name": "wait", "script": "train.py", "sites": ["site-1", "site-9"], "workflow": {}})
    )
    with Session(fed.kit("ana@example.org")) as ana, Session(bob.path) as session:
        waiting = ana.submit(job)
        told: list[object] = []
        ended: list[grpc.StatusCode] = []
        with tls.channel(bob, bob.endpoint()) as channel:

            def watch() -> None:
                try:
                    for event in rpc.HubStub(channel).watch(pb.WatchRequest(job=waiting)):
                        told.append(event)
                except grpc.RpcError as error:
                    ended.append(error.code())

            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            until(lambda: told, what="it is let in and told how the job stands")
            assert fed.command("revoke", serial(bob.path), "--json") == 0
            watcher.join(PATIENCE_S)
            assert ended == [grpc.StatusCode.CANCELLED]
        for ask in (session.jobs, session.sites, lambda: session.submit(job)):
            with pytest.raises(RefusedError, match="is revoked"):
                ask()
        ana.abort(waiting)


def test_a_list_that_lands_in_the_servers_kit_is_applied_without_a_restart(provisioned: Provisioned) -> None:
    """What `fedspan up` does where the server can't be reached by an admin: the file is pushed."""
    from startup_kits import revocation
    from startup_kits.certificates import Authority
    from startup_kits.workspace import Workspace

    fed, workspace = provisioned, Workspace(provisioned.spec)
    ca = [(workspace.ca_dir / name).read_bytes() for name in ("ca.crt", "ca.key")]
    found = revocation.find(workspace, "site-2")
    revocation.revoke(workspace, "digits", found, "", lambda: Authority.load(*ca, b"a long passphrase"))
    until(lambda: not fed.server.status()["sites"]["site-2"]["registered"])
    assert (fed.root / "state/server/revoked.json").exists()
    until(lambda: (fed.root / "state/site-1/revoked.json").exists())


def test_a_list_that_nobody_signed_is_refused_by_the_server(running: Federation) -> None:
    with running.session() as session:
        for bad in (signed(TestCA(), 1, "abc"), signed(running.ca, 1, "abc", federation="other"), (b"{}", b"")):
            with pytest.raises(RefusedError):
                session.revoke(*bad)
        assert session.revoke(*signed(running.ca, 3, "abc")) == 3
        assert session.revoke(*signed(running.ca, 2)) == 3  # an old one changes nothing
    until((running.sites["site-1"].state / "revoked.json").exists)
