"""A machine that is logged in to: a session plus what fedspan does there with files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import paramiko

from deployer import facts, push
from deployer.facts import MachineFacts
from deployer.ssh.connect import AUTH_GRACE_S, OnWait, open_transport
from deployer.ssh.exchange import OnBytes
from deployer.ssh.hops import Hop, close_hops, open_hops
from deployer.ssh.session import COMMAND_TIMEOUT_S, Completed, OnLine, Session


class Machine(Session):
    """What `connect` returns. Everything may be called from several threads; a context manager that hangs up."""

    def __init__(self, transport: paramiko.Transport, *, name: str, user: str, address: str, port: int) -> None:
        super().__init__(transport, name=name, user=user, address=address, port=port)
        self._at_close: list[Callable[[], None]] = []

    def __enter__(self) -> Machine:
        return self

    def at_close(self, work: Callable[[], None]) -> None:
        """Do this too when the connection is ended."""
        self._at_close.append(work)

    def close(self) -> None:
        """Ends the connection and every command on it, and what it went through."""
        super().close()
        while self._at_close:
            self._at_close.pop()()

    @cached_property
    def _facts(self) -> MachineFacts:
        return facts.probe(self)

    def facts(self) -> MachineFacts:
        """What the machine is; asked once."""
        return self._facts

    def forget_facts(self) -> None:
        """Asks again next time: the machine has changed since."""
        self.__dict__.pop("_facts", None)

    def path(self, absolute: str) -> str:
        """An absolute path of the product, under the machine's root."""
        return self.facts().path(absolute)

    def run_privileged(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
        on_line: OnLine | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float | None = COMMAND_TIMEOUT_S,
        check: bool = True,
    ) -> Completed:
        """`run` as root where the login can become root, as the login otherwise."""
        words = [*self.facts().prefix, *(["env", *(f"{k}={v}" for k, v in sorted(env.items()))] if env else []), *argv]
        return self.run(words, input=input, on_line=on_line, timeout_s=timeout_s, check=check)

    def put_tree(
        self,
        local: Path,
        remote: str,
        *,
        keep: Collection[str] = (),
        privileged: bool = False,
        owner: str = "",
        durable: bool = True,
        on_bytes: OnBytes | None = None,
    ) -> push.Pushed:
        """Makes a folder there equal to one here, atomically; see `deployer.push.put_tree`."""
        return push.put_tree(
            self,
            local,
            remote,
            python=self.facts().python,
            prefix=self.facts().prefix if privileged else (),
            keep=keep,
            owner=owner,
            durable=durable,
            on_bytes=on_bytes,
        )

    def put_file(
        self, data: bytes, remote: str, mode: int = 0o644, *, privileged: bool = False, owner: str = ""
    ) -> push.Pushed:
        """Writes one small file there atomically; see `deployer.push.put_file`."""
        prefix = self.facts().prefix if privileged else ()
        return push.put_file(self, data, remote, mode, python=self.facts().python, prefix=prefix, owner=owner)

    def get(
        self, remote: str, local: Path, *, privileged: bool = False, on_bytes: OnBytes | None = None
    ) -> push.Pushed:
        """Fetches a file or folder; see `deployer.push.get`."""
        prefix = self.facts().prefix if privileged else ()
        return push.get(self, remote, local, python=self.facts().python, prefix=prefix, on_bytes=on_bytes)


def connect(
    address: str,
    port: int,
    user: str,
    key_path: Path,
    known_hosts: Path | Sequence[Path],
    deadline_s: float = 300.0,
    on_wait: OnWait | None = None,
    *,
    name: str | None = None,
    auth_grace_s: float = AUTH_GRACE_S,
    hops: Sequence[Hop] = (),
    agent: bool = False,
) -> Machine:
    """Logs in to a machine that may still be booting; see `deployer.ssh.connect.open_transport`.

    Raises:
        HostKeyError: no key is pinned, or the machine shows another one; at once, whatever the deadline.
        UnreachableError: the deadline passed, or the login was refused.
    """
    opened = open_hops(hops, user, key_path, agent=agent, deadline_s=deadline_s)
    try:
        transport = open_transport(
            address,
            port,
            user,
            key_path,
            known_hosts,
            deadline_s=deadline_s,
            auth_grace_s=auth_grace_s,
            on_wait=on_wait,
            name=name,
            via=opened[-1] if opened else None,
            agent=agent,
        )
    except BaseException:
        close_hops(opened)
        raise
    machine = Machine(transport, name=name or address, user=user, address=address, port=port)
    machine.at_close(lambda: close_hops(opened))
    return machine
