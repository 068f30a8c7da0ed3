"""EC2's query protocol as the layer before moto needs it: the parameters of a call, and EC2's error answer."""

from __future__ import annotations

import json
import re
import urllib.parse
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.sax.saxutils import escape


class Refused(Exception):
    """EC2 refuses the call: its error code, its message, its HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


@dataclass
class Query:
    """One EC2 call. `params` are the flattened form fields (`SecurityGroupId.1`), in the order of arrival."""

    action: str
    account: str
    region: str
    params: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, body: str, account: str, region: str) -> Query:
        params = dict(urllib.parse.parse_qsl(body, keep_blank_values=True))
        return cls(params.get("Action", ""), account, region, params)

    def encode(self) -> bytes:
        return urllib.parse.urlencode(self.params).encode()

    def get(self, name: str) -> str | None:
        return self.params.get(name) or None

    def need(self, name: str) -> str:
        """A parameter without which EC2 does nothing."""
        value = self.get(name)
        if value is None:
            raise Refused("MissingParameter", f"The request must contain the parameter {name}")
        return value

    def flag(self, name: str) -> bool:
        return (self.params.get(name) or "").lower() == "true"

    def items(self, name: str) -> list[str]:
        """The values of a list parameter: `items("SecurityGroupId")` reads `SecurityGroupId.1`, `.2`, …"""
        pattern = re.compile(re.escape(name) + r"\.(\d+)\Z")
        found = [(int(match.group(1)), value) for key, value in self.params.items() if (match := pattern.match(key))]
        return [value for _, value in sorted(found)]

    def groups(self, name: str) -> list[dict[str, str]]:
        """A list of structures: `groups("Tag")` gives one flat dictionary for each `Tag.N.`."""
        pattern = re.compile(re.escape(name) + r"\.(\d+)\.(.+)\Z")
        found: dict[int, dict[str, str]] = {}
        for key, value in self.params.items():
            if match := pattern.match(key):
                found.setdefault(int(match.group(1)), {})[match.group(2)] = value
        return [found[index] for index in sorted(found)]

    def tags(self) -> Iterator[tuple[str, str]]:
        """Every tag that the call gives to something."""
        for prefix in ("Tag", *{key.rsplit(".Tag.", 1)[0] + ".Tag" for key in self.params if ".Tag." in key}):
            for tag in self.groups(prefix):
                if "Key" in tag:
                    yield tag["Key"], tag.get("Value", "")


def ec2_error(code: str, message: str) -> bytes:
    """EC2's XML error document."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Response><Errors><Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error></Errors>"
        f"<RequestID>{uuid.uuid4()}</RequestID></Response>"
    ).encode()


def unauthorized(service: str) -> tuple[int, str, bytes]:
    """Status, content type and body with which a service answers credentials that it does not know."""
    if service == "ec2":
        return 401, "text/xml", ec2_error("AuthFailure", "AWS was not able to validate the provided access credentials")
    text = "The security token included in the request is invalid."
    if service == "sts":
        body = (
            '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
            f"<Code>InvalidClientTokenId</Code><Message>{text}</Message></Error>"
            f"<RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
        )
        return 403, "text/xml", body.encode()
    return (
        400,
        "application/x-amz-json-1.1",
        json.dumps({"__type": "UnrecognizedClientException", "message": text}).encode(),
    )
