"""Well-formed examples of what each target takes: fuzzers begin with them and break them."""

from __future__ import annotations

import io
import json
import struct
import time
import zipfile
from typing import Any

import numpy as np
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from document_targets import BASE
from fuzz_world import world
from message_targets import AT_WORK, JOB, PUSHED, TASK

from fl_runtime.blobs import of_bytes
from fl_runtime.codecs.container import About
from fl_runtime.errors import FlError
from fl_runtime.models.tensors import dump, encode
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.signed import canonical

# The place of the method that takes them, among those of `calls`.
METHODS = {
    pb.SubmitRequest: 0,
    pb.Question: 1,
    pb.Order: 2,
    pb.Revocations: 3,
    pb.WatchRequest: 4,
    pb.BlobQuery: 5,
    pb.OfferRequest: 6,
    pb.PullRequest: 7,
    pb.PushHeader: 8,
}


def _frame(message: dict[str, Any], binary: bytes = b"") -> bytes:
    body = json.dumps(message).encode()
    return struct.pack("<II", len(body), len(binary)) + body + binary


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


SPEC: dict[str, Any] = {
    "name": "x",
    "script": "train.py",
    "workflow": {"type": "fedavg", "rounds": 2, "min_sites": 1, "late": "use", "model": {"tensors": {"w": [4]}}},
    "args": ["--a", 1],
    "data": ["digits"],
    "sites": ["site-1"],
    "config": {"lr": 0.1},
    "resources": {"gpus": 1, "memory": "8GB", "gpu_memory": "1.5GiB", "slots": 1},
    "requirements": ["numpy>=1.26,<3", "x[y]==1.*"],
    "filters": {"results": [{"type": "clip_norm", "max_norm": 1.0}]},
    "codecs": ["delta", {"type": "topk", "share": 0.1, "on": "results"}],
    "tracking": {"csv": True},
    "priority": 1,
}
KIT: dict[str, Any] = {
    "server": "example.org:8443",
    "proxy": "http://proxy:3128",
    "data": {"digits": "/srv/digits"},
    "submitters": ["lead"],
    "scripts": ["any"],
    "filters": {"results": ["svt"]},
    "isolation": "best",
    "network": "none",
    "gpus": [{"index": 0, "memory": "80GB"}],
    "memory": "32GB",
    "slots": 2,
    "disk_quota": "2GB",
    "bulk_streams": 4,
    "store": "postgresql://x/y",
}
PARTICIPANT: dict[str, Any] = {
    "name": "site-1",
    "role": "site",
    "federation": "digits",
    "server": {"name": "server.digits.fedspan", "port": 8443},
}


BUNDLE = _zip({"job.yml": yaml.safe_dump(SPEC).encode(), "train.py": b"", "lib/tool.py": b"x" * 100})


