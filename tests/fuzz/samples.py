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
from document_targets import BASE
from fuzz_world import world
from message_targets import JOB

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
TASK = f"{JOB}/0.0/site-1"


def _frame(message: dict[str, Any], binary: bytes = b"") -> bytes:
    body = json.dumps(message).encode()
    return struct.pack("<II", len(body), len(binary)) + body + binary


def _zip(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("_", "/"), data)
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


def envelope(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    return {
        "version": 1,
        "federation": "digits",
        "job": JOB,
        "bundle": {"digest": "00" * 32, "length": 10},
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


def samples() -> dict[str, list[bytes]]:
    text = [yaml.safe_dump(SPEC).encode(), json.dumps(SPEC).encode()]
    raw = About('{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', ["raw"])
    part = dump(*encode({"0": np.zeros(4, np.float32)}, raw.metadata()))
    to_hub = [
        pb.ToHub(hello=pb.Hello(major=2, version="1", labels={"a": "b"}, features=["codecs-1"])),
        pb.ToHub(task_result=pb.TaskResult(job=JOB, task=TASK, attempt=1, meta=b'{"meta": {}, "metrics": {"a": 1}}',
                                           payload=pb.Payload(blob=b"x" * 32, length=2, inline=b"ab"))),
        pb.ToHub(metric=pb.MetricData(job=JOB, document=b'[{"key": "a", "value": 1.0}]', offset=0, next=9)),
        pb.ToHub(log=pb.LogData(job=JOB, offset=0, data=b"abc", next=3)),
        pb.ToHub(reserved=pb.Reserved(job=JOB, granted=True, figures=b'{"slots": 1}')),
        pb.ToHub(site_state=pb.SiteState(job=JOB, state="running", why="")),
        pb.ToHub(job_answer=pb.JobAnswer(job=JOB, accepted=True)),
        pb.ToHub(need_full=pb.NeedFull(job=JOB, task=TASK)),
        pb.ToHub(order_answer=pb.OrderAnswer(order="a", accepted=True)),
    ]  # fmt: skip
    to_site = [
        pb.ToParticipant(task=pb.Task(job=JOB, task=TASK, attempt=1, name="train", meta=b'{"blobs": {"a": "00"}}',
                                      payload=pb.Payload(blob=b"x" * 32, length=2, inline=b"ab"))),
        pb.ToParticipant(job_start=pb.JobStart(job=JOB, envelope=pb.Envelope(document=b"{}", signature=b"x"),
                                               bundle=pb.Payload(blob=b"x" * 32, length=1, inline=b"a"))),
        pb.ToParticipant(reserve=pb.Reserve(job=JOB, need=b'{"slots": 1}', lease_ms=100, attempt=1)),
        pb.ToParticipant(order=pb.Order(document=b'{"id": "a"}', signature=b"x", certificate=b"y")),
        pb.ToParticipant(revocations=pb.Revocations(document=b"{}", signature=b"x")),
        pb.ToParticipant(task_cancel=pb.TaskCancel(job=JOB, task=TASK)),
        pb.ToParticipant(report_have=pb.ReportHave(job=JOB, log=1, metric=2)),
        pb.ToParticipant(result_ack=pb.ResultAck(job=JOB, task=TASK, accepted=True)),
        pb.ToParticipant(job_stop=pb.JobStop(job=JOB, state="ABORTED", why="x")),
    ]  # fmt: skip
    query = pb.BlobQuery(blob=b"x" * 32, job=JOB, task=TASK)
    requests = [
        pb.SubmitRequest(job=JOB, envelope=pb.Envelope(document=b"{}"), spec=b"{}", bundle=pb.Manifest(length=1)),
        pb.Question(verb="show", job=JOB),
        pb.Question(verb="log", job=JOB, participant="site-1", offset=2**63),
        pb.Order(document=b"{}"),
        pb.Revocations(document=b"{}"),
        pb.WatchRequest(job=JOB, after=0, logs=True),
        pb.WatchRequest(job=JOB, after=2**63, logs=True, offsets={"site-1": 2**64 - 1}),
        query,
        pb.OfferRequest(manifest=pb.Manifest(length=5, leaves=b"x" * 32), job=JOB, task=TASK),
        pb.PullRequest(query=query, range=pb.LeafRange(first=0, count=1)),
        pb.PushHeader(query=query, range=pb.LeafRange(first=0, count=1)),
    ]
    attach = {"op": "attach", "job": JOB, "epoch": 1, "rank": 0, "world": 1}
    by_itself = _frame({**attach, "attach": True})
    result = {"op": "result", "task": TASK, "meta": {"metrics": {"a": 1}}}
    in_file = {**result, "file": "/etc/passwd"}
    return {
        "frames": [_frame({"op": "status"}), _frame({"a": [1, {"b": None}]}, b"xyz") * 2],
        "manifests": [pb.Manifest(length=5, leaves=b"x" * 32).SerializeToString()],
        "archives": [_zip(job=b"name: x", lib_tool=b"x" * 100), _zip()],
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
        "calls": [bytes([METHODS[type(request)]]) + request.SerializeToString() for request in requests],
        "from_hub": [message.SerializeToString() for message in to_site],
        "from_workflow": [
            json.dumps(message).encode()
            for message in (
                {"op": "blob", "file": "/etc/passwd"},
                {"op": "spool", "size": 10},
                {"op": "call", "round": 0, "index": 1, "name": "x", "targets": ["site-1"], "meta": {}, "settings": {}},
                {"op": "judge", "task": TASK, "ok": False, "why": "x"},
                {"op": "sites", "round": 0, "index": 0, "known": []},
                {"op": "cancel", "round": 0, "index": 9, "why": "x"},
                {"op": "taken", "round": 0, "index": 0, "place": 0},
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
