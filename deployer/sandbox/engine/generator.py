"""From what a program asks for to the steps that bring it about: the decisions of a deployment.

A registration is first `prepare`d (identity, inputs checked by the provider); where an old state must be compared,
the provider's diff is asked for outside (it may take time), and `decide` makes the steps from the answer. All of it
runs on the deployment's own thread, so that nothing here needs a lock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from . import changes, paths, urns
from .changes import Dependent
from .difference import Diff
from .goal import Goal, Registration
from .graph import Graph
from .identity import Identities
from .plan import Plan
from .problems import Refused
from .provider import Failures
from .reading import Import, Read
from .state import Resource
from .steps import Create, Delete, Replace, Same, Step, Update, World
from .targets import Urns
from .values import Properties, plain

Answer = Callable[[Step], None]


@dataclass
class Options:
    targets: Urns = field(default_factory=Urns)
    excludes: Urns = field(default_factory=Urns)
    replaces: Urns = field(default_factory=Urns)
    target_dependents: bool = False
    exclude_dependents: bool = False
    exclude_protected: bool = False


@dataclass
class Prepared:
    """A registration whose inputs are checked, with the old state that it must be compared with."""

    registration: Registration
    new: Resource
    old: Resource
    answer: Answer
    imported: bool = False


class Generator:
    def __init__(
        self, stack: str, project: str, olds: list[Resource], world: World, options: Options, plan: Plan
    ) -> None:
        self.world, self.options, self.plan = world, options, plan
        self.failed = False  # an error was told that does not stop a preview
        self.kept: set[str] = set()  # URNs that this deployment keeps: same, updated, replaced, read
        self.deleted: dict[str, list[str]] = {}  # deleted already, to be made again: URN -> the keys that forced it
        self.identities = Identities(stack, project)
        self.skipped: set[str] = set()
        self.rebase(olds)

    def rebase(self, olds: list[Resource]) -> None:
        self.old_resources = olds
        self.identities.olds = {r.urn: r for r in olds if not r.delete}
        self.graph = Graph(olds)

    # -- registrations -----------------------------------------------------------------------------------------------
    def prepare(self, registration: Registration, answer: Answer) -> list[Step] | Prepared:
        """The steps at once, or what needs a diff first. Raises Refused and ProviderError."""
        goal = registration.goal
        old, new = self.identities.take(goal)
        urn = new.urn
        if goal.read_id:
            return [self._read(old, new, goal, answer)]
        recreating = urn in self.deleted
        inputs = dict(goal.properties)
        if old is not None and not recreating:
            for path in goal.ignore_changes:
                inputs = paths.reset(inputs, old.inputs, path)
        new.inputs = inputs
        if self._is_import(goal, old):
            new.id = goal.import_id
            return self._import(old, new, recreating, answer)
        if not self._targeted(new):
            return [self._leave(old, new, answer)]
        self._refuse_skipped(new)
        afresh = recreating or old is None or old.external or urn in self.options.replaces
        if goal.custom:
            olds = {} if afresh or old is None else old.inputs
            new.inputs = self._check(new, olds, goal.properties if afresh else inputs)
        self.plan.check_goal(new, old)
        if recreating:
            keys = self.deleted.pop(urn)
            self.kept.add(urn)
            return [Replace(old, new), Create(old, new, Diff(replace_keys=keys), answer, replacing=True)]
        if old is None:
            self.kept.add(urn)
            return [Create(None, new, answer=answer)]
        if old.external:
            self.kept.add(urn)
            return [Create(old, new, answer=answer, replacing=True, retire=True), Replace(old, new, retire=True)]
        return Prepared(registration, new, old, answer)

    def diff(self, prepared: Prepared) -> Diff:
        """Asks the provider how old and new differ. May run on any thread."""
        old, new = prepared.old, prepared.new
        if new.urn in self.options.replaces and not prepared.imported:
            return Diff(changes=True, replace_keys=["id"])
        if self._provider_changed(old, new):
            return Diff(changes=True, replace_keys=["provider"])
        if urns.is_provider_type(new.type):
            return self.world.registry.diff(old, new)
        if not new.custom:
            return Diff(changes=bool(changes.differ(old.inputs, new.inputs)))
        ignore = prepared.registration.goal.ignore_changes
        diff = self.world.provider(new).diff(new.urn, old.id, old.inputs, old.outputs, new.inputs, ignore)
        if diff.changes is None:
            diff.changes = bool(changes.differ(old.inputs, new.inputs))
        return diff

    def decide(self, prepared: Prepared, diff: Diff) -> list[Step]:
        """The steps for a resource that has an old state."""
        old, new, goal, answer = prepared.old, prepared.new, prepared.registration.goal, prepared.answer
        diff = changes.force_replacement(diff, goal.replace_on_changes, bool(old.init_errors))
        self.kept.add(new.urn)
        if (diff.changes and diff.replaces) or old.pending_replacement:
            return self._replace(prepared, diff)
        if diff.changes or old.init_errors:
            return [Update(old, new, diff, answer)]
        if prepared.imported:
            return []
        return [Same(old, new, answer=answer)]

    # -- parts -------------------------------------------------------------------------------------------------------
    @staticmethod
    def _is_import(goal: Goal, old: Resource | None) -> bool:
        if not (goal.custom and goal.import_id):
            return False
        return old is None or old.external or (old.import_id or old.id) != goal.import_id

    def _import(self, old: Resource | None, new: Resource, recreating: bool, answer: Answer) -> list[Step]:
        self.kept.add(new.urn)
        if old is not None and not recreating:
            if old.protect:
                raise Refused(_protected(new.urn), new.urn)
            return [Import(old, new, answer=answer, retire=True), Replace(old, new, retire=True)]
        return [Import(None, new, answer=answer)]

    def _read(self, old: Resource | None, new: Resource, goal: Goal, answer: Answer) -> Step:
        new.id, new.inputs, new.external = goal.read_id, dict(goal.properties), True
        self.kept.add(new.urn)
        replacing = old is not None and not old.external
        return Read(old, new, answer=answer, replacing=replacing)

    def _check(self, new: Resource, olds: Properties, news: Properties) -> Properties:
        if urns.is_provider_type(new.type):
            inputs, failures = self.world.registry.check(new.urn, olds, news)
        else:
            inputs, failures = self.world.provider(new).check(new.urn, olds, news)
        if failures:
            raise Refused(_failures(new, news, failures), new.urn)
        return inputs

    def check_imported(self, old: Resource, goal: Goal) -> Properties:
        """The program's inputs for a resource that was just imported, checked against what it is."""
        news = dict(goal.properties)
        for path in goal.ignore_changes:
            news = paths.reset(news, old.inputs, path)
        return self._check(old, old.inputs, news)

    def _targeted(self, new: Resource) -> bool:
        if new.type == urns.STACK_TYPE or urns.is_provider_type(new.type):
            return True
        options = self.options
        if options.targets:
            if new.urn in options.targets:
                return True
            if options.target_dependents and any(n in options.targets for n in new.needs()):
                options.targets.add(new.urn)
                return True
            return False
        if new.urn in options.excludes:
            return False
        if options.exclude_dependents and any(n in options.excludes for n in new.needs()):
            options.excludes.add(new.urn)
            return False
        return True

    def _leave(self, old: Resource | None, new: Resource, answer: Answer) -> Step:
        """A resource that a targeted update does not touch: as it was, or not made."""
        self.kept.add(new.urn)
        if old is None:
            self.skipped.add(new.urn)
            return Same(None, new, answer=answer, skipped=True)
        left = old.copy()
        left.urn, left.parent = new.urn, new.parent
        return Same(old, left, answer=answer)

    def _refuse_skipped(self, new: Resource) -> None:
        if new.custom and (missing := sorted(new.needs() & self.skipped)):
            raise Refused(
                f"Resource '{new.urn}' depends on '{missing[0]}' which was not specified in --target list.", new.urn
            )

    def _provider_changed(self, old: Resource, new: Resource) -> bool:
        if old.provider == new.provider or not new.custom or not old.provider:
            return False
        (old_urn, old_id), (new_urn, new_id) = urns.split_reference(old.provider), urns.split_reference(new.provider)
        if self.identities.aliased.get(old_urn, old_urn) == new_urn and old_id == new_id:
            return False
        # From one default provider to another (a new version of the SDK) nothing need be replaced.
        return not (urns.is_default_provider(old_urn) and urns.is_default_provider(new_urn))

    def _replace(self, prepared: Prepared, diff: Diff) -> list[Step]:
        old, new, goal, answer = prepared.old, prepared.new, prepared.registration.goal, prepared.answer
        if old.protect:
            raise Refused(_protected(new.urn), new.urn)
        if goal.import_id:
            raise Refused(
                "previously-imported resources that still specify an ID may not be replaced; "
                "please remove the `import` declaration from your program",
                new.urn,
            )
        if new.custom and new.urn not in self.options.replaces:
            new.inputs = self._check(new, {}, goal.properties)
        shown = Diff(True, diff.replace_keys, diff.changed_keys, [], diff.detailed)
        before = diff.delete_before_replace if goal.delete_before_replace is None else goal.delete_before_replace
        if old.pending_replacement:  # deleted by a run that did not come to its end
            return [Replace(old, new, shown), Create(old, new, shown, answer, replacing=True)]
        if not before:
            create = Create(old, new, shown, answer, replacing=True, retire=True)
            return [create, Replace(old, new, shown, retire=True)]
        steps: list[Step] = []
        for dependent in reversed(self.forced_by(old)):
            resource = dependent.resource
            if resource.urn in self.deleted or resource.urn in self.kept or resource.pending_replacement:
                continue  # deleted already, or no longer a dependent: its new state has been registered without
            if resource.protect:
                raise Refused(_protected(resource.urn), resource.urn)
            self.deleted[resource.urn] = dependent.keys
            steps.append(self._condemn(resource))
        return [
            *steps,
            self._condemn(old),
            Replace(old, new, shown),
            Create(old, new, shown, answer, replacing=True),
        ]

    def _condemn(self, resource: Resource) -> Delete:
        self.world.deletes.add(resource.urn)
        return Delete(resource, replacing=True, awaited=True)

    def forced_by(self, root: Resource, *, deleting: bool = False) -> list[Dependent]:
        """The dependents that must be replaced because `root` is deleted before its replacement is made, in order."""
        return changes.dependents(self.graph, root, self._ask, deleting=deleting)

    def _ask(self, resource: Resource, inputs: Properties) -> Diff:
        return self.world.provider(resource).diff(
            resource.urn, resource.id, resource.inputs, resource.outputs, inputs, []
        )


def _protected(urn: str) -> str:
    return (
        f'unable to replace resource "{urn}"\nas it is currently marked for protection. To unprotect the resource, '
        "remove the `protect` flag from the resource in your Pulumi program and run `pulumi up`"
    )


def _failures(new: Resource, news: Properties, failures: Failures) -> str:
    lines = []
    for property_, reason in failures:
        what = f"{new.type} resource '{urns.name_of(new.urn)}'"
        if property_:
            value = plain(news.get(property_.split(".")[0].split("[")[0]))
            lines.append(f"{what}: property {property_} value {{{_shown(value)}}} has a problem: {reason}")
        else:
            lines.append(f"{what} has a problem: {reason}")
    return "\n".join(lines)


def _shown(value: object) -> str:
    return "<nil>" if value is None else str(value)
