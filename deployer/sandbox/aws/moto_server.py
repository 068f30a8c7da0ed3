"""AWS in the sandbox: moto over HTTP on loopback, behind a layer that refuses what EC2 refuses.

Whoever calls, the `aws` plugin or a plain boto3 client, meets the same layer: it knows the sandbox's credentials and
says whose account a call is for, checks EC2's rules, honours client tokens, hands out Elastic IPs from the sandbox's
own addresses, and tells after each change that something has changed. Only EC2, STS, SSM and Service Quotas are served.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from deployer.sandbox.aws import images, mend, permissions, quotas, rules
from deployer.sandbox.aws.accounts import account_of
from deployer.sandbox.aws.query import Query, Refused, ec2_error, unauthorized
from deployer.sandbox.aws.world import LOCK, World

log = logging.getLogger(__name__)

_SCOPE = re.compile(r"Credential=([^/,\s]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")
_SERVICES = ("ec2", "sts", "ssm", "servicequotas")
_READS = re.compile(r"(Describe|Get|List|Search)")
_IDLE_S = 120  # a keep-alive connection that says nothing for so long is closed

# moto reads it when a region is first used: without its stock of images a region is there 0.3 s sooner.
_SETTINGS = {"MOTO_EC2_LOAD_DEFAULT_AMIS": "false", "MOTO_CALL_RESET_API": "false"}


class _Handler(WSGIRequestHandler):
    timeout = _IDLE_S

    def log(self, type: str, message: str, *args: Any) -> None:
        log.debug(message, *args)


class MotoServer:
    """The emulated AWS endpoint of one process. moto keeps its state in the process, so there is one at a time."""

    def __init__(
        self,
        on_change: Callable[[], None] | None = None,
        addresses: mend.Addresses | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._on_change = on_change or (lambda: None)
        self._addresses = addresses or _Unpooled()
        self._host, self._port = host, port
        self._server: BaseWSGIServer | None = None
        self._loading = threading.Lock()
        self._app: Any = None
        self._tokens: dict[tuple[str, ...], tuple[str, bytes]] = {}
        self.url = ""

    def start(self) -> str:
        """Listens, answers the URL, and loads moto in the background (about 2 s); the first call waits for it."""
        os.environ.update(_SETTINGS)
        self._server = make_server(self._host, self._port, self._serve, threaded=True, request_handler=_Handler)
        self._server.daemon_threads = True  # type: ignore[attr-defined]  # of the threading mix-in that make_server adds
        self.url = f"http://{self._host}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="moto", daemon=True).start()
        threading.Thread(target=self.load, name="moto-load", daemon=True).start()
        return self.url

    def stop(self) -> None:
        """Stops listening and forgets the whole emulated AWS."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        with LOCK:
            _forget()
            quotas.forget()
            permissions.forget()
            self._tokens.clear()

    def load(self) -> Any:
        """moto's WSGI application, imported once."""
        with self._loading:
            if self._app is None:
                from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

                _forget()
                self._app = DomainDispatcherApplication(create_backend_app)
            return self._app

    # -- one request -------------------------------------------------------------------------------------------
    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            status, headers, body = self._answer(environ)
        except Exception as error:
            log.exception("the emulated AWS failed")
            status, headers = "500 Internal Server Error", [("Content-Type", "text/xml")]
            body = ec2_error("InternalError", f"the sandbox's emulation of AWS failed: {error}")
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    def _answer(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(size) if size else b""
        scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
        service = scope.group(3) if scope else "ec2"
        account = account_of(scope.group(1)) if scope else None
        if scope is None or account is None:
            return _plain(*unauthorized(service))
        if environ.get("PATH_INFO", "/").strip("/"):  # moto's own pages (reset, metadata) are nobody's here
            return _plain(404, "text/xml", ec2_error("InvalidAction", "there is nothing at this path"))
        if service not in _SERVICES:
            message = f"the sandbox emulates {', '.join(_SERVICES)} of AWS, not {service}"
            return _plain(501, "text/xml", ec2_error("NotImplemented", message))
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = account
        region = scope.group(2)
        if service in ("servicequotas", "ssm"):
            refusal = _json_refusal(service, environ.get("HTTP_X_AMZ_TARGET", ""), body, account, region)
            if refusal is not None:
                return _plain(400, "application/x-amz-json-1.1", json.dumps(refusal).encode())
        if service == "servicequotas":
            number, document = quotas.answer(environ.get("HTTP_X_AMZ_TARGET", ""), body, account, region)
            return _plain(number, "application/x-amz-json-1.1", json.dumps(document).encode())
        app = self.load()
        with LOCK:
            if service == "ssm":
                self._prepare_ssm(account, region)
            if service != "ec2":
                return self._call_moto(app, environ, body)
            query = Query.parse(body.decode(), account, region)
            answer = self._ec2(app, environ, query)
        if answer[0].startswith("200") and not _READS.match(query.action):
            self._on_change()
        return answer

    def _ec2(self, app: Any, environ: dict[str, Any], query: Query) -> tuple[str, list[tuple[str, str]], bytes]:
        undo: Callable[[], None] | None = None
        try:
            world = self._world(query.account, query.region)
            token, print_ = self._token_of(query)
            if token and token in self._tokens:
                known, body = self._tokens[token]
                if known != print_:
                    raise Refused(
                        "IdempotentParameterMismatch",
                        "Arguments on this idempotent request are inconsistent with arguments used in previous"
                        " request(s).",
                    )
                return _plain(200, "text/xml", body)
            permissions.check(query, world)
            rules.check(query, world)
            if query.flag("DryRun"):
                return self._call_moto(app, environ, query.encode())
            if (own := mend.answer(query, world)) is not None:
                return _plain(200, "text/xml", own)
            before = mend.look(query, world)
            undo = mend.fill_in(query, world, self._addresses)
            answer = self._call_moto(app, environ, query.encode())
            if not answer[0].startswith("200"):
                if undo:
                    undo()
                return answer
            mend.draw_consequences(query, world, answer[2].decode(), self._addresses, before)
            if token:
                self._tokens[token] = (print_, answer[2])
            return answer
        except Refused as refused:
            if undo:
                undo()
            return _plain(refused.status, "text/xml", ec2_error(refused.code, refused.message))

    @staticmethod
    def _token_of(query: Query) -> tuple[tuple[str, ...] | None, str]:
        """A call's idempotency key, and a fingerprint of all else that it says."""
        token = query.get("ClientToken")
        rest = sorted((key, value) for key, value in query.params.items() if key != "ClientToken")
        print_ = hashlib.sha256(repr(rest).encode()).hexdigest()
        return ((query.account, query.region, query.action, token) if token else None), print_

    def _world(self, account: str, region: str) -> World:
        from moto.ec2.models import ec2_backends

        try:
            backend = ec2_backends[account][region]
        except KeyError:
            raise Refused("InvalidRegion", f"there is no region {region} in the emulated AWS") from None
        images.register_images(backend, region)
        return World(backend)

    @staticmethod
    def _prepare_ssm(account: str, region: str) -> None:
        from moto.ssm.models import ssm_backends

        with contextlib.suppress(KeyError):  # an unknown region: moto answers for that itself
            images.register_parameters(ssm_backends[account][region], account, region)

    @staticmethod
    def _call_moto(app: Any, environ: dict[str, Any], body: bytes) -> tuple[str, list[tuple[str, str]], bytes]:
        said: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[..., None]:
            said[:] = [status, headers]
            return lambda _data: None

        environ = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        chosen = app.get_application(environ)
        output = chosen(environ, start_response)
        try:
            answer = b"".join(output)
        finally:
            with contextlib.suppress(AttributeError):
                output.close()
        return said[0], list(said[1]), answer


class _Unpooled:
    """Elastic IPs for a server without a pool (plain boto3 tests): documentation addresses, RFC 5737."""

    def __init__(self) -> None:
        self._free = [f"203.0.113.{number}" for number in range(254, 0, -1)]

    def allocate(self, owner: str) -> str:
        return self._free.pop()

    def release(self, address: str) -> None:
        self._free.insert(0, address)


def _plain(status: int, content_type: str, body: bytes) -> tuple[str, list[tuple[str, str]], bytes]:
    words = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 500: "Internal Server Error"}
    return f"{status} {words.get(status, 'Error')}", [("Content-Type", content_type)], body


def _json_refusal(service: str, target: str, body: bytes, account: str, region: str) -> dict[str, str] | None:
    """What IAM says against a call of a JSON service."""
    action = target.rpartition(".")[2]
    asked = json.loads(body or b"{}")
    names = [asked["Name"]] if "Name" in asked else asked.get("Names", [])
    resources = [f"arn:aws:ssm:{region}::parameter{name}" for name in names] if service == "ssm" else ["*"]
    return permissions.check_json(account, f"{service}:{action}", region, resources)


def _forget() -> None:
    """Empties moto's backends: every account, every region."""
    from moto.ec2.models import ec2_backends
    from moto.ssm.models import ssm_backends

    for backends in (ec2_backends, ssm_backends):
        for account in list(backends):
            backends[account].clear()
