"""Targets that are read: files, frames, archives, signed documents, models."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import sys
import threading
from pathlib import Path

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fuzz_world import scratch, world
from google.protobuf.message import DecodeError

from fl_runtime import localsock
from fl_runtime.agent.capacity import Capacity
from fl_runtime.blobs import Manifest
from fl_runtime.blobs.space import disk_quota
from fl_runtime.codecs.decode import decode
from fl_runtime.errors import JobSpecError, KitError, ProtocolError, RefusedError
from fl_runtime.hub.main import bulk_streams
from fl_runtime.job.bundle import pack, unpack
from fl_runtime.job.envelope import open_envelope
from fl_runtime.job.spec import parse_spec, read_spec
from fl_runtime.kit import read_kit
from fl_runtime.models.tensors import TensorFile
from fl_runtime.orders import open_order
from fl_runtime.plain import parse_plain
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.signed import canonical
from fl_runtime.wire.revocations import RevocationList

LIMIT = 1 << 20
BASE = b'\x48\0\0\0\0\0\0\0{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}' + b" " * 17 + bytes(16)

# --- what is read from files and sockets


def frames(data: bytes) -> bool:
    """The local wire."""
    ours, theirs = socket.socketpair()

    def feed() -> None:
        with contextlib.suppress(OSError):
            theirs.sendall(data)
        theirs.close()

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    connection = localsock.Connection(ours)
    got = 0
    try:
        while (received := connection.receive()) is not None:
            assert isinstance(received[0], dict)
            got += 8 + len(received[1])
    except ProtocolError:
        return False
    finally:
        connection.close()
        feeder.join()
    assert got <= len(data)
    return got > 0


def manifests(data: bytes) -> bool:
    try:
        message = pb.Manifest.FromString(data)
        manifest = Manifest(message.length, message.leaves)
    except (DecodeError, ProtocolError):
        return False
    assert len(manifest.id) == 32
    assert sum(manifest.size(index) for index in range(min(manifest.count, 1000))) <= manifest.length
    return True


def archives(data: bytes) -> bool:
    """A bundle that a site was sent: nothing outside of its folder, and packed again it gives the same."""
    with scratch() as top:
        top.mkdir()
        taken = False
        try:
            unpack(data, top / "job")
            taken = True
        except JobSpecError:
            pass
        assert {path.name for path in top.iterdir()} <= {"job"}
        assert not any(path.is_symlink() for path in top.rglob("*"))
        if taken:
            with contextlib.suppress(JobSpecError):  # an empty one, or one that grows too large
                unpack(pack(top / "job"), top / "again")
                assert _tree(top / "again") == _tree(top / "job")
        return taken


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def job_files(data: bytes) -> bool:
    """job.yml, job.json."""
    taken = False
    for as_json in (False, True):
        try:
            spec = parse_spec(parse_plain(data, as_json))
        except (ValueError, JobSpecError):
            continue
        assert parse_spec(json.loads(json.dumps(spec.document()))) == spec
        assert spec.name
        str(spec.need)
        taken = True
    return taken


def job_folders(data: bytes) -> bool:
    with scratch() as folder:
        folder.mkdir()
        (folder / "train.py").write_bytes(b"")
        (folder / "job.yml").write_bytes(data)
        try:
            read_spec(folder)
        except JobSpecError:
            return False
        return True


def kits(data: bytes) -> bool:
    """Each file of a kit; taken when every reader of those that are read in use takes it, or the one at the start."""
    kit, taken = world().site, 0
    names = ("endpoint", "data", "policy", "resources", "store")
    for name in names:
        (kit.path / f"local/{name}.yml").write_bytes(data)
    try:
        readers = (kit.endpoint, kit.data, kit.policy, kit.resources, kit.store, Capacity(kit).totals,
                   lambda: bulk_streams(kit), lambda: disk_quota(kit))  # fmt: skip
        for read in readers:
            with contextlib.suppress(KitError, JobSpecError):
                read()
                taken += 1
    finally:
        for name in names:
            (kit.path / f"local/{name}.yml").unlink()
    with scratch() as folder:
        (folder / "startup").mkdir(parents=True)
        (folder / "startup/participant.yml").write_bytes(data)
        with contextlib.suppress(KitError):
            read_kit(folder)
            return True
    return taken == len(readers)


# --- what is signed: the signature is right here, so that what is behind it is reached


def canonical_of(data: bytes) -> bytes:
    """The one form in which a signed document may come; NaN and its like are no numbers of it."""

    def no_number(word: str) -> None:
        raise AssertionError(f"{word} was taken for a number")

    document = json.loads(data, parse_constant=no_number)
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def envelopes(data: bytes) -> bool:
    try:
        opened = open_envelope(world().site, data, world().sign(data), world().admin.certificate)
    except RefusedError:
        return False
    assert canonical_of(data) == data
    assert opened.signer.name == "a@b.c"
    return True


def orders(data: bytes) -> bool:
    try:
        opened = open_order(world().site, data, world().sign(data), world().admin.certificate)
    except RefusedError:
        return False
    assert canonical_of(data) == data
    assert opened.signer.name == "a@b.c"
    return True


def certificates(data: bytes) -> bool:
    """Somebody's certificate, in place of the signer's; what is signed is right, and opened with the signer's alone."""
    from samples import envelope, order

    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(data) + b"-----END CERTIFICATE-----\n"
    taken = False
    for certificate in (data, pem):
        for open_, body in ((open_envelope, envelope()), (open_order, order())):
            document = canonical(body)
            try:
                open_(world().site, document, world().sign(document), certificate)
            except RefusedError:
                continue
            signers = x509.load_pem_x509_certificate(world().admin.certificate)
            assert x509.load_pem_x509_certificate(certificate) == signers
            taken = True
    return taken


