"""A cap on what a plan may cost an hour. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.errors import RefusedError, UsageError
from deployer.plan import Plan


@dataclass(frozen=True)
class Cap:
    """`usd_hour`: the most that everything planned may list at, an hour; None: no cap.

    `allow_unknown`: what has no known price counts nothing instead of being refused.
    """

    usd_hour: float | None = None
    allow_unknown: bool = False

    def __post_init__(self) -> None:
        if self.usd_hour is not None and not 0 <= self.usd_hour < float("inf"):
            raise UsageError(
                f"--max-hourly-cost {self.usd_hour} is no amount", next_step="--max-hourly-cost 12.50 (US dollars)"
            )
        if self.allow_unknown and self.usd_hour is None:
            raise UsageError(
                "--allow-unknown-price goes with --max-hourly-cost",
                why="without a cap no price is refused",
                next_step="--max-hourly-cost 12.50 --allow-unknown-price",
            )


def check(plan: Plan, cap: Cap) -> None:
    """Refuse a plan above the cap, and one whose price is not known as long as that was not allowed.

    Raises:
        RefusedError: naming the participants and their prices.
    """
    if cap.usd_hour is None:
        return
    machines = [part for part in plan.participants if part.size]
    unknown = [part for part in machines if part.total_usd_hour is None]
    if unknown and not cap.allow_unknown:
        raise RefusedError(
            f"the price of {', '.join(part.name for part in unknown)} is not known, and there is a cap of "
            f"${cap.usd_hour:g} an hour",
            why=", ".join(f"no list price for {part.size} in the catalogue" for part in unknown),
            next_step="another size:, or --allow-unknown-price",
        )
    total = sum(part.total_usd_hour or 0.0 for part in machines)
    if total > cap.usd_hour:
        told = ", ".join(f"{part.name} ${part.total_usd_hour:.3f}" for part in machines if part.total_usd_hour)
        raise RefusedError(
            f"the plan lists at ${total:.3f} an hour, above the cap of ${cap.usd_hour:g}",
            why=told,
            next_step="smaller sizes or fewer participants, or a higher --max-hourly-cost",
        )
