"""The envelope: what a submitter signs, and what every site checks for itself. The hub can't make one.

Its document (fl_runtime/signed.py) has its own keys job, bundle (digest, length) and sites.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from fl_runtime import signed
from fl_runtime.errors import RefusedError
from fl_runtime.kit import Kit
from fl_runtime.names import is_job_id
from fl_runtime.wire.identity import Identity

VALID_S = 30 * 24 * 3600.0
_YEAR_10000 = 253_402_300_800
_SKEW_S = 24 * 3600.0  # like the certificates' backdating


@dataclass(frozen=True)
class Envelope:
    """A checked envelope."""

    job: str
    bundle: bytes
    bundle_length: int
    sites: tuple[str, ...] | None
    not_after: float
    signer: Identity


def seal(kit: Kit, job: str, bundle: bytes, length: int, sites: tuple[str, ...] | None) -> tuple[bytes, bytes, bytes]:
    """Sign with an admin's kit: (document, signature, certificate PEM)."""
    body = {
        "job": job,
        "bundle": {"digest": bundle.hex(), "length": length},
        "sites": "all" if sites is None else list(sites),
    }
    return signed.sign(kit, body, VALID_S)


def _time(value: Any) -> float:
    """Seconds since the epoch. Raises ValueError: no calendar has such a time; NaN, that never passes, is none."""
    seconds = float(value)
    if not 0 <= seconds < _YEAR_10000:
        raise ValueError("no such time")
    return seconds


def open_envelope(
    kit: Kit, document: bytes, signature: bytes, certificate_pem: bytes, *, at_any_time: bool = False
) -> Envelope:
    """Check signature, signer, federation and, unless `at_any_time`, time against this kit's CA.

    Raises:
        RefusedError: with the reason.
    """

    def refuse(why: str) -> RefusedError:
        return RefusedError("The job's envelope is refused", participant=kit.name, why=why)

    def read(body: Mapping[str, Any], signer: Identity) -> Envelope:
        return Envelope(
            job=str(body["job"]),
            bundle=bytes.fromhex(body["bundle"]["digest"]),
            bundle_length=int(body["bundle"]["length"]),
            sites=None if body["sites"] == "all" else tuple(str(site) for site in body["sites"]),
            not_after=_time(body["not_after"]),
            signer=signer,
        )

    sealed = (document, signature, certificate_pem)
    envelope, issued = signed.check(kit, sealed, read, refuse, "only admins submit jobs", at_any_time=at_any_time)
    if not is_job_id(envelope.job):
        raise refuse("its job id is none")
    if at_any_time:
        return envelope
    if time.time() > envelope.not_after:
        raise refuse("it was valid until " + datetime.fromtimestamp(envelope.not_after, timezone.utc).isoformat())
    if issued > time.time() + _SKEW_S:
        raise refuse("it is from the future: check this machine's clock")
    return envelope
