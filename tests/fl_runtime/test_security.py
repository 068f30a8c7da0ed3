"""Attacks on a federation of real processes, each refused: replays, forged grants, old launches, stolen kits, leaks."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from federation import Federation, Process, TestCA, federation, signed, until
from impostors import Puppet, StolenServer, stolen_server
from scripts import ADD

from fl_runtime import localsock
from fl_runtime.admin import Session
from fl_runtime.agent.clients import _Client
from fl_runtime.blobs import of_bytes
from fl_runtime.errors import JobError, KitError
from fl_runtime.job.bundle import pack
from fl_runtime.job.envelope import seal
from fl_runtime.kit import read_kit
from fl_runtime.orders import seal_order
from fl_runtime.proto import fedspan_pb2 as pb

MODEL = {"tensors": {"w": [50_000]}}  # larger than what lies in messages
FEDAVG: dict[str, Any] = {"type": "fedavg", "rounds": 1, "model": MODEL}


def job_start(job: str, sealed: tuple[bytes, bytes, bytes], bundle: bytes) -> pb.JobStart:
    document, signature, certificate = sealed
    payload = pb.Payload(blob=of_bytes(bundle).id, length=len(bundle), inline=bundle)
    envelope = pb.Envelope(document=document, signature=signature, certificate=certificate)
    return pb.JobStart(job=job, envelope=envelope, bundle=payload)


def kept_envelope(fed: Federation, job: str) -> tuple[bytes, bytes, bytes]:
    """What lies on the server's disk."""
    with contextlib.closing(sqlite3.connect(fed.server.state / "hub.db")) as database:
        row = database.execute("SELECT envelope, signature, certificate FROM jobs WHERE id = ?", (job,)).fetchone()
    return tuple(map(bytes, row))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def robbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Federation, StolenServer, str, bytes]]:
    """A federation in which a job has ended, and whose server was replaced by whoever stole its kit and its disk."""
    with federation(tmp_path_factory.mktemp("robbed"), sites=1) as fed:
        folder = fed.job("done", ADD, workflow=FEDAVG)
        with fed.session() as session:
            job = session.wait(session.submit(folder), 120)["id"]
        with stolen_server(fed) as server:
            yield fed, server, job, pack(folder)


Robbed = tuple[Federation, StolenServer, str, bytes]


def refused(robbed: Robbed, start: pb.JobStart) -> str:
    """What site-1 says to it. Nothing of it has run."""
    fed, server, *_ = robbed
    launches = fed.sites["site-1"].text().count("its script runs")
    server.send("site-1", job_start=start)
    answer = server.heard("site-1", "job_answer")
    assert not answer.accepted
    assert fed.sites["site-1"].text().count("its script runs") == launches
    return answer.why


def test_a_replayed_envelope_is_refused_also_after_the_site_was_started_again(robbed: Robbed) -> None:
    fed, server, job, bundle = robbed
    replay = job_start(job, kept_envelope(fed, job), bundle)
    assert refused(robbed, replay) == "its id was used here before"
    site = fed.sites["site-1"]
    site.stop()
    server._out.clear()
    site.start()
    assert refused(robbed, replay) == "its id was used here before"


def test_a_stolen_server_makes_no_site_run_a_job_that_it_made_up(robbed: Robbed, tmp_path: Path) -> None:
    fed, server, job, _ = robbed
    evil = pack(fed.job("evil", "print('owned')\n"))
    digest = of_bytes(evil).id

    own = seal(server.kit, "evil-1", digest, len(evil), None)  # signed with the stolen key
    assert "server is a server of digits; only admins submit jobs" in refused(robbed, job_start("evil-1", own, evil))

    admin = TestCA("digits").kit(tmp_path / "eve", "ana@example.org", "admin", port=1, admin_role="lead")
    forged = seal(read_kit(admin), "evil-2", digest, len(evil), None)  # by an admin of a CA of its own
    assert "not from this federation's CA" in refused(robbed, job_start("evil-2", forged, evil))

    document, signature, certificate = kept_envelope(fed, job)
    swapped = job_start(job, (document, signature, certificate), evil)  # the lead's envelope around another bundle
    assert "not the one that its submitter signed" in refused(robbed, swapped)
    renamed = job_start("evil-3", (document.replace(job.encode(), b"evil-3"), signature, certificate), evil)
    assert "changed on the way" in refused(robbed, renamed)


