"""The last phase of a deployment: deleting what the program no longer has."""

from __future__ import annotations

from .deletions import Blocked, deletions, untouched
from .events import Stream
from .executor import Executor
from .generator import Generator
from .graph import delete_layers
from .journal import Journal
from .problems import ProviderError, Refused


def delete_unseen(
    generator: Generator, executor: Executor, journal: Journal, events: Stream, lost: set[str], *, keep_program: bool
) -> bool:
    """Deletes layer by layer, dependents first; False when the deletions could not be decided.

    Without a program (`keep_program` false) everything goes, and the events name what a targeted destroy leaves alone.
    A resource that can't be deleted spares what it needs, and so does one that was to be changed and is as it was
    (`lost`, by URN).
    """
    generator.rebase(journal.base)
    try:
        steps = deletions(generator, lambda urn, message: events.diagnostic("error", message, urn))
        for step in steps:
            generator.plan.check_step(step)
    except Blocked:
        generator.failed = True
        return True
    except (ProviderError, Refused) as error:
        events.diagnostic("error", str(error), error.urn if isinstance(error, Refused) else "")
        return False
    if not keep_program and generator.options.targets:
        for step in untouched(generator, steps):
            executor.all([step])
    by_resource = {id(s.resource): s for s in steps}
    graph = generator.graph
    names = generator.identities.aliased
    spared: set[int] = set()
    for resource in generator.old_resources:
        if names.get(resource.urn, resource.urn) in lost:
            spared |= graph.all_needs(resource)
    for layer in delete_layers(graph, [s.resource for s in steps]):
        if executor.stopped:
            break
        for failed in executor.errored:
            spared |= graph.all_needs(failed.resource)
        executor.all(by_resource[id(r)] for r in layer if id(r) not in spared)
    unseen = generator.plan.unseen()
    for urn in unseen:
        events.diagnostic("error", f"expected resource operations for {urn} but none were seen", urn)
    return not unseen
