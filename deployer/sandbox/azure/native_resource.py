"""One type of the `azure-native` package: checks, differences and operations, with ARM behind them."""

from __future__ import annotations

import random
import secrets
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

import requests

from deployer.sandbox.azure.arm_client import ArmClient
from deployer.sandbox.azure.flat import from_rest, previewed, project, to_rest
from deployer.sandbox.azure.native_types import NativeType
from deployer.sandbox.provider_resource import Call, InitError, Live, ProviderError, Resource, Values
from deployer.sandbox.provider_values import UNKNOWN, Change, changes, has_unknown

CREATE_FIRST = (
    "__createBeforeDelete"  # set beside a random name: such a resource is replaced by making the new one first
)
_KEPT_IN_PREVIEW = ("name", "location")


class NativeResource(Resource):
    """One type of the package. All the cloud's knowledge is ARM's; this converts, waits, and keeps Pulumi's customs."""

    definition: ClassVar[NativeType]

    # -- before the operation ----------------------------------------------------------------------------------
    def check(self, call: Call, news: Values, olds: Values) -> tuple[Values, list[tuple[str, str]]]:
        it = self.definition
        filled = {key: value for key, value in news.items() if value is not None and not key.startswith("__")}
        if filled.get(it.name_input) is None:
            self._name(call, filled, olds)
        if it.located and filled.get("location") is None and (place := self._location(call, filled, olds)):
            filled["location"] = place
        filled.setdefault("azureApiVersion", it.version)
        failures = [
            (name, f"missing required property '{name}'")
            for name in (*it.path[:-1], *it.required)
            if filled.get(name) is None
        ]
        if it.located and filled.get("location") is None:
            failures.append(
                (
                    "location",
                    "missing required property 'location'. Either set it explicitly or configure it with 'pulumi config"
                    " set azure-native:location <value>'.",
                )
            )
        failures += [
            (name, f"the sandbox does not know the property '{name}' of {it.token}")
            for name in filled
            if name not in it.inputs and not name.startswith("__")
        ]
        return filled, failures

    def _name(self, call: Call, filled: Values, olds: Values) -> None:
        it = self.definition
        if olds.get(it.name_input):
            filled[it.name_input] = olds[it.name_input]
            if CREATE_FIRST in olds:
                filled[CREATE_FIRST] = olds[CREATE_FIRST]
        elif it.nested:
            filled[it.name_input] = call.name
        else:
            random_name = _random_uuid(call.seed) if it.named_by_uuid else call.name + _random_suffix(call.seed)
            filled[it.name_input] = random_name
            filled[CREATE_FIRST] = True

    def _location(self, call: Call, filled: Values, olds: Values) -> str | None:
        """The location that was, that of the provider's configuration, or that of the resource group."""
        for place in (olds.get("location"), call.session.config.get("location")):
            if place:
                return str(place)
        group = filled.get("resourceGroupName")
        if group is None or self.definition.model == "ResourceGroup":
            return None
        if has_unknown(group):
            return UNKNOWN
        client = client_of(call)
        path = f"/subscriptions/{client.identity.subscription_id}/resourceGroups/{group}"
        found = client.get(path, "2024-03-01", call.wait)
        return str(found["location"]) if found else None

    def differences(self, call: Call, old_inputs: Values, news: Values, olds: Values) -> list[Change]:
        if "azureApiVersion" not in old_inputs:
            old_inputs = {**old_inputs, "azureApiVersion": news.get("azureApiVersion")}
        known = self.definition.inputs
        return list(changes({k: v for k, v in old_inputs.items() if k in known}, news))

    def replaces(self, change: Change, old_inputs: Values, news: Values) -> bool:
        return change.top in self.definition.replacing

    def deletes_first(self, old_inputs: Values, news: Values) -> bool:
        return not old_inputs.get(CREATE_FIRST)

    def preview(self, call: Call, inputs: Values, olds: Values | None) -> Values:
        it = self.definition
        known = dict.fromkeys(it.outputs, UNKNOWN)
        given = previewed(it.space, it.kind, inputs)
        kept = {key: olds[key] for key in _KEPT_IN_PREVIEW if olds and key in olds}
        return {**known, **given, **kept}

    # -- the operation -----------------------------------------------------------------------------------------
    def create(self, call: Call, inputs: Values) -> tuple[str, Values]:
        it, client = self.definition, client_of(call)
        path = it.id(client.identity.subscription_id, inputs)
        if client.get(path, it.version, call.wait) is not None:
            raise ProviderError(f"cannot create already existing resource '{path}'")
        found = self._put(call, client, path, inputs)
        return str(found["id"]), self._outputs(found)

    def update(self, call: Call, resource_id: str, olds: Values, news: Values, old_inputs: Values) -> Values:
        client = client_of(call)
        return self._outputs(self._put(call, client, resource_id, news))

    def _put(self, call: Call, client: ArmClient, path: str, inputs: Values) -> Values:
        """Sends the body and waits. Once ARM has accepted it, every failure is 'made, but not initialised'."""
        it = self.definition
        body = to_rest(it.space, it.kind, {k: v for k, v in inputs.items() if k not in (*it.path, "azureApiVersion")})
        body = {key: value for key, value in body.items() if not key.startswith("__")}
        unset = [name for name in it.children if inputs.get(name) is None]
        if unset and (existing := client.get(path, it.version, call.wait)):
            # A list that other resources fill must survive an update that says nothing of it.
            kept = {name: existing["properties"][name] for name in unset if existing["properties"].get(name)}
            body["properties"] = {**kept, **body.get("properties", {})}
        _, finish = client.put(path, it.version, body, call.wait)
        try:
            return finish()
        except (ProviderError, requests.RequestException) as error:
            reason = str(error)
        live = client.get(path, it.version, _at_once)
        if live is None:
            raise ProviderError(reason)
        raise InitError(str(live["id"]), self._outputs(live), reason)

    def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Live | None:
        it, client = self.definition, client_of(call)
        try:
            named = it.path_inputs(resource_id)
        except ValueError as error:
            raise ProviderError(str(error)) from None
        found = client.get(resource_id, it.version, call.wait)
        if found is None:
            return None
        outputs = self._outputs(found)
        if not inputs:
            fresh = _without_empty(from_rest(it.space, it.kind, found, inputs_only=True))
            fresh.pop("id", None)
            return Live(outputs, {**fresh, **named, "azureApiVersion": it.version}, str(found["id"]))
        # What differs between the outputs then and now is what changed in the cloud; only that goes into the inputs.
        # A list that other resources fill is theirs, unless the inputs speak of it.
        foreign = {name for name in it.children if name not in inputs}
        before = {k: v for k, v in project(it.space, it.kind, state).items() if k not in foreign}
        after = {k: v for k, v in project(it.space, it.kind, outputs).items() if k not in foreign}
        return Live(outputs, _patched(inputs, before, after), str(found["id"]))

    def delete(self, call: Call, resource_id: str, state: Values) -> None:
        client_of(call).delete(resource_id, self.definition.version, call.wait)

    def _outputs(self, found: Values) -> Values:
        it = self.definition
        flat: Values = from_rest(it.space, it.kind, found)
        flat.pop("id", None)
        return {**flat, "azureApiVersion": it.version}