def envelope(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    return {
        "version": 1,
        "federation": "digits",
        "job": JOB,
        "bundle": {"digest": of_bytes(BUNDLE).id.hex(), "length": len(BUNDLE)},
        "sites": "all",
        "issued": now,
        "not_after": now + 1000,
        "signer": {"name": "a@b.c", "serial": _serial()},
        **changes,
    }


def order(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    return {
        "version": 1,
        "federation": "digits",
        "order": "restart",
        "targets": ["site-2"],
        "id": "ab",
        "issued": now,
        "not_after": now + 100,
        "signer": {"name": "a@b.c", "serial": _serial()},
        **changes,
    }


def revocation(**changes: Any) -> dict[str, Any]:
    document = {"version": 1, "federation": "digits", "number": 1, "issued": 1, "not_after": 2**33, "serials": ["ab"]}
    return {**document, **changes}


def _serial() -> str:
    from cryptography import x509

    return f"{x509.load_pem_x509_certificate(world().admin.certificate).serial_number:x}"


def _model(**params: Any) -> bytes:
    return dump(*encode(params))


def _encoded() -> list[bytes]:
    """Models as they travel: by each codec, plain and compressed."""
    import tempfile
    from pathlib import Path

    from fl_runtime.codecs.encode import encode as pack_model

    made = []
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain"
        plain.write_bytes(_model(w=np.arange(4, dtype=np.float32), n=np.arange(3)))
        for codecs in (["quantize8"], ["quantize4"], [{"type": "topk", "share": 0.5}], ["delta"], ["zstd"]):
            made.append(_try_encode(pack_model, plain, Path(folder) / "out", codecs))
    return [one for one in made if one]


def _try_encode(pack_model: Any, plain: Any, out: Any, codecs: list[Any]) -> bytes:
    from fl_runtime.codecs.spec import parse_codecs

    try:
        pack_model(plain, parse_codecs([*codecs], "x"), out, base=BASE, base_id="aa")
    except FlError:  # a codec that does not fit this small model gives no sample
        return b""
    return bytes(out.read_bytes()) if out.exists() else b""


def _of_version(version: int) -> bytes:
    """The admin's certificate, as of another version of X.509."""
    import ssl

    der = ssl.PEM_cert_to_DER_cert(world().admin.certificate.decode())
    return ssl.DER_cert_to_PEM_cert(der.replace(b"\xa0\x03\x02\x01\x02", bytes((0xA0, 3, 2, 1, version)), 1)).encode()


def _signed(document: dict[str, Any]) -> Any:
    """As the admin sends it: a job's envelope, or an order."""
    kind = pb.Order if "order" in document else pb.Envelope
    data = canonical(document)
    return kind(document=data, signature=world().sign(data), certificate=world().admin.certificate)


def samples() -> dict[str, list[bytes]]:
    signed, ordered, bundle = _signed(envelope()), _signed(order()), of_bytes(BUNDLE)
    newest = canonical(revocation(number=time.time_ns()))  # an older one changes nothing
    signature = world().ca.key.sign(newest, ec.ECDSA(hashes.SHA256()))
    revoked = pb.Revocations(document=newest, signature=signature)
    text = [yaml.safe_dump(SPEC).encode(), json.dumps(SPEC).encode()]
    raw = About('{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', ["raw"])
    part = dump(*encode({"0": np.zeros(4, np.float32)}, raw.metadata()))
    to_hub = [
        pb.ToHub(hello=pb.Hello(major=2, version="1", labels={"a": "b"}, features=["codecs-1"])),
        pb.ToHub(task_result=pb.TaskResult(job=JOB, task=TASK, attempt=1, meta=b'{"meta": {}, "metrics": {"a": 1}}',
                                           payload=pb.Payload(blob=of_bytes(b"ab").id, length=2, inline=b"ab"))),
        pb.ToHub(metric=pb.MetricData(job=JOB, document=b'[{"key": "a", "value": 1.0}]', offset=0, next=9)),
        pb.ToHub(log=pb.LogData(job=JOB, offset=0, data=b"abc", next=3)),
        pb.ToHub(reserved=pb.Reserved(job=JOB, granted=True, figures=b'{"slots": 1}')),
        pb.ToHub(site_state=pb.SiteState(job=JOB, state="running", why="", figures=b'{"slots": 2}')),
        pb.ToHub(job_answer=pb.JobAnswer(job=JOB, accepted=True)),
        pb.ToHub(need_full=pb.NeedFull(job=JOB, task=TASK)),
        pb.ToHub(order_answer=pb.OrderAnswer(order="a", accepted=True)),
        pb.ToHub(heartbeat=pb.Heartbeat(clock_ms=1)),
    ]  # fmt: skip
    to_site = [
        pb.ToParticipant(task=pb.Task(job=JOB, task=TASK, attempt=1, name="train", meta=b'{"blobs": {"a": "00"}}',
                                      payload=pb.Payload(blob=of_bytes(b"ab").id, length=2, inline=b"ab"))),
        # signed and whole; refused in the end, for this site has no such data
        pb.ToParticipant(job_start=pb.JobStart(job=JOB, envelope=signed,
                                               bundle=pb.Payload(blob=bundle.id, length=len(BUNDLE), inline=BUNDLE))),
        pb.ToParticipant(reserve=pb.Reserve(job=JOB, need=b'{"slots": 1}', lease_ms=100, attempt=1)),
        pb.ToParticipant(order=ordered),
        pb.ToParticipant(revocations=revoked),
        pb.ToParticipant(task_cancel=pb.TaskCancel(job=JOB, task=AT_WORK)),
        pb.ToParticipant(report_have=pb.ReportHave(job=JOB, log=1, metric=2)),
        pb.ToParticipant(result_ack=pb.ResultAck(job=JOB, task=AT_WORK, accepted=True)),
        pb.ToParticipant(job_stop=pb.JobStop(job=JOB, state="ABORTED", why="x")),
    ]  # fmt: skip
    query = pb.BlobQuery(blob=of_bytes(BASE).id, job=JOB, task=TASK)
    pushed = pb.BlobQuery(blob=of_bytes(PUSHED).id, job=JOB, task=TASK)
    requests = [
        pb.SubmitRequest(job="job-2", envelope=_signed(envelope(job="job-2")), spec=text[1],
                         bundle=pb.Manifest(length=bundle.length, leaves=bundle.leaves)),
        pb.Question(verb="show", job=JOB),
        pb.Question(verb="log", job=JOB, participant="site-1", offset=2**63),
        ordered,
        revoked,
        pb.WatchRequest(job=JOB, after=0, logs=True),
        pb.WatchRequest(job=JOB, after=2**63, logs=True, offsets={"site-1": 2**64 - 1}),
        query,
        pb.OfferRequest(manifest=pb.Manifest(length=5, leaves=b"x" * 32), job=JOB, task=TASK),
        pb.PullRequest(query=query, range=pb.LeafRange(first=0, count=1)),
    ]  # fmt: skip
    header = pb.PushHeader(query=pushed, range=pb.LeafRange(first=0, count=1)).SerializeToString()
    attach = {"op": "attach", "job": JOB, "epoch": 1, "rank": 0, "world": 1}
    by_itself = _frame({**attach, "attach": True})
    result = {"op": "result", "task": TASK, "meta": {"metrics": {"a": 1}}}
    in_file = {**result, "file": "/etc/passwd"}
    return {
        "frames": [_frame({"op": "status"}), _frame({"a": [1, {"b": None}]}, b"xyz") * 2],
        "manifests": [pb.Manifest(length=5, leaves=b"x" * 32).SerializeToString()],
        "archives": [BUNDLE, _zip({})],
        "job_files": text,
        "job_folders": text[:1],
        "kits": [yaml.safe_dump(KIT).encode(), yaml.safe_dump(PARTICIPANT).encode()],
        "envelopes": [canonical(envelope())],
        "orders": [canonical(order())],
        "certificates": [world().admin.certificate, _of_version(34)],
        "revocations": [canonical(revocation())],
        "models": [BASE, _model(w=np.ones((2, 3), np.float16), n=np.zeros((0, 2), np.int64), b=np.ones(3, np.bool_))],
        "containers": [part, *_encoded()],
        "from_site": [message.SerializeToString() for message in to_hub],
        "hellos": [to_hub[0].SerializeToString()],
        "calls": [
            *(bytes([METHODS[type(request)]]) + request.SerializeToString() for request in requests),
            bytes([METHODS[pb.PushHeader], len(header)]) + header + PUSHED,
        ],
        "from_hub": [message.SerializeToString() for message in to_site],
        "from_workflow": [
            json.dumps(message).encode()
            for message in (
                {"op": "blob", "file": "/etc/passwd"},
                {"op": "blob", "file": None},
                {"op": "spool", "size": 10},
                {"op": "call", "round": 0, "index": 1, "name": "x", "targets": ["site-1"], "meta": {}, "settings": {}},
                {"op": "judge", "task": TASK, "ok": False, "why": "x"},
                {"op": "sites", "round": 0, "index": 0, "known": []},
                {"op": "cancel", "round": 0, "index": 1, "why": "x"},
                {"op": "taken", "round": 0, "index": 1, "place": 0},
                {"op": "record", "round": 0, "index": 7, "name": "now", "value": 1.0},
                {"op": "outgrown", "round": 0, "closed": []},
                {"op": "metric", "items": [{"key": "a", "value": 1.0}]},
                {"op": "event", "document": {"event": "x"}},
            )
        ],
        "local_requests": [
            by_itself + _frame({"op": "next", "timeout": 0}) + _frame(result) + _frame({"op": "bye"}),
            by_itself + _frame({"op": "next", "timeout": 0}) + _frame({"op": "spool", "size": 10}) + _frame(in_file),
            _frame(attach) + _frame({"op": "next", "timeout": 0}),
            _frame({**attach, "attach": True, "watch": TASK}),
            _frame({"op": "status"}),
        ],
    }
