"""When is a round over? Pure decision, from what is known of each targeted site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fl_runtime.hub.state import ACCEPTED, ANSWERED, OPEN

DEFAULT_GRACE_S = 10.0


@dataclass(frozen=True)
class Part:
    """One site's part in a call: the state of its task, and how long the site has been lost (None = connected).

    `queued`: seconds in which its transfers waited in the server's queue: its deadline did not run then.
    `late`: an older result of the site, come after its round, may stand in for it.
    """

    site: str
    state: str
    lost_for: float | None = None
    why: str = ""
    queued: float = 0.0
    late: bool = False


@dataclass(frozen=True)
class Decision:
    """`open`: wait (why says for whom). `close`: go on with the accepted results. `fail`: the quorum can't be met.

    `use-late`: late results stand in for the sites that have one; when they are judged, decide again.
    """

    verdict: str
    why: str = ""


def decide(
    parts: Sequence[Part],
    minimum: int,
    waited: float,
    deadline: float | None,
    grace: float,
    below: str | None = None,
) -> Decision:
    """Close when all answered; or, with the minimum met, when every missing site is lost for `grace` or time is up.

    Args:
        minimum: accepted results that are needed.
        waited: seconds since the call was opened, while the server was up.
        below: below the minimum, `wait` for lost sites also beyond the deadline; `fail` when too many are lost for
            `grace`, and at the deadline. None: wait for lost sites, fail at the deadline.
    """
    accepted = [part for part in parts if part.state == ACCEPTED]
    judged = [part for part in parts if part.state == ANSWERED]
    waiting = [part for part in parts if part.state == OPEN]
    standing = [part for part in waiting if part.late]
    possible = len(accepted) + len(judged) + len(waiting)
    met = len(accepted) + len(standing) >= minimum
    if not judged and not waiting:
        return Decision("close") if met else Decision("fail", _short(parts, len(accepted), minimum))
    if possible < minimum:
        return Decision("fail", _short(parts, len(accepted), minimum))
    if judged:
        return Decision("open", "waiting for " + ", ".join(part.site for part in [*judged, *waiting]))
    overdue = deadline is not None and waited >= deadline + max(part.queued for part in waiting)
    gone = [part for part in waiting if part.lost_for is not None and part.lost_for >= grace and not part.late]
    if met and (overdue or all(part.lost_for is not None and part.lost_for >= grace for part in waiting)):
        passed = f"the deadline of {deadline:g} s passed" if overdue else ""
        return Decision("use-late") if standing else Decision("close", passed)
    if not met and overdue and below != "wait":
        return Decision("fail", f"the deadline of {deadline:g} s passed; " + _short(parts, len(accepted), minimum))
    if not met and below == "fail" and possible - len(gone) < minimum:
        names = ", ".join(part.site for part in gone)
        return Decision(
            "fail", f"{names} lost for {grace:g} s (below_quorum: fail); " + _short(parts, len(accepted), minimum)
        )
    lost = [part.site for part in waiting if part.lost_for is not None]
    if lost and possible - len(lost) < minimum:
        return Decision(
            "open", f"waiting for {', '.join(lost)} to return: {len(accepted)} of {minimum} needed results are here"
        )
    return Decision("open", "waiting for " + ", ".join(part.site for part in waiting))


def _short(parts: Sequence[Part], have: int, minimum: int) -> str:
    reasons = [f"{part.site}: {part.why or part.state}" for part in parts if part.state != ACCEPTED]
    return f"{have} of {minimum} needed results; " + "; ".join(reasons)
