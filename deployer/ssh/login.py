"""A login that asks for the service once, as RFC 4252 has it, and that no answer gets past.

paramiko's usual transport asks with each key, which some servers refuse. Its other one asks once, but begins to listen
for an answer after it has sent the question, so that a quick one is lost, and waits for the service without an end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import paramiko
from paramiko.auth_handler import AuthOnlyHandler
from paramiko.common import cMSG_SERVICE_REQUEST

_USERAUTH = "ssh-userauth"


class _Login(AuthOnlyHandler):
    """Listens before it asks."""

    _answered: threading.Event | None = None
    # what paramiko makes after it has sent the question is not taken
    auth_event = property(lambda self: self._answered, lambda self, _: None)

    def send_auth_request(self, username: str, method: str, finish_message: Callable[..., Any] | None = None) -> Any:
        self._answered = threading.Event()
        return super().send_auth_request(username, method, finish_message)


class LoginTransport(paramiko.ServiceRequestingTransport):  # type: ignore[name-defined,misc]  # no stub
    """A connection that has yet to log in."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._serves = threading.Event()
        super().__init__(*args, **options)

    def _parse_service_accept(self, m: paramiko.Message) -> None:
        super()._parse_service_accept(m)
        self._serves.set()

    def ensure_session(self) -> None:
        """Ask for the service, where that was not done.

        Raises:
            AuthenticationException: no answer within `auth_timeout` seconds.
            SSHException: the connection is closed.
        """
        if not self._serves.is_set():
            question = paramiko.Message()
            question.add_byte(cMSG_SERVICE_REQUEST)
            question.add_string(_USERAUTH)
            self._send_message(question)
            for _ in range(int(self.auth_timeout * 10)):
                if self._serves.wait(0.1) or not self.is_active():
                    break
            else:
                raise paramiko.AuthenticationException("Authentication timeout.")
            self.auth_handler = self.get_auth_handler()
        if not self.is_active():
            raise paramiko.SSHException("the connection was closed")

    def get_auth_handler(self) -> _Login:
        return _Login(self)


def authenticate(transport: paramiko.Transport, user: str, keys: Sequence[paramiko.PKey]) -> None:
    """Try each key; the last refusal counts."""
    for key in keys[:-1]:
        try:
            transport.auth_publickey(user, key)
            return
        except paramiko.AuthenticationException as error:
            if unanswered(error) or not transport.is_active():  # sshd allows so many tries
                raise
    transport.auth_publickey(user, keys[-1])


def unanswered(error: paramiko.AuthenticationException) -> bool:
    """Nobody has refused the key: its time was over. paramiko tells the two apart by this text alone."""
    return str(error) == "Authentication timeout."
