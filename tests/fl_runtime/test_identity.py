"""Who may do what: read from the certificate on every call."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
import pytest
import yaml
from federation import PATIENCE_S, Federation, Process, TestCA, until
from scripts import ADD

from fl_runtime.admin import Session
from fl_runtime.blobs import of_bytes
from fl_runtime.errors import FlError, JobError, KitError, RefusedError, UnreachableError
from fl_runtime.job import envelope
from fl_runtime.job.bundle import pack
from fl_runtime.kit import read_kit
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire import rpc, tls

W = {"tensors": {"w": [5]}}


def stranger(fed: Federation, name: str, ca: TestCA) -> Process:
    kit = ca.kit(fed.root / "strangers" / ca.federation / name, name, "site", port=fed.port)
    document = yaml.safe_load((kit / "startup/participant.yml").read_text())
    document["server"]["name"] = f"server.{fed.ca.federation}.fedspan"
    (kit / "startup/participant.yml").write_text(yaml.safe_dump(document))
    return Process(kit, fed.root / "state" / f"{ca.federation}-{name}", fed.env)


def code_of(call) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


def test_a_site_of_another_ca_does_not_get_in_and_says_why_once(running: Federation) -> None:
    other = stranger(running, "site-8", TestCA("digits"))
    other.start()
    try:
        error = until(lambda: other.status().get("error"))
        assert error["kind"] == "ca"
        assert "its certificate is from another CA" in error["why"]
        until(lambda: other.text().count("next:") >= 1)
        time.sleep(1.5)
        assert other.text().count("next:") == 1
        assert "site-8" not in running.server.status()["sites"]
    finally:
        other.stop()


def test_a_server_that_does_not_know_our_ca_is_diagnosed_too(running: Federation) -> None:
    """The site trusts the server's CA, but its own certificate is from another."""
    other = stranger(running, "site-7", TestCA("digits"))
    (other.kit / "startup/ca.crt").write_bytes((running.server.kit / "startup/ca.crt").read_bytes())
    other.start()
    try:
        error = until(lambda: other.status().get("error"))
        assert "does not accept this kit's certificate" in error["what"]
    finally:
        other.stop()


def test_a_certificate_of_another_federation_by_the_same_ca_is_refused(running: Federation) -> None:
    ca = TestCA("other")
    ca.key, ca.certificate = running.ca.key, running.ca.certificate
    other = stranger(running, "site-1", ca)
    other.start()
    try:
        error = until(lambda: other.status().get("error"))
        assert "belongs to the federation 'other'" in error["why"]
    finally:
        other.stop()


def test_each_call_is_for_its_role(running: Federation) -> None:
    site, admin = read_kit(running.sites["site-1"].kit), read_kit(running.admin_kit)
    with tls.channel(site, site.endpoint()) as channel:
        stub = rpc.HubStub(channel)
        assert code_of(lambda: stub.ask(pb.Question(verb="jobs"))) is grpc.StatusCode.PERMISSION_DENIED
        assert code_of(lambda: stub.submit(pb.SubmitRequest())) is grpc.StatusCode.PERMISSION_DENIED
        assert code_of(lambda: list(stub.watch(pb.WatchRequest()))) is grpc.StatusCode.PERMISSION_DENIED
    with tls.channel(admin, admin.endpoint()) as channel:
        stub = rpc.HubStub(channel)
        hello = pb.ToHub(hello=pb.Hello(major=1))
        assert code_of(lambda: list(stub.connect(iter([hello])))) is grpc.StatusCode.PERMISSION_DENIED


def test_a_site_kit_submits_nothing(running: Federation) -> None:
    with pytest.raises(KitError, match="admin's kit"):
        Session(running.sites["site-1"].kit)


def test_knowing_a_blobs_id_grants_nothing(running: Federation) -> None:
    folder = running.job("granted", ADD, sites=["site-1"], workflow={"type": "fedavg", "rounds": 1, "model": W})
    with running.session() as session:
        job = session.submit(folder)
        session.wait(job, 120)
    bundle = of_bytes(pack(folder)).id
    other = read_kit(running.sites["site-2"].kit)
    with tls.channel(other, other.endpoint(), bulk=True) as channel:
        stub = rpc.BlobsStub(channel)
        query = pb.BlobQuery(blob=bundle, job=job)
        assert code_of(lambda: stub.describe(query)) is grpc.StatusCode.PERMISSION_DENIED
        pull = pb.PullRequest(query=query, range=pb.LeafRange(first=0, count=1))
        assert code_of(lambda: list(stub.pull(pull))) is grpc.StatusCode.PERMISSION_DENIED
        data = of_bytes(b"x" * 100_000)
        offer = pb.OfferRequest(
            job=job, task=f"{job}/0.0/site-1", manifest=pb.Manifest(length=100_000, leaves=data.leaves)
        )
        assert code_of(lambda: stub.offer(offer)) is grpc.StatusCode.PERMISSION_DENIED
        push = pb.PushHeader(query=pb.BlobQuery(blob=data.id, job=job), range=pb.LeafRange(first=0, count=1))
        frames = [push.SerializeToString(), b"x" * 100_000]
        assert code_of(lambda: stub.push(iter(frames))) is grpc.StatusCode.PERMISSION_DENIED


