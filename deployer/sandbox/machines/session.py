"""Commands and shells that a login runs on a machine, with an environment of the machine's own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import pty
import shlex
import signal
import struct
import termios
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncssh

_CHUNK = 256 * 1024
_LOG = logging.getLogger(__name__)
# What sshd of a cloud's image lets a client set (AcceptEnv LANG LC_*).
_CLIENT_MAY_SET = ("LANG", "LC_")


class Commands:
    """Starts what logins ask for. `machine_environment` is added to each command's environment."""

    def __init__(self, root: Path, machine_environment: Mapping[str, str]) -> None:
        self._root = root
        self._extra = dict(machine_environment)
        self._running: set[int] = set()
        self._starting = 0

    def awaits(self, pid: int) -> bool:
        """Whether the end of that process is waited for here, or may be in a moment: then nobody else reaps it."""
        return self._starting > 0 or pid in self._running

    async def _start(
        self, argv: Sequence[str], environment: Mapping[str, str], **options: Any
    ) -> asyncio.subprocess.Process:
        self._starting += 1  # it may end before we know its number
        try:
            child = await asyncio.create_subprocess_exec(
                *argv, env=environment, cwd=environment["HOME"], start_new_session=True, **options
            )
            self._running.add(child.pid)
            return child
        finally:
            self._starting -= 1

    def environment(self, user: str, client: Mapping[str, str] | None = None) -> dict[str, str]:
        """A command's whole environment: nothing of it comes from whoever runs the sandbox."""
        root = self._root
        given = {name: value for name, value in (client or {}).items() if name.startswith(_CLIENT_MAY_SET)}
        return {
            "PATH": f"{root}/usr/local/bin:{root}/usr/bin",
            "HOME": f"{root}/home/{user}",
            "USER": user,
            "LOGNAME": user,
            "SHELL": f"{root}/usr/bin/bash",
            "LANG": "C.UTF-8",
            "TMPDIR": f"{root}/tmp",  # noqa: S108  # the machine's own
            **self._extra,
            **given,
        }

    async def run(self, argv: Sequence[str], say: Callable[[str], None]) -> int:
        """A command of the machine's own, as root, to its end; `say` gets each line of it. The exit status."""
        environment = {**self.environment("root"), "HOME": str(self._root)}
        quiet, pipe, same = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
        child = await self._start(argv, environment, stdin=quiet, stdout=pipe, stderr=same, limit=_CHUNK)
        assert child.stdout is not None
        while line := await child.stdout.readline():
            say(line.decode(errors="replace").rstrip())
        code = await child.wait()
        self._running.discard(child.pid)
        return code

    async def serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """One session of a login, to its end. Runs as a task of asyncssh."""
        user = str(process.get_extra_info("username"))
        environment = self.environment(user, _decoded(process.env))
        shell = f"{self._root}/usr/bin/bash"
        if not os.path.exists(shell):
            shell = f"{self._root}/usr/bin/sh"
        if process.command is not None:
            argv = [shell, "-c", process.command]
        elif shell.endswith("bash"):
            argv = [shell, "--noprofile", "--norc"]  # the host's profiles would bring the host's PATH back
        else:
            argv = [shell]
        try:
            if process.term_type is not None:
                environment["TERM"] = process.term_type
                environment["PS1"] = f"{user}@{self._extra.get('FEDSPAN_HOSTNAME', 'machine')}:\\w$ "
                await self._on_terminal(process, argv, environment)
            else:
                await self._on_pipes(process, argv, environment)
        except FileNotFoundError as error:
            process.stderr.write(f"{error}\n".encode())
            process.exit(127)

    async def _on_pipes(
        self, process: asyncssh.SSHServerProcess[bytes], argv: list[str], environment: dict[str, str]
    ) -> None:
        pipe = asyncio.subprocess.PIPE
        child = await self._start(argv, environment, stdin=pipe, stdout=pipe, stderr=pipe, limit=_CHUNK)
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        feeding = asyncio.ensure_future(_feed(process, child.stdin, child.pid, None))
        outputs = [
            asyncio.ensure_future(_drain(child.stdout, process.stdout)),
            asyncio.ensure_future(_drain(child.stderr, process.stderr)),
        ]
        await self._finish(process, child, feeding, outputs)

    async def _on_terminal(
        self, process: asyncssh.SSHServerProcess[bytes], argv: list[str], environment: dict[str, str]
    ) -> None:
        loop = asyncio.get_running_loop()
        master, slave = pty.openpty()
        _set_size(master, process.term_size)
        try:
            child = await self._start(
                argv, environment, stdin=slave, stdout=slave, stderr=slave, preexec_fn=_take_terminal
            )
        except BaseException:
            os.close(master)
            raise
        finally:
            os.close(slave)
        reader = asyncio.StreamReader(limit=_CHUNK)
        read_end = os.fdopen(os.dup(master), "rb", 0)
        write_end = os.fdopen(master, "wb", 0)
        read_transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), read_end)
        write_transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, write_end)
        writer = asyncio.StreamWriter(write_transport, protocol, None, loop)
        feeding = asyncio.ensure_future(_feed(process, writer, child.pid, master))
        outputs = [asyncio.ensure_future(_drain(reader, process.stdout))]
        try:
            await self._finish(process, child, feeding, outputs)
        finally:
            # Closing the terminal hangs up on whatever still uses it, as losing the connection does.
            read_transport.close()
            write_transport.abort()

    async def _finish(
        self,
        process: asyncssh.SSHServerProcess[bytes],
        child: asyncio.subprocess.Process,
        feeding: asyncio.Future[None],
        outputs: Sequence[asyncio.Future[bool]],
    ) -> None:
        try:
            # As with sshd: the session ends when the command has ended *and* nobody holds its output any more.
            heard = await asyncio.gather(*outputs)
            if not all(heard):
                return  # the client has gone; the command goes on without it, as with sshd
            code = await child.wait()
            if code < 0:
                process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
            else:
                process.exit(code)
        finally:
            feeding.cancel()
            for output in outputs:
                output.cancel()
            await asyncio.gather(feeding, *outputs, return_exceptions=True)
            if child.stdin is not None:
                child.stdin.close()
            process.close()
            if child.returncode is None:
                waiter = asyncio.ensure_future(child.wait())
                waiter.add_done_callback(lambda _: self._running.discard(child.pid))
                _WAITERS.add(waiter)
                waiter.add_done_callback(_WAITERS.discard)
            else:
                self._running.discard(child.pid)