def test_a_stolen_server_can_not_bring_back_what_was_revoked_nor_give_orders(robbed: Robbed) -> None:
    fed, server, *_ = robbed
    site, kept = fed.sites["site-1"], fed.sites["site-1"].state / "revoked.json"

    def send(document: bytes, signature: bytes) -> None:
        server.send("site-1", revocations=pb.Revocations(document=document, signature=signature))

    send(*signed(fed.ca, 5, "abc"))
    until(lambda: kept.exists() and "abc" in kept.read_text())
    send(*signed(fed.ca, 4))  # an older one, rightly signed
    send(*signed(TestCA("digits"), 9))  # a newer one of another CA
    order = pb.Order(**dict(zip(("document", "signature", "certificate"),
                                seal_order(server.kit, "shutdown", ["site-1"]), strict=True)))  # fmt: skip
    server.send("site-1", order=order)
    answer = server.heard("site-1", "order_answer")
    assert not answer.accepted
    assert "only admins give orders" in answer.why
    assert "abc" in kept.read_text()
    assert site.process is not None
    assert site.process.poll() is None


def test_a_server_that_sends_nonsense_ends_no_agent(robbed: Robbed) -> None:
    fed, server, *_ = robbed
    for meta in (b"{", b"[1]", b"[" * 50_000, b'{"blobs": {"a": "zz"}}', b"\xff"):
        server.send("site-1", task=pb.Task(job="x", task="x/0.0/site-1", name="train", meta=meta))
    precious = fed.root / "precious"
    precious.mkdir()
    for job in ("../../../precious", str(precious), "..", ""):  # a job's folder is removed when it is over
        server.send("site-1", job_stop=pb.JobStop(job=job, state="ABORTED"))
    server.send("site-1", task=pb.Task(job="x", task="x/0.0/f\0te", name="train", meta=b"{}"))
    server.send("site-1", reserve=pb.Reserve(job="x", need=b'{"slots": {}}', attempt=3))
    assert server.heard("site-1", "reserved").never
    assert precious.is_dir()
    assert fed.sites["site-1"].state.is_dir()
    assert "makes no sense" in fed.sites["site-1"].text()
    assert "Traceback" not in fed.sites["site-1"].text()


# --- grants


def test_a_site_that_knows_the_hash_of_anothers_model_gets_it_in_no_way(fresh: Federation) -> None:
    """Not by asking for it, not by offering it, and not by answering with it so that it becomes the next model."""
    with fresh.session() as session:
        secret = fresh.job("secret", ADD, sites=["site-1"], workflow=FEDAVG)
        model = session.wait(session.submit(secret), 120)["model"]
        path = session.download(session.jobs()[-1]["id"], fresh.root / "results") / "model.safetensors"
        manifest = of_bytes(path.read_bytes())
        blob = bytes.fromhex(model["blob"])
        assert manifest.id == blob
        fresh.sites["site-2"].stop()
        puppet = Puppet(fresh.sites["site-2"].kit)
        try:
            job = session.submit(fresh.job("mine", ADD, sites=["site-2"], workflow={**FEDAVG, "rounds": 2}))
            puppet.wait("job_start")
            puppet.send(job_answer=pb.JobAnswer(job=job, accepted=True))
            task = puppet.wait("task")
            query = pb.BlobQuery(blob=blob, job=job, task=task.task)
            pull = pb.PullRequest(query=query, range=pb.LeafRange(first=0, count=1))
            for ask in (lambda: puppet.blobs.describe(query), lambda: list(puppet.blobs.pull(pull))):
                with pytest.raises(grpc.RpcError) as caught:
                    ask()
                assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            offer = pb.OfferRequest(
                job=job, task=task.task, manifest=pb.Manifest(length=manifest.length, leaves=manifest.leaves)
            )
            assert not puppet.blobs.offer(offer).complete  # it is not told that the content is here
            payload = pb.Payload(blob=blob, length=manifest.length)
            puppet.send(task_result=pb.TaskResult(job=job, task=task.task, attempt=task.attempt, payload=payload))
            until(lambda: "came before its content" in fresh.server.text())
            assert not any(message.WhichOneof("body") == "result_ack" for message in puppet.got)
            assert session.show(job)["sites"]["site-2"]["task"] == "open"
            session.abort(job)
        finally:
            puppet.close()


def test_an_answer_that_is_none_is_refused_with_the_sites_name(fresh: Federation) -> None:
    fresh.sites["site-2"].stop()
    puppet = Puppet(fresh.sites["site-2"].kit)
    try:
        with fresh.session() as session:
            workflow = {**FEDAVG, "min_sites": 1, "grace": 1}
            job = session.submit(fresh.job("odd", ADD, sites=["site-1", "site-2"], workflow=workflow))
            puppet.wait("job_start")
            puppet.send(job_answer=pb.JobAnswer(job=job, accepted=True))
            task = puppet.wait("task")
            meta = b'{"metrics": {"accuracy": "very good"}}'
            puppet.send(task_result=pb.TaskResult(job=job, task=task.task, attempt=task.attempt, meta=meta))
            assert not puppet.wait("result_ack").accepted
            view = session.wait(job, 120)
        assert view["history"][0]["missing"] == {"site-2": "its metric 'accuracy' is no number"}
    finally:
        puppet.close()


