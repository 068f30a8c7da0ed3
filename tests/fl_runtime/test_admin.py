"""What each role of admin may do; clones, deletions, downloads that go on; orders that a stolen server can't give."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from cryptography import x509
from federation import Federation, TestCA, until
from scripts import ADD, SLOW

from fl_runtime import orders
from fl_runtime.admin import Session
from fl_runtime.agent.orders import Orders
from fl_runtime.errors import FlError, JobError, RefusedError
from fl_runtime.job.envelope import seal
from fl_runtime.kit import read_kit
from fl_runtime.proto import fedspan_pb2 as pb

W = {"tensors": {"w": [5]}}
BIG = {"tensors": {"w": [2_500_000]}}  # 10 MB: three leaves

WAITING = """
import time
import fl_runtime.client as flare
flare.init()
flare.receive()
time.sleep(600)
"""


def kit(fed: Federation, name: str, role: str) -> Path:
    folder = fed.root / "kits" / name
    return folder if folder.exists() else fed.ca.kit(folder, name, "admin", port=fed.port, admin_role=role)


@pytest.fixture(scope="module")
def people(running: Federation) -> dict[str, Path]:
    return {
        "lead": running.admin_kit,
        "member": kit(running, "bo@example.org", "member"),
        "observer": kit(running, "eve@example.org", "observer"),
    }


@pytest.fixture(scope="module")
def done(running: Federation) -> str:
    """A finished job of the lead."""
    folder = running.job("done", ADD, workflow={"type": "fedavg", "rounds": 2, "model": W})
    with running.session() as session:
        job = session.submit(folder)
        session.wait(job, 120)
    return job


def test_what_sites_have_and_what_is_free_is_known_before_a_job_and_after_it(running: Federation) -> None:
    with running.session() as session:
        known = until(lambda: all("slots" in row for row in session.resources().values()) and session.resources())
        assert {name: row["free"]["slots"] for name, row in known.items()} == dict.fromkeys(running.sites, 4)
        job = session.submit(running.job("busy", ADD, workflow={"type": "fedavg", "rounds": 1, "model": W}))
        session.wait(job, 120)
        until(lambda: {row["free"]["slots"] for row in session.resources().values()} == {4})


def test_an_observer_looks_and_does_nothing_else(
    running: Federation, people: dict[str, Path], done: str, tmp_path: Path
) -> None:
    with Session(people["observer"]) as session:
        assert set(session.sites()) >= set(running.sites)
        assert set(session.resources()) == set(running.sites)
        assert done in [job["id"] for job in session.jobs()]
        assert session.show(done)["state"] == "FINISHED"
        assert any("round" in text for _, text in session.logs(done, "site-1"))
        assert session.monitor(done, lambda event: None)["id"] == done
        for act in (
            lambda: session.submit(running.root / "jobs/done"),
            lambda: session.clone(done),
            lambda: session.download(done, tmp_path),
            lambda: session.abort(done),
            lambda: session.delete(done),
            lambda: session.restart("site-1"),
        ):
            with pytest.raises(RefusedError) as caught:
                act()
            assert caught.value.next_step


def test_a_member_acts_on_jobs_of_their_own_only(running: Federation, people: dict[str, Path], done: str) -> None:
    for site in running.sites.values():
        (site.kit / "local/policy.yml").write_text(yaml.safe_dump({"submitters": ["lead", "member"]}))
    folder = running.job("members", WAITING, workflow={"type": "fedavg", "rounds": 1, "model": W})
    with Session(people["member"]) as session:
        own = session.submit(folder)
        for act in (session.abort, session.delete):
            with pytest.raises(RefusedError, match="a job of ana"):
                act(done)
        with pytest.raises(RefusedError, match="this is for a lead"):
            session.restart("site-1")
        with pytest.raises(RefusedError, match="only what has ended can be deleted") as caught:
            session.delete(own)
        assert caught.value.next_step == f"fedspan job abort {own}"
        assert session.abort(own)["state"] == "ABORTED"
        session.delete(own)
        with pytest.raises(JobError, match="there is no job"):
            session.show(own)


def test_a_clone_is_signed_by_the_cloner_and_gives_the_same_bits(
    running: Federation, people: dict[str, Path], done: str, tmp_path: Path
) -> None:
    for site in running.sites.values():
        (site.kit / "local/policy.yml").write_text(yaml.safe_dump({"submitters": ["lead", "member"]}))
    with Session(people["member"]) as session:
        clone = session.clone(done)
        view = session.wait(clone, 120)
        assert (view["submitter"], clone != done) == ("bo@example.org", True)
        first, second = session.download(done, tmp_path), session.download(clone, tmp_path)
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_a_bundle_that_its_submitter_did_not_sign_is_not_cloned(running: Federation, tmp_path: Path) -> None:
    from fl_runtime.admin.session import verified_bundle

    stranger = read_kit(TestCA("digits").kit(tmp_path / "kit", "mal@example.org", "admin", port=1, admin_role="lead"))
    document, signature, certificate = seal(stranger, "job-1", bytes(32), 10, None)
    sealed = {"document": document.hex(), "signature": signature.hex(), "certificate": certificate.decode()}
    with running.session() as session, pytest.raises(RefusedError, match="not from this federation's CA"):
        verified_bundle(session, "job-1", sealed)


def test_a_job_is_cloned_however_old_its_envelope_and_its_signers_certificate_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fl_runtime.admin.session import verified_bundle

    ca, long_ago = TestCA(), datetime.now(timezone.utc) - timedelta(days=400)
    old = read_kit(ca.kit(tmp_path / "old", "ana@example.org", "admin", port=1, admin_role="lead", begin=long_ago))
    session: Any = SimpleNamespace(kit=read_kit(ca.kit(tmp_path / "bo", "bo@example.org", "admin", port=1)))
    monkeypatch.setattr("fl_runtime.job.envelope.VALID_S", -1.0)
    document, signature, certificate = seal(old, "job-1", b"d" * 32, 10, None)
    sealed = {"document": document.hex(), "signature": signature.hex(), "certificate": certificate.decode()}
    assert verified_bundle(session, "job-1", sealed) == b"d" * 32
    with pytest.raises(RefusedError, match="the envelope of another job"):
        verified_bundle(session, "job-2", sealed)
    sealed["document"] = document.replace(b"64" * 32, b"65" * 32).hex()
    with pytest.raises(RefusedError, match="changed on the way"):
        verified_bundle(session, "job-1", sealed)


def test_a_deleted_job_leaves_no_rows_blobs_or_logs(running: Federation) -> None:
    folder = running.job("short", ADD, workflow={"type": "fedavg", "rounds": 1, "model": BIG})
    state = running.server.state
    with running.session() as session:
        job = session.submit(folder)
        session.wait(job, 120)
        before = sum(1 for _ in (state / "blobs").iterdir())
        session.delete(job)
        assert job not in [entry["id"] for entry in session.jobs()]
        with pytest.raises(JobError, match="there is no job"):
            session.delete(job)
    assert not (state / "logs" / job).exists()
    assert not (state / "jobs" / job).exists()
    until(lambda: sum(1 for _ in (state / "blobs").iterdir()) < before, what="its blobs are gone")


def test_a_download_goes_on_where_it_broke(running: Federation, tmp_path: Path) -> None:
    folder = running.job("big", ADD, workflow={"type": "fedavg", "rounds": 1, "model": BIG})
    asked: list[tuple[int, int]] = []
    with running.session() as session:
        job = session.submit(folder)
        session.wait(job, 120)
        blobs = session._connection.blobs
        pull = blobs.pull

        def once(request: pb.PullRequest) -> Any:
            asked.append((request.range.first, request.range.count))
            chunks = pull(request)
            if len(asked) == 1:  # broken off after five of ten MB
                return broken(chunks)
            return chunks

        def broken(chunks: Any) -> Any:
            for number, chunk in enumerate(chunks):
                if number == 5:
                    raise KeyboardInterrupt
                yield chunk

        blobs.pull = once
        with pytest.raises(KeyboardInterrupt):
            session.download(job, tmp_path)
        assert not (tmp_path / job).exists()
    with running.session() as session:  # another process would do the same
        pull = session._connection.blobs.pull
        session._connection.blobs.pull = lambda request: (
            asked.append((request.range.first, request.range.count)) or pull(request)
        )
        target = session.download(job, tmp_path)
    assert asked == [(0, 3), (1, 2)]
    assert (target / "model.safetensors").stat().st_size > 10_000_000
    assert [path.name for path in tmp_path.iterdir()] == [job]


def test_a_monitor_survives_a_killed_server_and_tells_each_event_once(fresh: Federation) -> None:
    marks = fresh.root / "marks"
    marks.mkdir(exist_ok=True)
    config = {"marks": str(marks), "seconds": 0.3}
    folder = fresh.job("slow", SLOW, config=config, workflow={"type": "fedavg", "rounds": 6, "model": W})
    events: list[dict[str, Any]] = []
    with fresh.session() as session:
        job = session.submit(folder)
        ended: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda: ended.append(session.monitor(job, events.append)))
        thread.start()
        until(lambda: any(event["event"] == "round" for event in events))
        fresh.server.kill()
        time.sleep(0.5)
        fresh.server.start()
        thread.join(60)
        assert ended[0]["state"] == "FINISHED"
    assert [event["round"] for event in events if event["event"] == "round"] == list(range(6))


# --- orders


def test_a_site_restarts_at_a_leads_order_and_its_policy_may_refuse(fresh: Federation) -> None:
    (fresh.sites["site-2"].kit / "local/policy.yml").write_text(yaml.safe_dump({"operators": ["nobody@example.org"]}))
    with fresh.session() as session:
        told = session.restart("site-1", "site-2", "site-9")
    assert told["site-1"]["accepted"]
    assert "local/policy.yml allows: nobody@example.org" in told["site-2"]["why"]
    assert told["site-9"]["why"] == "it is not connected"
    first = fresh.sites["site-1"].process
    assert first is not None
    assert first.wait(60) == orders.RESTART_CODE  # what makes a supervisor start it again
    with fresh.session() as session:
        assert session.shut_down("site-3", "server") == {
            "site-3": {"accepted": True, "why": ""},
            "server": {"accepted": True, "why": ""},
        }
    for process in (fresh.sites["site-3"].process, fresh.server.process):
        assert process is not None
        assert process.wait(60) == 0


@pytest.fixture
def site(tmp_path: Path) -> SimpleNamespace:
    """A site's desk for orders, without a server before it: what a stolen server could send."""
    ca = TestCA()
    own = read_kit(ca.kit(tmp_path / "site", "site-1", "site", port=1))
    lead = read_kit(ca.kit(tmp_path / "lead", "ana@example.org", "admin", port=1, admin_role="lead"))
    answers: list[pb.OrderAnswer] = []
    codes: list[int] = []
    revoked: set[str] = set()
    desk = Orders(
        own, tmp_path, lambda order_answer: answers.append(order_answer), codes.append, lambda serial: serial in revoked
    )
    return SimpleNamespace(ca=ca, lead=lead, answers=answers, codes=codes, revoked=revoked, desk=desk, root=tmp_path)


