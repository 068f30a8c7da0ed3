"""A site that accepted a job is asked again after a reconnect or a reboot: what it may refuse, and what then."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from federation import TestCA, serial, signed, until
from lone_hub import JOB, SIZE, Server, model, pushed, server

from fl_runtime.agent.main import Agent
from fl_runtime.blobs import of_bytes
from fl_runtime.errors import KitError, ProtocolError, RefusedError
from fl_runtime.hub.job_process import Running
from fl_runtime.job.bundle import pack
from fl_runtime.job.envelope import open_envelope, seal
from fl_runtime.kit import Kit, read_kit
from fl_runtime.proto import fedspan_pb2 as pb

# --- on the server


def refuses(made: Server, site: str) -> None:
    running = Running(made.job, made.root, 1)
    running.ready.set()
    made.hub.jobs._running[JOB] = running
    made.hub.jobs.answer(site, pb.JobAnswer(job=JOB, accepted=False, why="its signer is revoked"))
    del made.hub.jobs._running[JOB]


def opened(made: Server, **settings: Any) -> None:
    made.open(replace(made.call(np.zeros(SIZE), **settings), targets=("site-1", "site-2")))


def test_a_site_that_refuses_in_the_middle_is_not_waited_for(tmp_path: Path) -> None:
    with server(tmp_path) as made:
        made.connect()
        made.connect("site-2")
        opened(made, min=1)
        made.answer(f"{JOB}/0.0/site-2", model(np.ones(SIZE)), "site-2")
        made.hub.board.judge(f"{JOB}/0.0/site-2", True, "")
        assert made.heard.ends == []
        refuses(made, "site-1")
        (end,) = made.heard.ends
        assert (end["verdict"], end["used"]) == ("close", ["site-2"])
        assert end["missing"] == {"site-1": "it refuses to go on: its signer is revoked"}
        assert made.hub.store.sites(JOB)["site-1"] == ("failed", "it refuses to go on: its signer is revoked")


def test_without_enough_others_the_job_fails_with_what_the_site_said(tmp_path: Path) -> None:
    with server(tmp_path) as made:
        for site in ("site-1", "site-2"):
            made.connect(site)
        opened(made)
        refuses(made, "site-1")
        (end,) = made.heard.ends
        assert end["verdict"] == "fail"
        assert "site-1: it refuses to go on: its signer is revoked" in end["why"]
        assert not pushed(made.connect())  # it is not asked again


@pytest.mark.parametrize("when", ["before a kill of the server", "while the call is made"])
def test_a_site_that_is_out_is_not_waited_for_whenever_that_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """It is out in the store; whoever would have told the board was killed, or came too early."""
    with server(tmp_path) as made:
        call = replace(made.call(np.zeros(SIZE)), targets=("site-1", "site-2"))
        if when == "before a kill of the server":
            made.open(call)
            made.hub.store.set_site(JOB, "site-1", "failed", "its script failed")
            made.restart()
        else:
            store = made.hub.store
            look = store.job

            def fails(job: str) -> Any:  # the first thing that is looked at
                store.set_site(JOB, "site-1", "failed", "its script failed")
                return look(job)

            monkeypatch.setattr(store, "job", fails)
        made.hub.board.open(call, made.heard, lambda: made.hub.jobs.out(JOB))
        (end,) = made.heard.ends
        assert end["verdict"] == "fail"
        assert "site-1: its script failed" in end["why"]


@pytest.mark.parametrize("figures", [b'"Slots"', b"[1]", b"7", b"null", b"{"])
def test_what_a_site_says_it_has_is_a_map_or_nonsense(tmp_path: Path, figures: bytes) -> None:
    """Anything else would be met where an admin asks for everybody's."""
    with server(tmp_path) as made:
        session = made.connect()
        made.hub.jobs.starter.said("site-1", b'{"slots": 2}')
        for body in (
            {"site_state": pb.SiteState(job=JOB, figures=figures)},
            {"reserved": pb.Reserved(figures=figures)},
        ):
            with pytest.raises(ProtocolError, match="makes no sense"):
                made.hub.on_message(session, pb.ToHub(**body))
        assert made.hub.jobs.starter.figures("site-1") == {"slots": 2}
        assert made.hub.jobs.resources()["site-1"]["slots"] == 2


# --- on the site

WAITS = "import fl_runtime.client as flare\nflare.init()\nwhile flare.is_running():\n    flare.receive()\n"