def test_a_client_without_a_certificate_does_not_get_in(running: Federation) -> None:
    ca = (running.admin_kit / "startup/ca.crt").read_bytes()
    options = [("grpc.ssl_target_name_override", "server.digits.fedspan")]
    with grpc.secure_channel(f"127.0.0.1:{running.port}", grpc.ssl_channel_credentials(ca), options) as channel:
        stub = rpc.HubStub(channel)
        assert code_of(lambda: stub.ask(pb.Question(verb="sites"), timeout=PATIENCE_S)) is grpc.StatusCode.UNAVAILABLE


# --- envelopes: what a site checks for itself


@pytest.fixture
def sealed(running: Federation) -> tuple[bytes, bytes, bytes]:
    return envelope.seal(read_kit(running.admin_kit), "job-1", b"d" * 32, 10, None)


def test_a_good_envelope_opens_at_a_site(running: Federation, sealed: tuple[bytes, bytes, bytes]) -> None:
    opened = envelope.open_envelope(read_kit(running.sites["site-1"].kit), *sealed)
    assert (opened.job, opened.bundle, opened.signer.name) == ("job-1", b"d" * 32, "ana@example.org")
    assert opened.signer.admin_role == "lead"


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"job-1", b"job-2"), (b'"length":10', b'"length":99'), (b"64" * 32, b"65" * 32), (b'"all"', b'["x"]')],
)
def test_a_changed_envelope_is_refused(
    running: Federation, sealed: tuple[bytes, bytes, bytes], old: bytes, new: bytes
) -> None:
    document, signature, certificate = sealed
    changed = document.replace(old, new, 1)
    assert changed != document
    with pytest.raises(RefusedError, match="changed on the way"):
        envelope.open_envelope(read_kit(running.sites["site-1"].kit), changed, signature, certificate)


def test_an_envelope_is_refused_after_its_time(running: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "VALID_S", -1.0)
    sealed = envelope.seal(read_kit(running.admin_kit), "job-1", b"d" * 32, 10, None)
    with pytest.raises(RefusedError, match="it was valid until"):
        envelope.open_envelope(read_kit(running.sites["site-1"].kit), *sealed)


def test_a_site_a_server_and_a_stranger_can_sign_nothing(running: Federation, tmp_path: Path) -> None:
    kit = read_kit(running.sites["site-2"].kit)
    for signer in (running.sites["site-1"].kit, running.server.kit):
        with pytest.raises(RefusedError, match="only admins submit"):
            envelope.open_envelope(kit, *envelope.seal(read_kit(signer), "job-1", b"d" * 32, 10, None))
    stranger_kit = TestCA("digits").kit(tmp_path / "eve", "ana@example.org", "admin", port=1, admin_role="lead")
    with pytest.raises(RefusedError, match="not from this federation's CA"):
        envelope.open_envelope(kit, *envelope.seal(read_kit(stranger_kit), "job-1", b"d" * 32, 10, None))


def test_the_sites_policy_says_who_may_submit(running: Federation) -> None:
    policy = running.sites["site-2"].kit / "local/policy.yml"
    policy.write_text("submitters: [bob@example.org]\n")
    try:
        folder = running.job("policy", ADD, workflow={"type": "fedavg", "rounds": 1, "model": W})
        with running.session() as session, pytest.raises(JobError) as caught:
            session.wait(session.submit(folder), 120)
        assert "site-2: ana@example.org (lead) may not submit here; local/policy.yml allows: bob@example.org" in str(
            caught.value
        )
    finally:
        policy.unlink()


def test_a_hub_that_changes_a_signed_job_makes_no_site_run_it(fresh: Federation) -> None:
    """The hub's own disk is changed: another bundle under the submitter's envelope."""
    import sqlite3

    workflow = {"type": "fedavg", "rounds": 1, "model": W, "min_sites": 2}
    folder = fresh.job("signed", ADD, sites=["site-1", "site-2"], workflow=workflow)
    evil = fresh.job("evil", ADD + "\nprint('owned')\n")
    for site in fresh.sites.values():
        site.stop()
    with fresh.session() as session:
        job = session.submit(folder)
        until(lambda: session.show(job)["state"] == "QUEUED")
        fresh.server.stop()
        data = pack(evil)
        manifest = of_bytes(data)
        with sqlite3.connect(fresh.server.state / "hub.db") as database:
            database.execute(
                "INSERT INTO blobs VALUES (?, ?, ?, ?, NULL)", (manifest.id, manifest.length, manifest.leaves, data)
            )
            database.execute("UPDATE jobs SET bundle = ? WHERE id = ?", (manifest.id, job))
        fresh.start()
        with pytest.raises(JobError, match="not the one that its submitter signed"):
            session.wait(job, 120)
    assert "its script runs" not in fresh.sites["site-1"].text()


def test_the_servers_answer_to_a_closed_port_is_a_clear_message(stopped: Federation) -> None:
    with stopped.session() as session, pytest.raises(UnreachableError, match="refuses connections") as caught:
        session.sites()
    assert isinstance(caught.value, FlError)
    assert caught.value.exit_code == 9