def signed(kit: Any, action: str = "shutdown", targets: tuple[str, ...] = ("site-1",)) -> pb.Order:
    document, signature, certificate = orders.seal_order(kit, action, targets)
    return pb.Order(document=document, signature=signature, certificate=certificate)


def test_an_order_is_carried_out_once(site: SimpleNamespace) -> None:
    order = signed(site.lead, "restart")
    site.desk.take(order)
    site.desk.take(order)
    assert [answer.accepted for answer in site.answers] == [True, False]
    assert "before" in site.answers[1].why
    until(lambda: site.codes == [orders.RESTART_CODE])
    answer = lambda order_answer: site.answers.append(order_answer)  # noqa: E731 - one line, used once
    again = Orders(site.desk._kit, site.root, answer, site.codes.append, lambda serial: False)
    again.take(order)  # also not by the next process
    assert not site.answers[-1].accepted


@pytest.mark.parametrize("noted", [b"", b"{", b"[1]", b'{"a": "soon"}', b"\xff", b"[" * 100_000, None])
def test_an_order_is_refused_where_it_can_not_be_told_whether_it_was_carried_out(
    site: SimpleNamespace, noted: bytes | None
) -> None:
    file = site.root / "orders.json"
    if noted is None:
        file.mkdir()
    else:
        file.write_bytes(noted)
    site.desk.take(signed(site.lead))
    [answer] = site.answers
    assert not answer.accepted
    assert f"{file}, where orders are noted, can't be read" in answer.why
    assert site.codes == []
    file.rmdir() if noted is None else file.unlink()
    site.desk.take(signed(site.lead))
    assert site.answers[-1].accepted
    until(lambda: site.codes == [0])


