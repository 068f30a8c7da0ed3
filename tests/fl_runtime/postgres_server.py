"""A PostgreSQL server of Debian's binaries for tests: own folder, own Unix socket, not root, gone with the context."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote


def binaries() -> Path | None:
    """Where initdb and pg_ctl lie, the newest version; None = not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def _user() -> int | None:
    """PostgreSQL refuses to run as root: who it runs as then (None = as we are)."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    raise RuntimeError("no user to run PostgreSQL as")


class Server:
    def __init__(self, folder: Path, bin_: Path, user: int | None, fsync: bool = False) -> None:
        self.folder, self._bin, self._user, self._fsync = folder, bin_, user, fsync

    def _run(self, *argv: str) -> None:
        env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [str(self._bin / argv[0]), *argv[1:]],
            **(
                {}
                if self._user is None
                else {"user": self._user, "group": pwd.getpwuid(self._user).pw_gid, "extra_groups": []}
            ),
            cwd=self.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if argv[0] == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        if done.returncode:
            log = self.folder / "log"
            raise RuntimeError(f"{argv[0]}: {done.stdout!r} {log.read_text() if log.exists() else ''}")

    def make(self, locale: str = "C.UTF-8") -> None:
        self._run(
            "initdb", "-D", "data", "-U", "fedspan", "-A", "trust", "-E", "UTF8", f"--locale={locale}", "--no-sync"
        )

    def start(self) -> None:
        sync = "on" if self._fsync else "off"
        options = f"-k {self.folder} -c listen_addresses= -c shared_buffers=16MB -c max_connections=20 -c fsync={sync}"
        self._run("pg_ctl", "-D", "data", "-l", "log", "-w", "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-D", "data", "-w", "-m", mode, "stop")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://fedspan@/{database}?host={quote(str(self.folder), safe='')}"

    def new_database(self, name: str) -> str:
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)


@contextlib.contextmanager
def postgres(fsync: bool = False) -> Iterator[Server]:
    """Needs `binaries()`. Without `fsync` a kill of the server loses nothing, only a power failure would."""
    bin_ = binaries()
    assert bin_ is not None
    folder, user = Path(tempfile.mkdtemp(prefix="fedspan-pg-", dir="/tmp")), _user()
    try:
        if user is not None:
            os.chown(folder, user, pwd.getpwuid(user).pw_gid)
        server = Server(folder, bin_, user, fsync)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
