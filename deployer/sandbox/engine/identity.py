"""Who a registered resource is: which old state is its own, under which former names, and what it
inherits from its parent.
"""

from __future__ import annotations

from . import urns
from .goal import Goal
from .problems import Refused
from .state import Resource


class Identities:
    """The identities of one deployment. `olds` are the states of the checkpoint by URN."""

    def __init__(self, stack: str, project: str) -> None:
        self._stack, self._project = stack, project
        self.olds: dict[str, Resource] = {}
        self.seen: set[str] = set()
        self.made: dict[str, Resource] = {}  # new states by URN
        self.aliased: dict[str, str] = {}  # former URN -> URN
        self._former: dict[str, list[str]] = {}  # URN -> former URNs

    def urn(self, goal: Goal) -> str:
        return urns.make(self._stack, self._project, goal.parent, goal.type, goal.name)

    def take(self, goal: Goal) -> tuple[Resource | None, Resource]:
        """The old state and a new one without inputs. Raises Refused for a name that is taken."""
        urn = self.urn(goal)
        if urn in self.seen:
            raise Refused(f"Duplicate resource URN '{urn}'; try giving it a unique name", urn)
        self.seen.add(urn)
        old, new = self._find_old(goal, urn), self._new_state(goal, urn)
        self.made[urn] = new
        return old, new

    def _find_old(self, goal: Goal, urn: str) -> Resource | None:
        former = [a.resolve(self._stack, self._project, goal.parent, goal.type, goal.name) for a in goal.aliases]
        for parent in self._former.get(goal.parent, ()):
            names = [goal.name, *(urns.name_of(f) for f in former)]
            former += [urns.inherited(n, urns.name_of(goal.parent), parent, goal.type) for n in names]
        former = [f for f in urns.unique(former) if f != urn]
        if former:
            self._former[urn] = former
        for candidate in (urn, *former):
            old = self.olds.get(candidate)
            if old is None or (candidate != urn and candidate in self.seen):
                continue  # not there, or there under its old name in its own right
            if candidate != urn:
                taken = self.aliased.setdefault(candidate, urn)
                if taken != urn:
                    raise Refused(f"More than one resource has the alias '{candidate}': '{taken}' and '{urn}'", urn)
            return old
        return None

    def _new_state(self, goal: Goal, urn: str) -> Resource:
        parent = self.made.get(goal.parent)
        protect, retain = goal.protect, goal.retain_on_delete
        if protect is None:
            protect = parent.protect if parent else False
        if retain is None:
            retain = parent.retain_on_delete if parent else False
        return Resource(
            urn=urn,
            type=goal.type,
            custom=goal.custom,
            parent=goal.parent,
            provider=goal.provider if goal.custom else "",
            protect=protect,
            retain_on_delete=retain,
            dependencies=list(goal.dependencies),
            property_dependencies=dict(goal.property_dependencies),
            deleted_with=goal.deleted_with,
            import_id=goal.import_id,
            additional_secret_outputs=list(goal.additional_secret_outputs),
            custom_timeouts=dict(goal.custom_timeouts),
            ignore_changes=list(goal.ignore_changes),
            replace_on_changes=list(goal.replace_on_changes),
            hide_diff=list(goal.hide_diff),
            replace_with=list(goal.replace_with),
            source_position=goal.source_position,
            hooks=dict(goal.hooks),
        )


def renamed(resource: Resource, names: dict[str, str]) -> Resource:
    """The resource with its references to resources that have got new names (former URN -> URN)."""
    if not (resource.needs() & names.keys()):
        return resource
    out = resource.copy()
    out.parent = names.get(out.parent, out.parent)
    out.deleted_with = names.get(out.deleted_with, out.deleted_with)
    out.dependencies = [names.get(d, d) for d in out.dependencies]
    out.property_dependencies = {k: [names.get(d, d) for d in ds] for k, ds in out.property_dependencies.items()}
    if out.provider:
        urn, id_ = urns.split_reference(out.provider)
        out.provider = urns.reference(names.get(urn, urn), id_)
    return out
