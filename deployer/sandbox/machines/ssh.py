"""A machine's SSH server: keys and accounts are read from its disk, as sshd does, so that changing a file changes them.

Host key: `etc/ssh/ssh_host_<type>_key`, read anew for each connection (a rotated key counts at once). Accounts: folders
in `home` with `.ssh/authorized_keys`. Public keys only; no forwarding.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

import asyncssh

from deployer.sandbox.machines.session import Commands
from deployer.sandbox.machines.sftp import MachineSftp
from deployer.sandbox.machines.splice import listener

_LOGIN_S = 30
_KEEPALIVE_S = 30
_HOST_KEY_FILES = ("ssh_host_ed25519_key", "ssh_host_ecdsa_key", "ssh_host_rsa_key")


class MachineSsh:
    """sshd of one machine. Use from one event loop only."""

    def __init__(
        self, root: Path, volumes: Path, commands: Commands, log: Callable[[str], None], wrong_host_key: bool
    ) -> None:
        self._root, self._volumes, self._commands, self._log = root, volumes, commands, log
        self._wrong = asyncssh.generate_private_key("ssh-ed25519") if wrong_host_key else None
        self._keys: list[asyncssh.SSHKey] = []
        self._keys_stamp: tuple[object, ...] = ()
        self._options: asyncssh.SSHServerConnectionOptions | None = None
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[asyncssh.SSHServerConnection] = set()

    def listen(self, address: str, port: int) -> None:
        """Raises OSError."""
        sock = listener(address, port)
        self._listeners.append(sock)
        self._keep(asyncio.ensure_future(self._accept(sock)))

    def host_key(self) -> str:
        """The public host key that a client is shown, in OpenSSH's format."""
        return self.host_keys()[0].export_public_key().decode().strip()

    def host_keys(self) -> list[asyncssh.SSHKey]:
        """The private host keys. Raises ValueError when the machine has none that can be read."""
        if self._wrong is not None:
            return [self._wrong]
        paths = [self._root / "etc/ssh" / name for name in _HOST_KEY_FILES]
        found = [(path, path.stat()) for path in paths if path.is_file()]
        stamp = tuple((path.name, status.st_mtime_ns, status.st_size, status.st_ino) for path, status in found)
        if stamp != self._keys_stamp or not self._keys:
            keys = []
            for path, _ in found:
                try:
                    keys.append(asyncssh.import_private_key(path.read_bytes()))
                except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, OSError) as error:
                    self._log(f"sshd: {path.name}: {error}")
            if not keys:
                raise ValueError("no hostkeys available")
            self._keys, self._keys_stamp, self._options = keys, stamp, None
        return self._keys

    def _connection_options(self) -> asyncssh.SSHServerConnectionOptions:
        keys = self.host_keys()
        if self._options is None:
            self._options = asyncssh.SSHServerConnectionOptions(
                server_factory=lambda: _Login(self._root, self._log, self._connections),
                server_host_keys=keys,
                process_factory=self._commands.serve,
                sftp_factory=self._sftp,
                allow_scp=True,
                encoding=None,
                line_editor=False,
                password_auth=False,
                kbdint_auth=False,
                host_based_auth=False,
                gss_host=None,
                agent_forwarding=False,
                x11_forwarding=False,
                login_timeout=_LOGIN_S,
                keepalive_interval=_KEEPALIVE_S,
                server_version="fedspan-sandbox",
            )
        return self._options

    def _sftp(self, channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
        user = str(channel.get_connection().get_extra_info("username"))
        return MachineSftp(channel, self._root, self._volumes, self._root / "home" / user)

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(sock)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._keep(asyncio.ensure_future(self._serve(client)))

    async def _serve(self, client: socket.socket) -> None:
        try:
            options = self._connection_options()
            await asyncssh.run_server(client, options=options)
        except (OSError, asyncssh.Error, ValueError) as error:
            # Port scans, wrong keys, clients that hang up: what sshd writes to its log.
            self._log(f"sshd: connection closed: {error}")
            client.close()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        for connection in list(self._connections):
            connection.abort()
        for task in list(self._tasks):
            task.cancel()
        for sock in self._listeners:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        self._listeners.clear()


class _Login(asyncssh.SSHServer):
    """One connection until it is logged in."""

    def __init__(self, root: Path, log: Callable[[str], None], connections: set[asyncssh.SSHServerConnection]) -> None:
        self._root, self._log, self._connections = root, log, connections
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            self._connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        accepted = key.public_data in _authorized(self._root, username)
        fingerprint = key.get_fingerprint()
        self._log(f"sshd: {'accepted' if accepted else 'refused'} publickey for {username}: {fingerprint}")
        return accepted


def _authorized(root: Path, user: str) -> set[bytes]:
    """The public keys that may log in as `user`; none for who has no account."""
    if not user or "/" in user or user.startswith("."):
        return set()
    keys = set()
    try:
        lines = (root / "home" / user / ".ssh/authorized_keys").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    for line in lines:
        if line.strip() and not line.startswith("#"):
            try:
                keys.add(asyncssh.import_public_key(line).public_data)
            except asyncssh.KeyImportError:
                continue
    return keys


def new_host_key(path: Path) -> None:
    """Writes a fresh ed25519 host key, private and public."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    write_private(path, key.export_private_key().decode())
    path.with_name(path.name + ".pub").write_bytes(key.export_public_key())


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
