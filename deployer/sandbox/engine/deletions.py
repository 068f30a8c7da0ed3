"""What a deployment deletes at its end: resources that the program no longer has, and old halves of replacements."""

from __future__ import annotations

from collections.abc import Callable

from .generator import Generator, Options
from .state import Resource
from .steps import Delete, Forget, Same, Step

Tell = Callable[[str, str], None]  # urn, message: an error that is told


class Blocked(Exception):
    """The targets don't allow the deletion; what stands in the way has been told."""


def deletions(generator: Generator, tell: Tell) -> list[Step]:
    """The delete steps in the checkpoint's reverse order. Raises Blocked, and ProviderError of a provider that was
    asked.
    """
    steps: list[Step] = []
    options = generator.options
    for resource in reversed(generator.old_resources):
        if resource.delete:
            steps.append(Delete(resource, replacing=True))
        elif resource.urn not in generator.kept and resource.urn not in generator.identities.aliased:
            steps.append(Forget(resource) if resource.pending_replacement else Delete(resource))
    if options.targets:
        allowed = _allowed(generator, tell)
        steps = [s for s in steps if s.urn in allowed]
    elif options.excludes or options.exclude_protected:
        excluded = {u for r in generator.old_resources if _spared(r, options) for u in (r.urn, *_needed(generator, r))}
        steps = [s for s in steps if s.urn not in excluded]
    generator.world.deletes.update(s.urn for s in steps if not (isinstance(s, Delete) and s.replacing))
    return steps


def _spared(resource: Resource, options: Options) -> bool:
    return resource.urn in options.excludes or (options.exclude_protected and resource.protect)


def _needed(generator: Generator, resource: Resource) -> list[str]:
    wanted = generator.graph.all_needs(resource)
    return [r.urn for r in generator.old_resources if id(r) in wanted]


def _allowed(generator: Generator, tell: Tell) -> set[str]:
    """The URNs that the targets allow to be deleted, with their dependents where that was asked for."""
    options = generator.options
    targets = [r for r in generator.old_resources if r.urn in options.targets and not r.delete]
    found = {r.urn for r in targets}
    for target in targets:
        if target.urn in generator.kept:
            continue
        found.update(d.resource.urn for d in generator.forced_by(target, deleting=True))
    going = {u for u in found if u not in generator.kept}
    blocked = False
    for child in generator.old_resources:
        if child.parent in going and child.urn not in going and child.urn not in generator.kept:
            if options.target_dependents:
                found.add(child.urn)
                going.add(child.urn)
                continue
            blocked = True
            tell(
                child.parent,
                f"Cannot delete parent resource '{child.parent}' without also deleting child '{child.urn}'.",
            )
    if not options.target_dependents:
        for resource in generator.old_resources:
            if resource.urn in going and resource.urn not in options.targets:
                blocked = True
                tell(
                    resource.urn,
                    f"Resource '{resource.urn}' will be destroyed but was not specified in --target list.\n"
                    "Either include resource in --target list or pass --target-dependents to proceed.",
                )
    if blocked:
        raise Blocked
    return found


def untouched(generator: Generator, steps: list[Step]) -> list[Step]:
    """In a targeted destroy: the resources that stay, which the events name as the same."""
    going = {id(s.resource) for s in steps}
    stays = [r for r in generator.old_resources if id(r) not in going and not r.delete]
    return [Same(r, r.copy()) for r in stays]