def revocations(data: bytes) -> bool:
    signature = world().ca.key.sign(data, ec.ECDSA(hashes.SHA256()))
    try:
        found = RevocationList.parse(data, signature, world().site.ca)
    except RefusedError:
        return False
    assert canonical_of(data) == data
    assert found.number >= 1
    found.fresh()
    return True


# --- models


def models(data: bytes) -> bool:
    """A safetensors file, through the mappers to numpy and torch: no view outside of the file."""
    seen = []
    with scratch() as path:
        path.write_bytes(data)
        for source in (data, path):
            try:
                file = TensorFile(source)
            except ProtocolError:
                continue
            with file:
                seen.append({name: _read(file, name, len(data)) for name in file.tensors})
                assert sum(map(len, seen[-1].values())) <= len(data)
    assert len(seen) in (0, 2), "from memory and from a file it is not the same"
    assert not seen or seen[0] == seen[1]
    return bool(seen)


def _read(file: TensorFile, name: str, length: int) -> bytes:
    """One tensor's bytes, seen by every mapper."""
    tensor = file.tensors[name]
    assert 0 <= tensor.start <= tensor.start + tensor.length <= length
    raw, flat, array = file.raw(name), file.flat(name), file.array(name)
    assert (len(raw), flat.size, array.shape) == (tensor.length, tensor.count, tensor.shape)
    np.asarray(array).sum()
    if torch := sys.modules.get("torch"):
        with contextlib.suppress(ProtocolError):  # a dtype that torch has not
            made = file.torch(name)
            assert torch.is_tensor(made)
            assert tuple(made.shape) == tensor.shape
    return bytes(raw)


def containers(data: bytes) -> bool:
    """An encoded model, with and without a base."""
    taken = False
    with scratch() as folder:
        folder.mkdir()
        for base, base_id in ((None, ""), (BASE, "aa")):
            target = folder / "plain"
            try:
                decode(data, target, LIMIT, base, base_id)
            except ProtocolError:
                continue
            assert target.stat().st_size <= LIMIT
            with TensorFile(target):
                taken = True
    return taken
