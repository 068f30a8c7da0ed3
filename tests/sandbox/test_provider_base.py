"""The base of both provider plugins: values on the wire, differences, and what it makes of a resource's errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any, ClassVar

import grpc
import pytest
from google.protobuf import empty_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc, status_pb2

from deployer.sandbox.provider_base import Call, InitError, Live, ProviderError, ProviderPlugin, Resource, decode_config
from deployer.sandbox.provider_resource import Values
from deployer.sandbox.provider_values import (
    UNKNOWN,
    changes,
    from_struct,
    get_path,
    has_unknown,
    mark_like,
    plain,
    secret,
    to_struct,
)

leaves = st.one_of(
    st.booleans(), st.integers(-(2**53), 2**53), st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=4), inner, max_size=3),
    max_leaves=12,
)
properties = st.dictionaries(st.text(min_size=1, max_size=6), values, max_size=4)


@settings(max_examples=80, deadline=None)
@given(properties)
def test_properties_survive_the_wire(given_: Values) -> None:
    assert from_struct(to_struct(given_)) == given_


def test_whole_numbers_are_integers_and_nulls_are_absent() -> None:
    out = from_struct(to_struct({"a": 3.0, "b": 2.5, "c": None, "d": {"e": None, "f": [1, None]}}))
    assert out == {"a": 3, "b": 2.5, "d": {"f": [1, None]}}
    assert isinstance(out["a"], int)


@settings(max_examples=80, deadline=None)
@given(properties)
def test_what_went_in_as_a_secret_comes_out_as_one(given_: Values) -> None:
    template = {key: secret(value) for key, value in given_.items()}
    marked = mark_like(template, given_)
    assert marked == template
    assert plain(marked) == plain(given_)


def test_secrets_are_marked_where_they_were() -> None:
    template = {"disk": {"key": secret("x"), "size": 1}, "list": [secret("a"), "b"], "more": [secret("a")]}
    live = {"disk": {"key": "y", "size": 2, "new": 3}, "list": ["c", "d"], "more": ["a", "b"], "other": 1}
    assert mark_like(template, live) == {
        "disk": {"key": secret("y"), "size": 2, "new": 3},
        "list": [secret("c"), "d"],
        "more": secret(["a", "b"]),  # another length: which one was it? all of it
        "other": 1,
    }


@settings(max_examples=80, deadline=None)
@given(properties)
def test_nothing_differs_from_itself(given_: Values) -> None:
    assert list(changes(given_, given_)) == []


def test_differences_are_the_deepest_places_in_pulumis_notation() -> None:
    old = {"a": {"b": 1, "c": [1, 2]}, "tags": {"x:y": "1", "gone": "1"}, "same": {}, "set": [1, 2], "__defaults": []}
    new = {"a": {"b": 2, "c": [1, 3, 4]}, "tags": {"x:y": "2"}, "set": [2, 1], "__defaults": ["a"], "n": None}
    found = {change.path: (change.old, change.new) for change in changes(old, new, sets=frozenset({"set"}))}
    assert found == {
        "a.b": (1, 2),
        "a.c[1]": (2, 3),
        "a.c[2]": (None, 4),
        'tags["x:y"]': ("1", "2"),
        "tags.gone": ("1", None),
    }
    (quoted,) = changes({"tags": {"a": 1}}, {"tags": {"a": 1, 'q"': 1}})
    assert (quoted.path, quoted.top) == ('tags["q\\""]', "tags")


def test_paths_and_unknowns() -> None:
    assert get_path({"a": {"b": {"c": 1}}}, "a.b.c") == 1
    assert get_path({"a": 1}, "a.b") is None
    assert has_unknown({"a": [{"b": UNKNOWN}]})
    assert not has_unknown({"a": ["x"]})


def test_a_configuration_gets_its_types_back() -> None:
    decoded = decode_config({"list": '["a"]', "map": '{"tags": {"a": "b"}}', "flag": "true", "name": "eu-west-1"})
    assert decoded == {"list": ["a"], "map": {"tags": {"a": "b"}}, "flag": True, "name": "eu-west-1"}
    assert decode_config({"odd": "[not json", "n": "5"}) == {"odd": "[not json", "n": "5"}


# -- a plugin with one resource type -----------------------------------------------------------------------------
class Thing(Resource):
    token = "test:index:Thing"
    inputs = frozenset({"name", "size", "zone", "password", "disk"})
    required = ("size",)
    defaults: ClassVar[Values] = {"zone": "a"}
    computed = ("address",)
    replace_on = frozenset({"zone", "disk.kind"})
    autoname = "name"

    def create(self, call: Call, inputs: Values) -> tuple[str, Values]:
        outputs = {key: value for key, value in inputs.items() if key != "__defaults"}
        match inputs["size"]:
            case 13:
                raise ProviderError("thirteen is unlucky")
            case 14:
                raise InitError("thing-14", {**outputs, "address": "half"}, "made, but not ready")
            case 15:
                raise RuntimeError("a bug")
            case 16:
                call.wait(60)
        return f"thing-{inputs['name']}", {**outputs, "address": "10.0.0.1"}

    def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Live | None:
        return Live(state, inputs) if resource_id != "gone" else None

    def update(self, call: Call, resource_id: str, olds: Values, news: Values, old_inputs: Values) -> Values:
        return {**olds, **news}

    def delete(self, call: Call, resource_id: str, state: Values) -> None:
        return None


class Plugin(ProviderPlugin):
    package, version = "test", "1.0.0"

    def explain(self, error: Exception, call: Call, verb: str) -> str | None:
        return f"{verb} of {call.name}: {error}" if isinstance(error, LookupError) else None


@pytest.fixture
def stub() -> Iterator[Any]:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    plugin = Plugin([Thing()], {"test:index:echo": lambda call, args: {"said": args.get("word")}})
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(plugin, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield provider_pb2_grpc.ResourceProviderStub(channel)
    server.stop(0).wait()


def ask(**more: Any) -> dict[str, Any]:
    return {"urn": f"urn:pulumi:dev::p::{Thing.token}::x", "name": "x", "type": Thing.token, **more}


def create(stub: Any, preview: bool = False, **inputs: Any) -> Any:
    checked = stub.Check(provider_pb2.CheckRequest(**ask(news=to_struct(inputs), randomSeed=b"seed")))
    assert not checked.failures
    return stub.Create(provider_pb2.CreateRequest(**ask(properties=checked.inputs, preview=preview)))


def test_a_made_up_name_is_the_same_in_preview_and_update_and_is_kept(stub: Any) -> None:
    def check(news: Values, olds: Values) -> Values:
        request = provider_pb2.CheckRequest(**ask(news=to_struct(news), olds=to_struct(olds), randomSeed=b"seed"))
        return from_struct(stub.Check(request).inputs)

    first = check({"size": 1}, {})
    assert first == check({"size": 1}, {})
    assert first["name"].startswith("x-")
    assert len(first["name"]) == len("x-") + 7
    assert first["__defaults"] == ["name", "zone"]
    assert check({"size": 2}, {**first, "name": "x-kept"})["name"] == "x-kept"
    assert check({"size": 2, "name": "mine"}, first)["name"] == "mine"
    assert check({"size": 2}, {"name": "mine", "__defaults": []})["name"] == first["name"]


def test_an_unknown_property_and_a_missing_one_fail_the_check(stub: Any) -> None:
    answer = stub.Check(provider_pb2.CheckRequest(**ask(news=to_struct({"sice": 1}))))
    assert {(f.property, f.reason) for f in answer.failures} == {
        ("size", "Missing required property 'size'"),
        ("sice", "the sandbox does not emulate the property 'sice' of test:index:Thing"),
    }


def test_previews_answer_unknowns_and_secrets_stay_secret(stub: Any) -> None:
    out = from_struct(create(stub, preview=True, size=1, password=secret("p")).properties)
    assert out["address"] == UNKNOWN
    assert out["password"] == secret("p")
    assert "__defaults" not in out
    made = create(stub, size=1, password=secret("p"))
    assert from_struct(made.properties)["password"] == secret("p")


def test_detailed_differences(stub: Any) -> None:
    old = {"name": "n", "size": 1, "zone": "a", "disk": {"kind": "k", "size": 1}, "__defaults": []}
    new = {"name": "n", "size": 2, "zone": "a", "disk": {"kind": "l"}, "password": "p", "__defaults": []}
    request = ask(id="i", olds=to_struct(old), old_inputs=to_struct(old), news=to_struct(new))
    answer = stub.Diff(provider_pb2.DiffRequest(**request))
    kind = provider_pb2.PropertyDiff
    assert {path: detail.kind for path, detail in answer.detailedDiff.items()} == {
        "size": kind.UPDATE,
        "disk.kind": kind.UPDATE_REPLACE,
        "disk.size": kind.DELETE,
        "password": kind.ADD,
    }
    assert (sorted(answer.diffs), list(answer.replaces)) == (["disk", "password", "size"], ["disk"])
    assert answer.deleteBeforeReplace  # the given name would be taken
    assert answer.hasDetailedDiff
    ignoring = stub.Diff(provider_pb2.DiffRequest(**request, ignoreChanges=["disk", "password", "size"]))
    assert ignoring.changes == ignoring.DIFF_NONE


def test_errors_are_one_text_each(stub: Any, caplog: pytest.LogCaptureFixture) -> None:
    for size, text in ((13, "thirteen is unlucky"), (15, "RuntimeError: a bug")):
        with pytest.raises(grpc.RpcError) as caught:
            create(stub, size=size)
        assert caught.value.details() == text  # type: ignore[attr-defined]
    assert "Traceback" in caplog.text  # a bug's is in the log


def test_created_but_not_initialised_carries_the_resource(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        create(stub, size=14, password=secret("p"))
    metadata = dict(caught.value.trailing_metadata())  # type: ignore[attr-defined]
    detail = provider_pb2.ErrorResourceInitFailed()
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    assert status.details[0].Unpack(detail)
    assert (detail.id, list(detail.reasons)) == ("thing-14", ["made, but not ready"])
    assert from_struct(detail.properties)["address"] == "half"
    assert from_struct(detail.properties)["password"] == secret("p")
    assert from_struct(detail.inputs)["size"] == 14


def test_cancel_ends_a_wait_and_the_next_command_starts_afresh(stub: Any) -> None:
    seen: list[str] = []

    def wait() -> None:
        try:
            create(stub, size=16)
        except grpc.RpcError as error:
            seen.append(error.details())  # type: ignore[attr-defined]

    stub.Handshake(provider_pb2.ProviderHandshakeRequest())
    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    stub.Cancel(empty_pb2.Empty())
    thread.join(60)
    assert seen == ["the operation was cancelled"]
    stub.Handshake(provider_pb2.ProviderHandshakeRequest())
    assert create(stub, size=1).id.startswith("thing-x-")


def test_a_time_out_ends_a_wait(stub: Any) -> None:
    checked = stub.Check(provider_pb2.CheckRequest(**ask(news=to_struct({"size": 16}))))
    with pytest.raises(grpc.RpcError, match=r"timeout: not done after 0\.2 s"):
        stub.Create(provider_pb2.CreateRequest(**ask(properties=checked.inputs, timeout=0.2)))


def test_read_invoke_and_what_is_unknown(stub: Any) -> None:
    gone = stub.Read(provider_pb2.ReadRequest(**ask(id="gone")))
    assert gone.id == ""
    answer = stub.Invoke(provider_pb2.InvokeRequest(tok="test:index:echo", args=to_struct({"word": "hello"})))
    assert from_struct(getattr(answer, "return")) == {"said": "hello"}
    with pytest.raises(grpc.RpcError, match="does not emulate the function test:index:other"):
        stub.Invoke(provider_pb2.InvokeRequest(tok="test:index:other"))
    with pytest.raises(grpc.RpcError, match="does not emulate resources of type test:index:Other"):
        stub.Create(provider_pb2.CreateRequest(**{**ask(), "type": "test:index:Other"}))
    assert stub.GetPluginInfo(empty_pb2.Empty()).version == "1.0.0"