class Asked:
    """A site's agent that the server asks to take part in a job of a member's, again and again; it has no link."""

    def __init__(self, root: Path, **job: Any) -> None:
        self.ca = TestCA()
        self.said: list[dict[str, Any]] = []
        kit = self.ca.kit(root / "site-1", "site-1", "site", port=1)
        (kit / "local/policy.yml").write_text(yaml.safe_dump({"submitters": ["bob@example.org"], "isolation": "best"}))
        self.kit = read_kit(kit)
        self.bob = read_kit(self.ca.kit(root / "bob", "bob@example.org", "admin", port=1, admin_role="member"))
        (root / "job").mkdir()
        (root / "job/train.py").write_text(WAITS)
        (root / "job/job.yml").write_text(yaml.safe_dump({"name": "long", **(job or {"script": "train.py"})}))
        self.bundle = pack(root / "job")
        digest, size = of_bytes(self.bundle).id, len(self.bundle)
        self.sealed = seal(self.bob, JOB, digest, size, None)
        payload = pb.Payload(blob=digest, length=size, inline=self.bundle)
        envelope = pb.Envelope(**dict(zip(("document", "signature", "certificate"), self.sealed, strict=True)))
        self.request = pb.JobStart(job=JOB, envelope=envelope, bundle=payload)
        (root / "state").mkdir()
        self.agent = Agent(self.kit, root / "state", {})
        self.agent.link.send = self._say  # type: ignore[method-assign]

    def _say(self, **body: Any) -> bool:
        self.said.append(body)
        return True

    def ask(self) -> pb.JobAnswer:
        self.said.clear()
        self.agent.jobs.start(self.request)
        return next(body["job_answer"] for body in self.said if "job_answer" in body)

    def state(self) -> str:
        known = self.agent.journal.job(JOB)
        assert known is not None
        return known.state

    def close(self) -> None:
        self.agent.jobs.end_all()
        for part in (self.agent._jobs_worker, self.agent._down, self.agent.results):
            part.stop()
        self.agent.shaping.close()
        self.agent.journal.close()


@pytest.fixture
def asked(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Asked]:
    made = Asked(tmp_path, **getattr(request, "param", {}))
    try:
        yield made
    finally:
        made.close()


def days_later(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """For whoever looks at the times of envelopes and of their signers' certificates."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(days=days)

    clock = SimpleNamespace(time=lambda: time.time() + days * 86400)
    monkeypatch.setattr("fl_runtime.job.envelope.time", clock)
    monkeypatch.setattr("fl_runtime.signed.datetime", Later)


def opens(kit: Kit, asked: Asked) -> bool:
    try:
        open_envelope(kit, *asked.sealed)
    except RefusedError:
        return False
    return True


def test_a_job_that_takes_longer_than_its_envelope_is_valid_goes_on(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked.ask().accepted
    run = asked.agent.run_of(JOB)
    assert run is not None
    script = until(lambda: run.process)
    days_later(monkeypatch, 40)
    assert not opens(asked.kit, asked)
    assert asked.ask().accepted
    assert script.alive()
    assert run.process == script


@pytest.mark.parametrize("not_after", [-62135596801.0, 1e300, float("nan"), float("inf")])
def test_an_envelope_whose_end_no_calendar_has_is_refused(asked: Asked, not_after: float) -> None:
    body = {**json.loads(asked.sealed[0]), "not_after": not_after}
    document = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    key = serialization.load_pem_private_key(asked.bob.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    with pytest.raises(RefusedError):
        open_envelope(asked.kit, document, key.sign(document, ec.ECDSA(hashes.SHA256())), asked.sealed[2])


def test_a_job_that_is_new_here_is_refused_when_its_time_is_over(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    days_later(monkeypatch, 40)
    answer = asked.ask()
    assert not answer.accepted
    assert "not valid now" in answer.why


@pytest.mark.parametrize("what", ["revoked", "no submitter any more"])
def test_who_may_not_submit_any_more_has_nothing_run_here_any_more(asked: Asked, what: str) -> None:
    assert asked.ask().accepted
    run = asked.agent.run_of(JOB)
    assert run is not None
    script = until(lambda: run.process)
    if what == "revoked":
        asked.agent.revocations.offer(*signed(asked.ca, 1, serial(asked.bob.path)))
        why = "the certificate of its signer bob@example.org is revoked"
    else:
        (asked.kit.path / "local/policy.yml").write_text("submitters: [lead]\n")
        why = "bob@example.org (member) may not submit here"
    answer = asked.ask()
    assert (answer.accepted, answer.busy) == (False, False)
    assert why in answer.why
    until(lambda: not script.alive())
    assert asked.state() == "failed"
    assert asked.agent.jobs.capacity.figures()["jobs"] == []


@pytest.mark.parametrize("asked", [{}, {"attach": True}], indirect=True)
def test_a_file_of_the_owners_that_is_half_edited_ends_no_job_whoever_runs_its_script(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't be read when the server asks again; nothing is refused by that."""
    monkeypatch.setattr(type(asked.agent.link), "connected", True)
    assert asked.ask().accepted
    policy = asked.kit.path / "local/policy.yml"
    before = policy.read_text()
    policy.write_text("submitters: [bob@exam")
    with pytest.raises(KitError):
        asked.ask()
    assert not asked.said
    assert asked.state() == "accepted"
    policy.write_text(before)
    assert asked.ask().accepted