def _at_once(_seconds: float) -> None:
    """The wait of a request after the operation's end: none."""
    raise ProviderError("Azure is busy")


def _patched(inputs: Any, before: Any, after: Any) -> Any:
    """`inputs` with the changes between `before` and `after` made in it, object by object."""
    if before == after:
        return inputs
    if not (isinstance(inputs, Mapping) and isinstance(before, Mapping) and isinstance(after, Mapping)):
        return after
    out = dict(inputs)
    for key in {*before, *after}:
        if before.get(key) == after.get(key):
            continue
        if key not in after:
            out.pop(key, None)
        elif key in out and key in before:
            out[key] = _patched(out[key], before[key], after[key])
        else:
            out[key] = after[key]
    return out


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in (None, {}, [])}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value


def _random_suffix(seed: bytes) -> str:
    """Eight hexadecimal digits; the same for the same seed, so that an update names what its preview named."""
    if not seed:
        return secrets.token_hex(4)
    return f"{random.Random(seed).getrandbits(32):08x}"  # noqa: S311 - a name, not a secret


def _random_uuid(seed: bytes) -> str:
    """A UUID, as random as `_random_suffix`."""
    bits = random.Random(seed).getrandbits(128) if seed else secrets.randbits(128)  # noqa: S311 - a name, not a secret
    return str(uuid.UUID(int=bits, version=4))


def client_of(call: Call) -> ArmClient:
    """The client of the provider that a call came to. Raises ProviderError where it is not configured."""
    if not isinstance(call.state, ArmClient):
        raise ProviderError("the azure-native provider is not configured: its subscription or tenant is not known yet")
    return call.state
