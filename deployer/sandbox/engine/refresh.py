"""Refresh: reads what became of every resource, and makes that the state."""

from __future__ import annotations

from .executor import Executor
from .generator import Generator
from .graph import Graph
from .journal import Journal
from .reading import Refresh
from .state import Resource


def refresh(generator: Generator, executor: Executor, journal: Journal, only: bool) -> bool:
    """Reads all targeted resources side by side; False when one could not be read. What could be read counts in any
    case.
    """
    options = generator.options
    steps = []
    resources = generator.old_resources
    wanted = {id(r) for r in resources if not options.targets or r.urn in options.targets}
    if options.targets and options.target_dependents:
        graph = Graph(resources)
        wanted |= {id(d) for r in resources if id(r) in wanted for d in graph.dependents(r, children=True)}
    if options.excludes:
        wanted -= {id(r) for r in resources if r.urn in options.excludes}
    for resource in resources:
        if id(resource) in wanted:
            steps.append(Refresh(resource, resource, refresh_only=only))
    executor.all(steps)
    good = not executor.errored
    failed = {id(s) for s in executor.errored}
    after = {id(s.old): s.new for s in steps if id(s) not in failed}
    base = rebuild([after.get(id(r), r) for r in resources])
    generator.rebase(base)
    journal.rebase(base)
    return good


def rebuild(resources: list[Resource | None]) -> list[Resource]:
    """The state without what is gone: nothing refers to it any more. A property that depends on nothing is not
    listed.
    """
    left: list[Resource] = []
    there: set[str] = set()
    for resource in resources:
        if resource is None:
            continue
        resource = resource.copy()
        if resource.parent not in there:
            resource.parent = ""
        resource.dependencies = [d for d in resource.dependencies if d in there]
        by_property = {k: [d for d in deps if d in there] for k, deps in resource.property_dependencies.items()}
        resource.property_dependencies = {k: deps for k, deps in by_property.items() if deps}
        if resource.deleted_with not in there:
            resource.deleted_with = ""
        left.append(resource)
        there.add(resource.urn)
    return left
