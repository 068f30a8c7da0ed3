"""Which admin may do what on the server. What concerns a site is decided there again, by its policy."""

from __future__ import annotations

from fl_runtime.hub.state import Job
from fl_runtime.wire.identity import Identity

OBSERVER, MEMBER, LEAD = "observer", "member", "lead"
_RANK = {OBSERVER: 0, MEMBER: 1, LEAD: 2}
_LEAST = {
    "sites": OBSERVER,
    "resources": OBSERVER,
    "jobs": OBSERVER,
    "show": OBSERVER,
    "log": OBSERVER,
    "watch": OBSERVER,
    "submit": MEMBER,
    "envelope": MEMBER,  # with the bundle: what cloning needs
    "read": MEMBER,  # models and bundles
    "abort": MEMBER,
    "delete": MEMBER,
    "order": LEAD,
}
_OWN_ONLY = ("abort", "delete")  # a member's: their own jobs


def may_not(identity: Identity, verb: str, job: Job | None = None) -> str | None:
    """Why this admin may not do this; None when they may. An admin of an unknown role looks only."""
    rank = _RANK.get(identity.admin_role, 0)
    least = _LEAST.get(verb, LEAD)
    if rank < _RANK[least]:
        return f"{identity.name} is {_a(identity.admin_role or 'admin')}; this is for {_a(least)}" + (
            " or a lead" if least == MEMBER else ""
        )
    if verb in _OWN_ONLY and rank < _RANK[LEAD] and job is not None and job.submitter != identity.name:
        return f"{identity.name} is a member and {job.id} is a job of {job.submitter}; a lead may do this"
    return None


def _a(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
