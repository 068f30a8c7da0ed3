"""What the `aws` plugin's resource types have in common: clients, tags, live values, faults, EC2's error texts.

A resource is made in two steps: `make` calls the API that gives it an id, `finish` brings everything else about it to
what the inputs say. `finish` compares with the live resource, never with a record, so that an update is the same step
again, also after a create that was interrupted half-way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from botocore.exceptions import BotoCoreError, ClientError

from deployer.sandbox import faults
from deployer.sandbox.provider_base import Call, InitError, Live, OperationCancelled, ProviderError, Resource, Values
from deployer.sandbox.provider_values import UNKNOWN, Change, changes, has_unknown


@dataclass(frozen=True)
class AwsState:
    """A configured provider: where it works, as whom, with which tags."""

    region: str
    account: str
    default_tags: Mapping[str, str]
    client: Callable[[str, str], Any]  # (service, region) -> boto3 client


def gone(error: ClientError) -> bool:
    """Does the error say that the thing asked for does not exist?"""
    return str(error.response["Error"]["Code"]).endswith((".NotFound", "NotFoundException"))


def error_text(doing: str, error: ClientError) -> str:
    """A failed call in the words of the real provider (AWS SDK for Go v2), so that callers can classify it alike."""
    said = error.response["Error"]
    meta = error.response.get("ResponseMetadata", {})
    return (
        f"{doing}: operation error EC2: {error.operation_name}, https response error StatusCode:"
        f" {meta.get('HTTPStatusCode', 400)}, RequestID: {meta.get('RequestId', '-')}, api error"
        f" {said.get('Code')}: {said.get('Message')}"
    )


def tags_of(described: Mapping[str, Any]) -> dict[str, str]:
    listed = described.get("Tags") or described.get("TagSet") or []
    return {tag["Key"]: tag.get("Value", "") for tag in listed if not tag["Key"].startswith("aws:")}


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def project(wanted: Any, live: Any) -> Any:
    """`live` cut to the shape of `wanted`: of an object only the members that were asked for."""
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        return {key: project(value, live.get(key)) for key, value in wanted.items()}
    return live


class AwsResource(Resource):
    """A resource type of the `aws` package."""

    kind: ClassVar[str]  # as in the inventory: "ec2:vpc"
    label: ClassVar[str]  # as in the real provider's errors: "EC2 VPC"
    tag_type: ClassVar[str | None] = None  # EC2's resource type for tags on create; None: takes no tags
    outputs: ClassVar[tuple[str, ...]] = ()  # computed outputs besides the inputs
    optional: ClassVar[frozenset[str]] = frozenset()  # inputs that the API fills in where a program is silent
    not_read: ClassVar[frozenset[str]] = frozenset()  # inputs that no API tells; Read keeps what is recorded

    # -- what a type implements --------------------------------------------------------------------------------
    def make(self, call: Call, ec2: Any, inputs: Values, tags: list[dict[str, Any]]) -> str:
        """Calls the API that creates it; answers the id. `tags` is the call's TagSpecifications."""
        raise NotImplementedError

    def finish(self, call: Call, ec2: Any, resource_id: str, news: Values, live: Values, created: bool) -> None:
        """Brings the live resource to what `news` says, apart from its tags."""

    def describe(self, call: Call, ec2: Any, resource_id: str, state: Values) -> Values | None:
        """Its outputs (and `tagsAll`) as the API tells them now; None when it is gone."""
        raise NotImplementedError

    def remove(self, call: Call, ec2: Any, resource_id: str, state: Values) -> None:
        raise NotImplementedError

    def adopt(self, call: Call, ec2: Any, import_id: str) -> tuple[str, Values]:
        """The resource's id, and what of its state is needed to find it, for what a user typed on import."""
        return import_id, {}

    def taggable_id(self, resource_id: str, live: Values) -> str:
        return resource_id

    # -- the protocol's side -----------------------------------------------------------------------------------
    def __init__(self) -> None:
        self.computed = tuple(  # type: ignore[misc]  # the base declares it for types that list it themselves
            {*self.outputs, "region", *(("tagsAll",) if self.tag_type else ())}
        )

    def region(self, call: Call, values: Values) -> str:
        return str(values.get("region") or state_of(call).region)

    def ec2(self, call: Call, values: Values) -> Any:
        return state_of(call).client("ec2", self.region(call, values))

    def arn(self, call: Call, values: Values, path: str) -> str:
        return f"arn:aws:ec2:{self.region(call, values)}:{state_of(call).account}:{path}"

    def all_tags(self, call: Call, values: Values) -> Values:
        defaults = call.state.default_tags if call.state is not None else {}
        return {**defaults, **(values.get("tags") or {})}

    def tag_specifications(self, call: Call, values: Values, tag_type: str | None = None) -> list[dict[str, Any]]:
        tags = self.all_tags(call, values)
        return [{"ResourceType": tag_type or self.tag_type, "Tags": tag_list(tags)}] if tags else []

    def check(self, call: Call, news: Values, olds: Values) -> tuple[Values, list[tuple[str, str]]]:
        filled, failures = super().check(call, news, olds)
        for key, value in (filled.get("tags") or {}).items():
            if not isinstance(value, str):
                failures.append((f"tags.{key}", "expected a string"))
        return filled, failures

    def differences(self, call: Call, old_inputs: Values, news: Values, olds: Values) -> list[Change]:
        # What the API fills in is compared with what is recorded of it: a program that falls silent about it, or says
        # it for the first time (after an import, say), changes nothing by that.
        told = {
            name: project(news[name], olds[name])
            for name in self.optional
            if old_inputs.get(name) is None and news.get(name) is not None and name in olds
        }
        found = [
            change
            for change in changes({**old_inputs, **told}, news, sets=self.sets)
            if not (change.new is None and any(change.under(path) for path in self.optional))
        ]
        if call.state is None:
            return found
        if self.tag_type and "tagsAll" in olds and not has_unknown(news.get("tags")):
            found += list(changes(olds["tagsAll"], self.all_tags(call, news), "tagsAll"))
        if not any(change.top == "region" for change in found) and news.get("region") != UNKNOWN:
            wanted, had = self.region(call, news), olds.get("region")
            if had is not None and had != wanted:
                found.append(Change("region", had, wanted))
        return found

    def replaces(self, change: Change, old_inputs: Values, news: Values) -> bool:
        return change.top == "region" or super().replaces(change, old_inputs, news)

    def preview(self, call: Call, inputs: Values, olds: Values | None) -> Values:
        out = super().preview(call, inputs, olds)
        if call.state is not None:
            if self.tag_type and not has_unknown(inputs.get("tags")):
                out["tagsAll"] = self.all_tags(call, inputs)
            out["region"] = inputs.get("region") or call.state.region
        return out

    def create(self, call: Call, inputs: Values) -> tuple[str, Values]:
        if message := faults.book().failure(self.kind, self.token):
            raise ProviderError(f"creating {self.label} ({call.name}): {message}")
        ec2 = self.ec2(call, inputs)
        resource_id = self.make(call, ec2, inputs, self.tag_specifications(call, inputs) if self.tag_type else [])
        try:
            live = self.describe(call, ec2, resource_id, inputs) or {}
            self.finish(call, ec2, resource_id, inputs, live, True)
            call.wait(faults.book().delay(self.kind, self.token, f"create {self.kind}"))
        except (ClientError, BotoCoreError, ProviderError) as error:
            raise self.half_made(call, ec2, resource_id, inputs, error) from error
        return resource_id, self.told(call, ec2, resource_id, inputs)

    def half_made(self, call: Call, ec2: Any, resource_id: str, inputs: Values, error: Exception) -> InitError:
        doing = f"creating {self.label} ({resource_id})"
        if isinstance(error, ClientError):
            reason = error_text(doing, error)
        elif isinstance(error, OperationCancelled):
            reason = f"waiting for {self.label} ({resource_id}) create: context canceled"
        else:
            reason = f"{doing}: {error}"
        return InitError(resource_id, self.told(call, ec2, resource_id, inputs), reason)

    def told(self, call: Call, ec2: Any, resource_id: str, inputs: Values) -> Values:
        """The outputs after a create or update: the inputs, and over them what the API tells."""
        given = {key: value for key, value in inputs.items() if not key.startswith("__")}
        live = self.describe(call, ec2, resource_id, given)
        if live is None:
            raise ProviderError(f"reading {self.label} ({resource_id}): couldn't find resource")
        return {**given, **self._with_tags(call, live, given)}

    def _with_tags(self, call: Call, live: Values, given: Values) -> Values:
        out = {**live, "region": self.region(call, given)}
        for name in self.sets:  # the order of a set is the program's
            had, has = given.get(name), out.get(name)
            if isinstance(had, list) and isinstance(has, list) and sorted(had, key=repr) == sorted(has, key=repr):
                out[name] = had
        if self.tag_type:
            out["tags"] = self._own_tags(call, live.get("tagsAll") or {}, given.get("tags") or {})
        return out

    @staticmethod
    def _own_tags(call: Call, every: Mapping[str, str], given: Mapping[str, str]) -> Values:
        """The tags that are the resource's own: all but what the provider gives to everything."""
        defaults = state_of(call).default_tags
        return {key: value for key, value in every.items() if key in given or defaults.get(key) != value}

    def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Live | None:
        importing = not state
        ec2 = self.ec2(call, state or inputs)
        try:
            found_id, seed = self.adopt(call, ec2, resource_id) if importing else (resource_id, {})
            live = self.describe(call, ec2, found_id, {**seed, **inputs, **state})
        except ClientError as error:
            if gone(error):
                return None
            raise
        if live is None:
            return None
        given = {**state, **inputs}
        outputs = {**{key: state[key] for key in self.not_read if key in state}, **self._with_tags(call, live, given)}
        if importing:
            wanted = {
                key: outputs.get(key, self.defaults.get(key))
                for key in self.inputs - self.optional - {"region"}
                if key in self.defaults or _says_something(outputs.get(key))
            }
            return Live(outputs, self.imported(wanted, outputs), found_id)
        kept = {key: value for key, value in inputs.items() if key.startswith("__") or key in self.not_read}
        told = {
            key: project(value, outputs[key]) if key in outputs else value
            for key, value in inputs.items()
            if key not in kept
        }
        if self.tag_type and (outputs["tags"] or "tags" in inputs):
            told["tags"] = outputs["tags"]
        return Live({**state, **outputs}, {**kept, **told}, found_id)

    def imported(self, wanted: Values, outputs: Values) -> Values:
        """The inputs of an imported resource: what a program would write."""
        return wanted

    def update(self, call: Call, resource_id: str, olds: Values, news: Values, old_inputs: Values) -> Values:
        ec2 = self.ec2(call, news)
        live = self.describe(call, ec2, resource_id, {**olds, **news})
        if live is None:
            raise ProviderError(f"updating {self.label} ({resource_id}): couldn't find resource")
        try:
            self.finish(call, ec2, resource_id, news, live, False)
            if self.tag_type:
                self._settle_tags(ec2, self.taggable_id(resource_id, live), live["tagsAll"], self.all_tags(call, news))
            call.wait(faults.book().delay(self.kind, self.token))
        except OperationCancelled as error:
            raise InitError(
                resource_id,
                self.told(call, ec2, resource_id, news),
                f"waiting for {self.label} ({resource_id}) update: context canceled",
            ) from error
        return self.told(call, ec2, resource_id, news)

    @staticmethod
    def _settle_tags(ec2: Any, resource_id: str, live: Mapping[str, str], wanted: Mapping[str, str]) -> None:
        if stale := [key for key in live if key not in wanted]:
            ec2.delete_tags(Resources=[resource_id], Tags=[{"Key": key} for key in stale])
        if fresh := {key: value for key, value in wanted.items() if live.get(key) != value}:
            ec2.create_tags(Resources=[resource_id], Tags=tag_list(fresh))

    def delete(self, call: Call, resource_id: str, state: Values) -> None:
        try:
            self.remove(call, self.ec2(call, state), resource_id, state)
        except ClientError as error:
            if not gone(error):
                raise
        call.wait(faults.book().delay(self.kind, self.token))


def state_of(call: Call) -> AwsState:
    if call.state is None:
        raise ProviderError("the provider's configuration is not known yet")
    state: AwsState = call.state
    return state


def _says_something(value: Any) -> bool:
    return value not in (None, "", [], {}, False, 0)
