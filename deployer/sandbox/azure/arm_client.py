"""The provider plugin's way to ARM: plain REST with a token, long-running operations waited for, errors in one text."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from deployer.sandbox.provider_resource import ProviderError

Body = dict[str, Any]
Wait = Callable[[float], None]

_REQUEST_SECONDS = 30.0
_RETRIED = (429, 502, 503, 504)
_POLL_SECONDS = 0.05  # where an answer asks for none: the server holds a poll itself
_TOKEN_SPARE_SECONDS = 120
# Connections for as many operations as the engine runs at once.
_CONNECTIONS = 32


class ArmRefusal(ProviderError):
    """ARM refused a request, or an operation failed. The text has the shape of the real provider's."""

    def __init__(self, status: int | None, error: Mapping[str, Any], url: str = "") -> None:
        self.status, self.code = status, str(error.get("code", ""))
        self.message = str(error.get("message", ""))
        parts = [f"Status={status}"] if status else []
        parts += [f'Code="{self.code}"', f'Message="{self.message}"']
        if target := error.get("target"):
            parts.append(f'Target="{target}"')
        if details := error.get("details"):
            parts.append(f"Details={[{k: d.get(k) for k in ('code', 'message')} for d in details]}")
        super().__init__(" ".join(parts))
        self.url = url


@dataclass(frozen=True)
class Identity:
    """Whose requests these are."""

    subscription_id: str
    tenant_id: str
    client_id: str
    client_secret: str


class ArmClient:
    """Talks to one resource manager as one identity. Thread-safe. Never follows the machine's proxy settings."""

    def __init__(self, url: str, ca_file: Path | str, identity: Identity) -> None:
        self.url, self.identity = url.rstrip("/"), identity
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(ca_file)
        self._session.mount("https://", HTTPAdapter(pool_maxsize=_CONNECTIONS))
        self._token: tuple[str, float] | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        self._session.close()

    # -- tokens ------------------------------------------------------------------------------------------------
    def token(self) -> str:
        """A valid access token. Raises ProviderError with the reason that the token endpoint gives."""
        with self._lock:
            if self._token is not None and self._token[1] - _TOKEN_SPARE_SECONDS > time.time():
                return self._token[0]
            one = self.identity
            answer = self._session.post(
                f"{self.url}/{one.tenant_id}/oauth2/v2.0/token",
                data={
                    "grant_type": "client_credentials",
                    "client_id": one.client_id,
                    "client_secret": one.client_secret,
                    "scope": f"{self.url}/.default",
                },
                timeout=_REQUEST_SECONDS,
            )
            body = answer.json()
            if answer.status_code != 200:
                raise ProviderError(f"ClientSecretCredential authentication failed: {body.get('error_description')}")
            self._token = (body["access_token"], time.time() + float(body["expires_in"]))
            return self._token[0]

    # -- requests ----------------------------------------------------------------------------------------------
    def send(self, method: str, url: str, version: str | None, body: Body | None, wait: Wait) -> requests.Response:
        """One request, repeated while ARM says that it is busy. `url` may be a path."""
        address = url if url.startswith("https://") else self.url + url
        while True:
            answer = self._session.request(
                method,
                address,
                params={"api-version": version} if version else None,
                json=body,
                headers={"Authorization": f"Bearer {self.token()}", "Accept": "application/json"},
                timeout=_REQUEST_SECONDS,
            )
            if answer.status_code not in _RETRIED:
                return answer
            wait(_pause(answer) or 1.0)

    def get(self, path: str, version: str, wait: Wait) -> Body | None:
        """The resource, or `None` where there is none."""
        answer = self.send("GET", path, version, None, wait)
        if answer.status_code == 404:
            if _error(answer).get("code") in (
                "SubscriptionNotFound",
                "InvalidResourceType",
                "InvalidResourceNamespace",
            ):
                raise refusal(answer)
            return None
        if answer.status_code != 200:
            raise refusal(answer)
        found: Body = answer.json()
        return found

    def put(self, path: str, version: str, body: Body, wait: Wait) -> tuple[requests.Response, Callable[[], Body]]:
        """Sends the body. Answers the accepted response, and a function that waits for the end: the final resource.

        Raises ArmRefusal where nothing was made; what the function raises comes from the operation.
        """
        answer = self.send("PUT", path, version, body, wait)
        if answer.status_code not in (200, 201, 202):
            raise refusal(answer)

        def finish() -> Body:
            if not self._wait(answer, wait):
                return dict(answer.json())
            final = self.get(path, version, wait)
            if final is None:
                raise ProviderError(f"the resource {path} vanished while it was made")
            return final

        return answer, finish

    def delete(self, path: str, version: str, wait: Wait) -> None:
        """Deletes and waits. What is gone already is no error."""
        answer = self.send("DELETE", path, version, None, wait)
        if answer.status_code in (204, 404):
            return
        if answer.status_code not in (200, 202):
            raise refusal(answer)
        self._wait(answer, wait)

    # -- long-running operations -------------------------------------------------------------------------------
    def _wait(self, answer: requests.Response, wait: Wait) -> bool:
        """Waits for the operation that `answer` began; False where it began none."""
        monitor, location = answer.headers.get("Azure-AsyncOperation"), answer.headers.get("Location")
        if monitor:
            while True:
                poll = self.send("GET", monitor, None, None, wait)
                if poll.status_code != 200:
                    raise refusal(poll)
                body = poll.json()
                if body["status"] == "Succeeded":
                    return True
                if body["status"] in ("Failed", "Canceled"):
                    raise ArmRefusal(None, body.get("error") or {"code": body["status"], "message": "no reason given"})
                wait(_pause(poll) or _POLL_SECONDS)
        if location and answer.status_code == 202:
            while (poll := self.send("GET", location, None, None, wait)).status_code == 202:
                wait(_pause(poll) or _POLL_SECONDS)
            if poll.status_code not in (200, 204):
                raise refusal(poll)
            return True
        return False


def _pause(answer: requests.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _error(answer: requests.Response) -> Mapping[str, Any]:
    try:
        error = answer.json().get("error")
    except ValueError:
        return {"code": "", "message": answer.text[:500]}
    return error if isinstance(error, dict) else {"code": "", "message": answer.text[:500]}


def refusal(answer: requests.Response) -> ArmRefusal:
    """The error of an answer that says no."""
    return ArmRefusal(answer.status_code, _error(answer), answer.url)
