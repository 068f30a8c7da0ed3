"""Whether what is wanted now is contained in a plan that was saved and agreed to."""

from __future__ import annotations

from deployer.engine_events import Step
from deployer.errors import RefusedError
from deployer.ingress import Opening
from deployer.plan import MAKE, RULE_TYPES, ParticipantPlan, Plan


def check_same(saved: Plan, fresh: Plan) -> None:
    """Refuse to apply a saved plan to anything but what it was made for. Pure.

    Raises:
        RefusedError: spec or kits changed, another realm, or the engine wants what the plan does not show.
    """
    again = f"{MAKE} makes a new one"
    if (saved.federation, saved.realm, saved.realm_id) != (fresh.federation, fresh.realm, fresh.realm_id):
        raise RefusedError(
            "the plan was made for something else",
            why=f"it is for {saved.federation} in {saved.realm} {saved.realm_id}",
            next_step=again,
        )
    if saved.digest != fresh.digest:
        raise RefusedError("federation.yml or a kit has changed since the plan was made", next_step=again)
    news = []
    for part in fresh.participants:
        shown = saved.part(part.name)
        if shown is None:
            news.append(f"{part.name} is not in it")
            continue
        seen = {(step.action, _stable_name(step)) for step in shown.steps}
        filled, strangers = _filled(shown, part)
        news += [f"{part.name}: port {one.port} open for {one.source} ({one.who})" for one in strangers]
        extra = [step for step in part.steps if (step.action, _stable_name(step)) not in seen]
        rules = [step for step in extra if step.action == "create" and step.type in RULE_TYPES]
        # one rule for each address that has become known since, and not one more
        if len(rules) > len(filled):
            rules = []
        news += [f"{part.name}: {step.action} {step.title}" for step in extra if step not in rules]
    if news:
        raise RefusedError("the engine wants what the plan does not show", why="; ".join(news), next_step=again)


def _stable_name(step: Step) -> tuple[str, str]:
    return step.type, step.name


def _filled(shown: ParticipantPlan, fresh: ParticipantPlan) -> tuple[list[Opening], list[Opening]]:
    """Openings whose address the plan awaited and that is known now; and openings that the plan does not show.

    An awaited address is filled once: what `fedspan allow` let in meanwhile for the same site is a stranger.
    """
    known = {(one.port, one.cidr) for one in shown.openings if not one.pending}
    awaited = [(one.port, name) for one in shown.openings if one.pending for name in one.who.split(", ")]
    filled: list[Opening] = []
    strangers: list[Opening] = []
    for one in sorted(fresh.openings, key=lambda opening: not opening.pending):
        if not one.pending and (one.port, one.cidr) in known:
            continue
        mine = [entry for entry in awaited if entry[0] == one.port and entry[1] in one.who.split(", ")]
        awaited = [entry for entry in awaited if entry not in mine]
        if not mine:
            strangers.append(one)
        elif not one.pending:
            filled.append(one)
    return filled, strangers