_WAITERS: set[asyncio.Future[int]] = set()


async def _feed(
    process: asyncssh.SSHServerProcess[bytes], sink: asyncio.StreamWriter, pid: int, terminal: int | None
) -> None:
    """What the client types goes to the command, signals and new window sizes too."""
    gone = False
    while True:
        try:
            data = await process.stdin.read(_CHUNK)
        except asyncssh.SignalReceived as received:
            with contextlib.suppress(ProcessLookupError, AttributeError, PermissionError):
                os.killpg(pid, getattr(signal, f"SIG{received.signal}"))
            continue
        except asyncssh.BreakReceived:
            continue
        except asyncssh.TerminalSizeChanged as size:
            if terminal is not None:
                _set_size(terminal, (size.width, size.height, size.pixwidth, size.pixheight))
            continue
        except (asyncssh.Error, OSError):
            data = b""
        if not data:
            if terminal is None:
                sink.close()
            elif not gone:
                with contextlib.suppress(OSError):
                    os.write(terminal, b"\x04")
            return
        if gone:
            continue
        try:
            sink.write(data)
            await sink.drain()
        except (BrokenPipeError, ConnectionResetError):
            # The command reads no more; go on listening for signals, and let the client send into the void.
            gone = True


async def _drain(source: asyncio.StreamReader, sink: asyncssh.SSHWriter[bytes]) -> bool:
    """Copies until the command has said all. False when the client went away before."""
    while True:
        try:
            data = await source.read(_CHUNK)
        except OSError:
            return True  # a terminal reports EIO when its last user has gone
        if not data:
            return True
        try:
            sink.write(data)
            await sink.drain()
        except (OSError, asyncssh.Error):
            return False


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _set_size(terminal: int, size: tuple[int, int, int, int]) -> None:
    width, height, xpixels, ypixels = (min(max(0, n), 65535) for n in size)
    with contextlib.suppress(OSError):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height or 24, width or 80, xpixels, ypixels))


def _decoded(environment: Mapping[Any, Any]) -> dict[str, str]:
    """asyncssh hands out text or bytes, depending on the client's bytes."""
    decoded = {}
    for name, value in environment.items():
        if isinstance(name, str) and isinstance(value, str):
            decoded[name] = value
    return decoded


def proxy_environment(root: Path, bind: str, proxy: str, hostname: str) -> dict[str, str]:
    """The machine's own variables: its root, its address, its way out."""
    direct = f"127.0.0.1,localhost,::1,{bind}"
    return {
        "FEDSPAN_ROOT": str(root),
        "FEDSPAN_BIND": bind,
        "FEDSPAN_HOSTNAME": shlex.quote(hostname),
        **dict.fromkeys(("grpc_proxy", "http_proxy", "https_proxy"), proxy),
        "no_proxy": direct,
        "no_grpc_proxy": direct,
    }