def test_an_order_that_can_not_be_noted_is_refused(site: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    order = signed(site.lead)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        site.desk.take(order)
    assert not site.answers[-1].accepted
    assert "can't be written: [Errno 28]" in site.answers[-1].why
    assert [path.name for path in site.root.iterdir() if "orders" in path.name] == []
    site.desk.take(order)
    assert site.answers[-1].accepted


def full_disk(fd: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_orders_that_no_lead_of_this_federation_signed_are_refused(
    site: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def why(order: pb.Order) -> str:
        site.desk.take(order)
        assert not site.answers[-1].accepted
        return str(site.answers[-1].why)

    good = signed(site.lead)
    changed = json.loads(good.document)
    changed["order"] = "restart"
    document = json.dumps(changed, sort_keys=True, separators=(",", ":")).encode()
    forged = pb.Order(document=document, signature=good.signature, certificate=good.certificate)
    assert "signature" in why(forged)
    stranger = TestCA().kit(site.root / "x", "ana@example.org", "admin", port=1, admin_role="lead")
    assert "CA" in why(signed(read_kit(stranger)))
    hub = read_kit(site.ca.kit(site.root / "hub", "server", "server", port=1))
    assert "only admins" in why(signed(hub))
    member = read_kit(site.ca.kit(site.root / "m", "bo@example.org", "admin", port=1, admin_role="member"))
    assert "may not order this here" in why(signed(member))
    assert "not meant for this" in why(signed(site.lead, targets=("site-2",)))
    envelope = seal(site.lead, "job-1", bytes(32), 10, None)
    assert "not readable" in why(pb.Order(document=envelope[0], signature=envelope[1], certificate=envelope[2]))
    monkeypatch.setattr(orders.time, "time", lambda: time.monotonic())  # long ago
    old = signed(site.lead)
    monkeypatch.undo()
    assert "too old" in why(old)
    site.revoked.add(f"{x509.load_pem_x509_certificate(site.lead.certificate).serial_number:x}")
    assert "revoked" in why(signed(site.lead))
    assert site.codes == []


def test_nonsense_is_no_order(site: SimpleNamespace) -> None:
    for order in (pb.Order(), pb.Order(document=b"[]", signature=b"x", certificate=b"y")):
        site.desk.take(order)
        assert not site.answers[-1].accepted
    with pytest.raises(FlError):
        orders.open_order(site.lead, b"{}", b"", site.lead.certificate)
