"""Shareable: what a controller sends and an executor answers - a map of plain data and arrays, with headers.

On the wire its arrays are one safetensors blob and the rest is JSON (see apis/wire.py); nothing is pickled.
"""

from __future__ import annotations

import copy
from typing import Any

from fl_runtime.apis.fl_constant import ReturnCode

__all__ = ["ReservedHeaderKey", "ReturnCode", "Shareable", "make_copy", "make_reply"]


class ReservedHeaderKey:
    HEADERS = "__headers__"
    TOPIC = "__topic__"
    RC = "__rc__"
    COOKIE_JAR = "__cookie_jar__"
    PEER_PROPS = "__peer_props__"
    CONTENT_TYPE = "__content_type__"
    TASK_NAME = "__task_name__"
    TASK_ID = "__task_id__"
    WORKFLOW = "__workflow__"
    REPLY_IS_LATE = "__reply_is_late__"
    AUDIT_EVENT_ID = "__audit_event_id__"
    MSG_ROOT_ID = "__msg_root_id__"


class Shareable(dict[str, Any]):
    """A dict whose entry `__headers__` holds what is about the content."""

    def __init__(self, data: dict[str, Any] | None = None) -> None:
        super().__init__()
        if data:
            self.update(data)
        self.setdefault(ReservedHeaderKey.HEADERS, {})

    def set_header(self, key: str, value: Any) -> None:
        self.setdefault(ReservedHeaderKey.HEADERS, {})[key] = value

    def get_header(self, key: str, default: Any = None) -> Any:
        headers = self.get(ReservedHeaderKey.HEADERS)
        return headers.get(key, default) if headers else default

    def add_cookie(self, name: str, data: Any) -> None:
        """A cookie sent with a task comes back with its reply."""
        self.get_cookie_jar_or_new()[name] = data

    def get_cookie_jar_or_new(self) -> dict[str, Any]:
        jar: dict[str, Any] = self.get_cookie_jar()
        if not jar:
            jar = {}
            self.set_cookie_jar(jar)
        return jar

    def get_cookie_jar(self) -> Any:
        return self.get_header(ReservedHeaderKey.COOKIE_JAR)

    def set_cookie_jar(self, jar: Any) -> None:
        self.set_header(ReservedHeaderKey.COOKIE_JAR, jar)

    def get_cookie(self, name: str, default: Any = None) -> Any:
        return (self.get_cookie_jar() or {}).get(name, default)

    def set_return_code(self, rc: str) -> None:
        self.set_header(ReservedHeaderKey.RC, rc)

    def get_return_code(self, default: str = ReturnCode.OK) -> Any:
        return self.get_header(ReservedHeaderKey.RC, default)

    def get_peer_props(self) -> Any:
        return self.get_header(ReservedHeaderKey.PEER_PROPS)

    def set_peer_props(self, props: dict[str, Any]) -> None:
        self.set_header(ReservedHeaderKey.PEER_PROPS, props)

    def get_peer_prop(self, key: str, default: Any = None) -> Any:
        return (self.get_peer_props() or {}).get(key, default)

    def set_content_type(self, content_type: str) -> None:
        self.set_header(ReservedHeaderKey.CONTENT_TYPE, content_type)

    def get_content_type(self) -> Any:
        return self.get_header(ReservedHeaderKey.CONTENT_TYPE)


def make_reply(rc: str, headers: dict[str, Any] | None = None) -> Shareable:
    """An answer that holds no content but how it went."""
    reply = Shareable()
    reply.set_return_code(rc)
    for key, value in (headers or {}).items():
        reply.set_header(key, value)
    return reply


def make_copy(source: Shareable) -> Shareable:
    """A copy whose headers may be changed; the content is common."""
    made = Shareable(dict(source))
    made[ReservedHeaderKey.HEADERS] = copy.copy(source.get(ReservedHeaderKey.HEADERS) or {})
    return made
