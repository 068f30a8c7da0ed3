"""The graph of a stack's resources: who needs whom, and the layers in which they may be deleted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .state import Resource


class Graph:
    """Edges from each resource to those that it needs, over resources that lie in order (dependencies first).

    One URN may stand for two resources, a new one and an old one that still waits for its deletion; a reference to
    the URN means the nearest one before the resource that refers to it.
    """

    def __init__(self, resources: Sequence[Resource]) -> None:
        self.resources = list(resources)
        self._needs: dict[int, set[int]] = {}
        latest: dict[str, int] = {}
        self._by_id = {id(r): r for r in self.resources}
        for resource in self.resources:
            self._needs[id(resource)] = {latest[u] for u in resource.needs() if u in latest}
            latest[resource.urn] = id(resource)

    def needs(self, resource: Resource) -> list[Resource]:
        """What the resource needs directly."""
        return [self._by_id[i] for i in self._needs.get(id(resource), ())]

    def all_needs(self, resource: Resource) -> set[int]:
        """The identities of all that the resource needs, directly or not."""
        found: set[int] = set()
        todo = [id(resource)]
        while todo:
            for need in self._needs.get(todo.pop(), ()):
                if need not in found:
                    found.add(need)
                    todo.append(need)
        return found

    def dependents(self, resource: Resource, *, children: bool = False) -> list[Resource]:
        """All that depend on the resource, directly or not, in order; `children` counts parentage too."""
        reached = {id(resource)}
        out = []
        started = False
        for other in self.resources:
            if other is resource:
                started = True
                continue
            if not started:
                continue
            needs = self._needs[id(other)] & reached
            if not children and needs:
                direct = other.needs() - ({other.parent} - set(other.dependencies))
                needs = {n for n in needs if self._by_id[n].urn in direct}
            if needs:
                reached.add(id(other))
                out.append(other)
        return out


def delete_layers(graph: Graph, condemned: Iterable[Resource]) -> list[list[Resource]]:
    """The condemned in layers: all of a layer may be deleted at once, when the layer before it is gone."""
    left = {id(r): r for r in condemned}
    layers: list[list[Resource]] = []
    while left:
        layer = [r for i, r in left.items() if not (graph.all_needs(r) & left.keys())]
        if not layer:  # a state with a cycle can't be ordered: one by one, as they come
            layer = [next(iter(left.values()))]
        layers.append(layer)
        for resource in layer:
            del left[id(resource)]
    return layers[::-1]