# --- old launches

RELAUNCHED = """
import os, pathlib, sys
from fl_runtime import localsock
from fl_runtime.client.wire import EPOCH, JOB, SOCKET
import fl_runtime.client as flare

epoch = int(os.environ[EPOCH])
if epoch == 1:
    sys.exit(1)
old = localsock.connect(pathlib.Path(os.environ[SOCKET]), 5)
old.send({"op": "attach", "job": os.environ[JOB], "epoch": epoch - 1, "rank": 0})
print("OLD", old.receive()[0], flush=True)
flare.init()
while flare.is_running():
    flare.send(flare.FLModel(params=flare.receive().params))
"""


def test_what_an_older_launch_sends_is_refused(running: Federation) -> None:
    with running.session() as session:
        view = session.wait(session.submit(running.job("old", RELAUNCHED, sites=["site-1"], workflow=FEDAVG)), 120)
        log = "".join(text for _, text in session.logs(view["id"], "site-1"))
    assert "OLD {'error': 'this launch of the job is over'}" in log


def test_a_process_that_is_not_the_jobs_does_not_attach_as_it(running: Federation) -> None:
    """It has the right user, the socket and the epoch; what it is not is started by the job's keeper."""
    workflow = {**FEDAVG, "rounds": 1}
    folder = running.job("owned", "import time\ntime.sleep(60)\n", sites=["site-1"], workflow=workflow)
    with running.session() as session:
        job = session.submit(folder)
        path = running.sites["site-1"].state / "jobs" / job / "agent.sock"
        until(path.exists)
        until(lambda: f"{job}: its script runs" in running.sites["site-1"].text())
        connection = localsock.connect(path, 5)
        connection.send({"op": "attach", "job": job, "epoch": 1, "rank": 0})
        assert connection.receive() == ({"error": "this process is not of the job that it names"}, b"")
        connection.close()
        session.abort(job)


def test_a_jobs_program_does_not_attach_to_a_job_that_waits_for_a_notebook() -> None:
    """Without root all are one user, and Landlock does not keep a program from the agent's socket."""

    def job(name: str, attach: bool, pid: int) -> SimpleNamespace:
        spec = SimpleNamespace(attach=attach)
        return SimpleNamespace(job=name, spec=spec, over=False, epoch=1, owns=lambda asked: asked == pid)

    waits = job("b", True, 0)
    agent: Any = SimpleNamespace(jobs=SimpleNamespace(runs=lambda: [job("a", False, 7), waits]))
    hello = {"attach": True, "job": "b"}
    program, notebook = (_Client(agent, cast(Any, SimpleNamespace(peer_pid=pid)), hello) for pid in (7, 8))
    assert program._run() == "a job's program can't attach itself to another job"
    assert notebook._run() is waits


# --- revocation as a site's policy


def test_a_site_that_wants_a_fresh_list_runs_nothing_without_one(fresh: Federation) -> None:
    site = fresh.sites["site-1"]
    (site.kit / "local/policy.yml").write_text("revocations: required\n")

    def submit(session: Session, name: str) -> Any:
        return session.wait(session.submit(fresh.job(name, ADD, sites=["site-1"], workflow=FEDAVG)), 120)

    def held(number: int) -> bool:
        kept = site.state / "revoked.json"
        return kept.exists() and f'\\"number\\":{number}' in kept.read_text()

    with fresh.session() as session:
        with pytest.raises(JobError, match="wants a fresh list of revoked certificates, and there is none"):
            submit(session, "none")
        session.revoke(*signed(fresh.ca, 1, days=-1))
        until(lambda: held(1))
        with pytest.raises(JobError, match="number 1 is past its time"):
            submit(session, "stale")
        session.revoke(*signed(fresh.ca, 2, "abc"))
        until(lambda: held(2))
        assert submit(session, "fresh")["state"] == "FINISHED"


# --- leaks

CANARIES = {"FEDSPAN_PASSPHRASE": "canary-passphrase-4711", "AWS_SECRET_ACCESS_KEY": "canary-cloud-4712"}
PROXY_PASSWORD = "canary-proxy-4713"


