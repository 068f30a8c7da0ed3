"""When is a round over? Pure decision, from what is known of each targeted site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fl_runtime.hub.state import ACCEPTED, ANSWERED, OPEN

DEFAULT_GRACE_S = 10.0


@dataclass(frozen=True)
class Part:
    """One site's part in a call: the state of its task, and how long the site has been lost (None = connected)."""

    site: str
    state: str
    lost_for: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Decision:
    """`open`: wait (why says for whom). `close`: go on with the accepted results. `fail`: the quorum can't be met."""

    verdict: str
    why: str = ""


def decide(parts: Sequence[Part], minimum: int, waited: float, deadline: float | None, grace: float) -> Decision:
    """Close when all answered; or, with the minimum met, when every missing site is lost for `grace` or time is up.

    Args:
        minimum: accepted results that are needed.
        waited: seconds since the call was opened, while the server was up.
    """
    accepted = [part for part in parts if part.state == ACCEPTED]
    judged = [part for part in parts if part.state == ANSWERED]
    waiting = [part for part in parts if part.state == OPEN]
    met = len(accepted) >= minimum
    if not judged and not waiting:
        return Decision("close") if met else Decision("fail", _short(parts, len(accepted), minimum))
    if len(accepted) + len(judged) + len(waiting) < minimum:
        return Decision("fail", _short(parts, len(accepted), minimum))
    if deadline is not None and waited >= deadline:
        if met:
            return Decision("close")
        return Decision("fail", f"the deadline of {deadline:g} s passed; " + _short(parts, len(accepted), minimum))
    if met and not judged and all(part.lost_for is not None and part.lost_for >= grace for part in waiting):
        return Decision("close")
    lost = [part.site for part in waiting if part.lost_for is not None]
    if lost and len(accepted) + len(judged) + len(waiting) - len(lost) < minimum:
        return Decision(
            "open", f"waiting for {', '.join(lost)} to return: {len(accepted)} of {minimum} needed results are here"
        )
    return Decision("open", "waiting for " + ", ".join(part.site for part in [*judged, *waiting]))


def _short(parts: Sequence[Part], have: int, minimum: int) -> str:
    reasons = [f"{part.site}: {part.why or part.state}" for part in parts if part.state != ACCEPTED]
    return f"{have} of {minimum} needed results; " + "; ".join(reasons)
