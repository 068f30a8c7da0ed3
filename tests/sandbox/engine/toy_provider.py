"""A tiny Pulumi provider, package `toy`, whose behaviour a test dictates: it stands where a cloud would stand.

Run: `python toy_provider.py WORLD_DIR` prints its port on a line of its own and serves until it is ended.
The engine attaches to it when PULUMI_DEBUG_PROVIDERS=toy:PORT.

WORLD_DIR/control.json   what to do wrong: {"fail_create": {NAME: MESSAGE}, "fail_update": {...}, "fail_delete": {...},
                         "fail_read": {...}, "partial_create": {NAME: REASON}, "delay": {NAME: SECONDS},
                         "fail_invoke": MESSAGE, "fail_configure": MESSAGE}
WORLD_DIR/things.json    the live resources, id -> properties; a test may change or remove one (drift)
WORLD_DIR/calls.jsonl    every call, in the order of arrival

Resource `toy:index:Thing`: `size` updates in place, `zone` replaces (created first), `slot` replaces (deleted first),
`password` is a secret output, `address` is computed. A negative size fails the check. Function `toy:index:lookup`.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import any_pb2, empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

REPLACING = {"zone": False, "slot": True}  # property -> delete before replace
SECRET = "4dabf18193072939515e22adb298388d"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def _plain(value: Any) -> Any:
    """A property value without its secret wrapping."""
    if isinstance(value, dict):
        return _plain(value["value"]) if SECRET in value else {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def _struct(values: dict[str, Any]) -> struct_pb2.Struct:
    out = struct_pb2.Struct()
    out.update(values)
    return out


class Toy(provider_pb2_grpc.ResourceProviderServicer):
    def __init__(self, world: Path) -> None:
        self.world = world
        self.lock = threading.RLock()

    # -- the world ---------------------------------------------------------------------------------------------
    def control(self, key: str) -> Any:
        path = self.world / "control.json"
        return (json.loads(path.read_text()) if path.exists() else {}).get(key, {})

    def things(self) -> dict[str, Any]:
        path = self.world / "things.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def save(self, things: dict[str, Any]) -> None:
        (self.world / "things.json").write_text(json.dumps(things, indent=1, sort_keys=True))

    def log(self, method: str, **fields: Any) -> None:
        with self.lock, (self.world / "calls.jsonl").open("a") as file:
            file.write(json.dumps({"method": method, **fields}, sort_keys=True) + "\n")

    def pause(self, name: str) -> None:
        time.sleep(self.control("delay").get(name, 0))

    def properties(self, name: str, resource_id: str, inputs: dict[str, Any]) -> dict[str, Any]:
        out = {**inputs, "address": f"10.0.0.{sum(map(ord, resource_id)) % 250}"}
        if "password" in inputs:
            out["password"] = {SECRET: "1b47061264138c4ac30d75fd1eb44270", "value": _plain(inputs["password"])}
        return out

    # -- life cycle of the plugin ------------------------------------------------------------------------------
    def Handshake(self, request, context):
        self.log("Handshake", attached=not request.HasField("program_directory"))
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True, accept_resources=True, accept_outputs=False)

    def Attach(self, request, context):
        self.log("Attach")
        return empty_pb2.Empty()

    def GetPluginInfo(self, request, context):
        return plugin_pb2.PluginInfo(version="1.2.3")

    def GetSchema(self, request, context):
        self.log("GetSchema")
        return provider_pb2.GetSchemaResponse(schema="{}")

    def CheckConfig(self, request, context):
        self.log("CheckConfig", news=json_format.MessageToDict(request.news))
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request, context):
        self.log("DiffConfig")
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request, context):
        self.log("Configure", args=json_format.MessageToDict(request.args))
        if message := self.control("fail_configure"):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, message)
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, acceptResources=True, acceptOutputs=False
        )

    def Cancel(self, request, context):
        self.log("Cancel")
        return empty_pb2.Empty()

    # -- resources ---------------------------------------------------------------------------------------------
    def Check(self, request, context):
        news = json_format.MessageToDict(request.news)
        self.log("Check", name=request.name, news=news, olds=json_format.MessageToDict(request.olds))
        failures = []
        if isinstance(_plain(news.get("size")), (int, float)) and _plain(news["size"]) < 0:
            failures.append(provider_pb2.CheckFailure(property="size", reason="must not be negative"))
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

    def Diff(self, request, context):
        news, olds = json_format.MessageToDict(request.news), json_format.MessageToDict(request.old_inputs)
        ignored = set(request.ignoreChanges)
        changed = sorted(k for k in {*news, *olds} - ignored if _plain(news.get(k)) != _plain(olds.get(k)))
        replaces = [k for k in changed if k in REPLACING]
        self.log("Diff", name=request.name, id=request.id, diffs=changed, replaces=replaces, ignored=sorted(ignored))
        kind = provider_pb2.PropertyDiff
        detail = {
            k: kind(
                kind=(kind.UPDATE_REPLACE if k in REPLACING else kind.UPDATE)
                if k in olds and k in news
                else (kind.ADD if k in news else kind.DELETE),
                inputDiff=True,
            )
            for k in changed
        }
        answer = provider_pb2.DiffResponse
        return answer(
            changes=answer.DIFF_SOME if changed else answer.DIFF_NONE,
            diffs=changed,
            replaces=replaces,
            stables=["address"] if changed and not replaces else [],
            deleteBeforeReplace=any(REPLACING[k] for k in replaces),
            detailedDiff=detail,
            hasDetailedDiff=True,
        )

    def Create(self, request, context):
        inputs = json_format.MessageToDict(request.properties)
        self.log("Create", name=request.name, preview=request.preview, properties=inputs, timeout=request.timeout)
        if request.preview:
            return provider_pb2.CreateResponse(properties=_struct({**inputs, "address": UNKNOWN}))
        self.pause(request.name)
        if message := self.control("fail_create").get(request.name):
            context.abort(grpc.StatusCode.UNKNOWN, message)
        with self.lock:
            things = self.things()
            serials = self.world / "serials.json"
            numbers = json.loads(serials.read_text()) if serials.exists() else {}
            numbers[request.name] = numbers.get(request.name, 0) + 1
            serials.write_text(json.dumps(numbers))
            resource_id = f"thing-{request.name}-{numbers[request.name]}"
            things[resource_id] = _plain(inputs)
            self.save(things)
        self.log("Created", name=request.name, id=resource_id)
        properties = _struct(self.properties(request.name, resource_id, inputs))
        if reason := self.control("partial_create").get(request.name):
            self.init_failed(context, resource_id, properties, request.properties, reason)
        return provider_pb2.CreateResponse(id=resource_id, properties=properties)

    def init_failed(self, context, resource_id, properties, inputs, reason) -> None:
        """Created, but not initialised: the engine keeps the id and repairs it at the next update."""
        detail = any_pb2.Any()
        detail.Pack(
            provider_pb2.ErrorResourceInitFailed(id=resource_id, properties=properties, reasons=[reason], inputs=inputs)
        )
        status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=reason, details=[detail])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.UNKNOWN, reason)

    def Read(self, request, context):
        live = self.things().get(request.id)
        self.log("Read", name=request.name, id=request.id, found=live is not None)
        if message := self.control("fail_read").get(request.name):
            context.abort(grpc.StatusCode.UNKNOWN, message)
        if live is None:
            return provider_pb2.ReadResponse(id="")
        properties = self.properties(request.name, request.id, live)
        return provider_pb2.ReadResponse(id=request.id, properties=_struct(properties), inputs=_struct(live))

    def Update(self, request, context):
        news = json_format.MessageToDict(request.news)
        self.log("Update", name=request.name, id=request.id, news=news, preview=request.preview)
        if not request.preview:
            self.pause(request.name)
            if message := self.control("fail_update").get(request.name):
                context.abort(grpc.StatusCode.UNKNOWN, message)
            with self.lock:
                things = self.things()
                things[request.id] = _plain(news)
                self.save(things)
        return provider_pb2.UpdateResponse(properties=_struct(self.properties(request.name, request.id, news)))

    def Delete(self, request, context):
        self.log("Delete", name=request.name, id=request.id, timeout=request.timeout)
        self.pause(f"delete {request.name}")
        if message := self.control("fail_delete").get(request.name):
            context.abort(grpc.StatusCode.UNKNOWN, message)
        with self.lock:
            things = self.things()
            things.pop(request.id, None)
            self.save(things)
        return empty_pb2.Empty()

    def Invoke(self, request, context):
        args = json_format.MessageToDict(request.args)
        self.log("Invoke", tok=request.tok, args=args)
        if message := self.control("fail_invoke"):
            context.abort(grpc.StatusCode.UNKNOWN, message)
        return provider_pb2.InvokeResponse(**{"return": _struct({"value": f"found {args.get('key')}"})})


def main() -> None:
    world = Path(sys.argv[1])
    world.mkdir(parents=True, exist_ok=True)
    server = grpc.server(futures.ThreadPoolExecutor(32))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Toy(world), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