class Lookout:
    """Looks at the command line and the environment of every process, all the time.

    Args:
        trusted: command lines of those whose environment holds what the test has given to them.
    """

    def __init__(self, secrets: list[bytes], trusted: set[bytes]) -> None:
        self.seen: set[str] = set()
        self.found: set[str] = set()
        self._secrets, self._trusted = secrets, trusted
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Lookout:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.01):
            for entry in os.listdir("/proc"):
                if entry.isdigit():
                    self._process(int(entry))

    def _process(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            argv = Path(f"/proc/{pid}/cmdline").read_bytes()
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if argv in self._trusted:
                environment = b""  # it was given to them; their forks have it until they become something else
            for word in (b"fl_runtime.workflow.process", b"keeper.py", b"train.py"):
                if word in argv:
                    self.seen.add(word.decode())
            for what, data in (("command line", argv), ("environment", environment)):
                if any(secret in data for secret in self._secrets):
                    self.found.add(f"the {what} of {argv[:200]!r}")


def test_no_secret_stands_in_a_log_or_on_a_command_line_or_in_a_jobs_environment(stopped: Federation) -> None:
    """A whole run: kits' keys, what the owner's environment holds, and a proxy's password."""
    fed = stopped
    behind = fed.participant("site-9", "site")
    (behind.kit / "local/endpoint.yml").write_text(
        f"server: 127.0.0.1:{fed.port}\nproxy: http://user:{PROXY_PASSWORD}@127.0.0.1:9\n"
    )
    behind.env["no_proxy"] = ""
    everybody: list[Process] = [fed.server, *fed.sites.values(), behind]
    for process in everybody:
        process.env.update(CANARIES)
    keys = [(process.kit / "startup/participant.key").read_bytes() for process in everybody]
    keys.append((fed.admin_kit / "startup/participant.key").read_bytes())
    secrets = [line for key in keys for line in key.splitlines()[1:3]]  # the rest is the public half
    secrets += [value.encode() for value in (*CANARIES.values(), PROXY_PASSWORD)]
    fed.start()
    behind.start()
    trusted = {Path(f"/proc/{process.status()['pid']}/cmdline").read_bytes() for process in everybody[:-1]}
    assert behind.process is not None
    trusted.add(Path(f"/proc/{behind.process.pid}/cmdline").read_bytes())
    try:
        script = "import os\nprint(sorted(os.environ.items()))\n" + ADD
        with Lookout(secrets, trusted) as lookout, fed.session() as session:
            filters = {"results": [{"type": "clip_norm", "max_norm": 1e9}]}
            own = fed.job("own", script, filters=filters, workflow={**FEDAVG, "type": "controller", "path": "mine.Own"})
            (own / "mine.py").write_text("from fl_runtime.workflow.fedavg import FedAvg as Own\n")
            view = session.wait(session.submit(own), 120)
            session.wait(session.submit(fed.job("plain", script, codecs=["quantize8"], workflow=FEDAVG)), 120)
            logs = "".join(text for name in ("server", "site-1") for _, text in session.logs(view["id"], name))
            error = until(lambda: behind.status().get("error"))
            assert error["kind"] == "proxy"
    finally:
        behind.stop()
    assert lookout.seen == {"fl_runtime.workflow.process", "keeper.py", "train.py"}
    assert lookout.found == set()
    written = [process.log for process in everybody]
    written += [path for path in (fed.root / "state").rglob("*") if path.is_file()]
    for path in written:
        text = path.read_bytes()
        assert not [secret for secret in secrets if secret in text], path
    assert "FEDSPAN" in logs  # the script did print what it has
    assert not any(secret.decode() in logs for secret in secrets)


@pytest.mark.parametrize("url", ["http://user:pass word@proxy:1", "user:secret@proxy:1", "http://user@proxy:1"])
def test_a_proxy_is_named_without_its_password(url: str) -> None:
    from fl_runtime.wire.probe import shown

    assert shown(url) == "proxy:1"


def test_files_of_the_runtime_are_its_users_alone(running: Federation) -> None:
    for process in (running.server, *running.sites.values()):
        below = [path.relative_to(process.state) for path in process.state.rglob("*")]
        own = [path for path in below if path.parts[0] not in ("jobs", "job-imports")]  # what is a job's is its user's
        database = "hub.db" if process is running.server else "agent.db"
        assert {database, "local.sock"} <= {str(path) for path in own}
        for path in own:
            status = (process.state / path).lstat()
            assert stat.S_ISLNK(status.st_mode) or not status.st_mode & 0o077, (path, oct(status.st_mode))


def test_yaml_of_a_kit_makes_no_objects(tmp_path: Path) -> None:
    kit = TestCA().kit(tmp_path / "kit", "site-1", "site", port=1)
    evil = f"!!python/object/apply:os.system ['touch {tmp_path}/owned']"
    (kit / "local/policy.yml").write_text(f"submitters: {evil}\n")
    with pytest.raises(KitError, match=r"policy\.yml can't be read"):
        read_kit(kit).policy()
    assert not (tmp_path / "owned").exists()
