"""A small SSH machine for tests: asyncssh before real subprocesses, in a process of its own.

Run as a script with a JSON spec as its only argument; prints `{"port": N}` when it listens. Only the SSH side is
asyncssh's: commands are run by `/bin/sh -c`, as sshd does it, with `FEDSPAN_ROOT` set to the machine's folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

import asyncssh


class Server(asyncssh.SSHServer):
    """Lets the deployment's key in after `auth_fails` connections, and does not answer the login of the first
    `auth_silent`."""

    connections = 0

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        Server.connections += 1

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return bool(self.spec.get("forward"))

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        if Server.connections <= self.spec.get("auth_silent", 0):
            await asyncio.Event().wait()
        if Server.connections <= self.spec.get("auth_fails", 0):
            return False
        wanted = asyncssh.import_public_key(self.spec["public_key"])
        return username == self.spec.get("user", "fedspan") and key == wanted


async def run_command(process: asyncssh.SSHServerProcess[bytes], spec: dict[str, Any]) -> None:
    """One command in a shell of its own session; the whole session dies with the channel."""
    env = {
        "PATH": spec.get("path", os.environ["PATH"]),
        "HOME": spec["root"] + "/home",
        "LANG": "C.UTF-8",
        "FEDSPAN_ROOT": spec["root"],
        **spec.get("env", {}),
        **{key: value for key, value in process.env.items() if isinstance(key, str)},
    }
    os.makedirs(env["HOME"], exist_ok=True)
    child = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        process.command or "exec /bin/sh",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=env["HOME"],
        env=env,
        start_new_session=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    feeding = asyncio.ensure_future(feed(process, child.stdin))
    try:
        await asyncio.gather(drain(child.stdout, process.stdout), drain(child.stderr, process.stderr))
        process.exit(await child.wait())
    finally:
        feeding.cancel()
        if child.returncode is None:
            os.killpg(child.pid, signal.SIGTERM)


async def feed(process: asyncssh.SSHServerProcess[bytes], sink: asyncio.StreamWriter) -> None:
    """What the client sends goes to the command; when it goes away, the command's input ends."""
    try:
        while data := await process.stdin.read(1 << 16):
            sink.write(data)
            await sink.drain()
    except (asyncssh.Error, OSError):
        pass
    finally:
        sink.close()


async def drain(source: asyncio.StreamReader, sink: asyncssh.SSHWriter[bytes]) -> None:
    while data := await source.read(1 << 16):
        sink.write(data)
        await sink.drain()


async def main() -> None:
    spec = json.loads(sys.argv[1])
    os.makedirs(spec["root"] + "/home", exist_ok=True)
    server = await asyncssh.listen(
        spec.get("host", "127.0.0.1"),
        spec.get("port", 0),
        server_factory=lambda: Server(spec),
        server_host_keys=[asyncssh.import_private_key(spec["host_key"])],
        process_factory=lambda process: run_command(process, spec),
        sftp_factory=asyncssh.SFTPServer,
        encoding=None,
    )
    print(json.dumps({"port": server.get_port()}), flush=True)
    # At once: connections that a test broke off may keep asyncssh's own ending waiting.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
