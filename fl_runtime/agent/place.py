"""A job's folder on a site: what its program sees and owns, files that change hands, and the start of its keeper.

state/jobs/JOB/bundle      the job's files; the program's working folder      its own
               home, tmp   $HOME; $TMPDIR (shown as /tmp where possible)      its own
               spool       results that it is writing                         it may edit what is there
               shown       payloads of its tasks, as hard links               it may read
               agent.sock  the Client API
               metrics     what its program has measured                      it may edit it
               log, run.json (what the keeper notes), held.json (its GPUs)    ours
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fl_runtime
from fl_runtime import processes
from fl_runtime.agent import cgroups, keeper, view
from fl_runtime.agent.giving import give
from fl_runtime.agent.interpreter import imports
from fl_runtime.agent.isolation import Isolation
from fl_runtime.blobs import BlobStore
from fl_runtime.client.wire import SOCKET
from fl_runtime.errors import FlError, RefusedError
from fl_runtime.kit import Kit
from fl_runtime.names import STOP_S

MAX_FILES = 64  # that a program may have in hand; each stays until it is given back, or the program ends
SWEEP_S = 12.0  # a keeper needs so long at most after its STOP_S


class Place:
    """Made once for each life of the agent; `prepare` may be repeated."""

    def __init__(self, kit: Kit, state: Path, folder: Path, isolation: Isolation, blobs: BlobStore) -> None:
        self.folder = folder
        self.isolation = isolation
        self.bundle = folder / "bundle"
        self.log = folder / "log"
        self.metrics = folder / "metrics"
        self.socket = folder / "agent.sock"
        self.record = folder / "run.json"
        self.packages = folder / "packages"  # wheels of the site that the job asked for
        self._kit = kit
        self._state = state
        self._blobs = blobs
        self._spool = folder / "spool"
        self._shown = folder / "shown"

    @property
    def uid(self) -> int:
        return self.isolation.user[0] if self.isolation.user else os.getuid()

    def prepare(self) -> None:
        """Make its folders; also beside a program that lives already."""
        gid = self.isolation.user[1] if self.isolation.user else -1
        for path in (self.folder, self._spool, self._shown):  # ours; the program's group may look into them
            path.mkdir(mode=0o750, exist_ok=True)
            os.chown(path, -1, gid)
            path.chmod(0o750)
        for path in (self.folder / "home", self.folder / "tmp"):
            if not path.is_symlink():
                path.mkdir(mode=0o700, exist_ok=True)
        self.metrics.touch(0o600)
        if self.isolation.user:
            os.chown(self.metrics, *self.isolation.user)

    def give(self) -> None:
        """Make what the program may change its user's, before it runs."""
        if self.isolation.user:
            for top in (self.bundle, self.folder / "home", self.folder / "tmp", self.packages):
                if top.exists() and not top.is_symlink():  # a temporary folder elsewhere was its user's from the start
                    give(top, *self.isolation.user)

    # --- files that change hands

    def new_file(self, size: int) -> Path:
        """A file for a result: the program writes over it and cuts it to its length.

        Raises:
            RefusedError: it has as many as it may.
            QuotaError, DiskFullError: there is no room for it, beside those that it has.
        """
        held = []
        for path in self._spool.iterdir():
            with contextlib.suppress(FileNotFoundError):  # a program of our own user may remove it
                held.append(path.stat().st_size)
        if len(held) >= MAX_FILES:
            raise RefusedError(
                "The job's program holds too many files",
                why=f"it has asked for {len(held)} files for models and results, and given none of them back",
                next_step="in its code: send or keep each model before the next one is made",
            )
        self._blobs.space.check_quota(sum(held) + size)
        fresh = self._blobs.new_spool_file(size, self.folder.name)
        fresh.chmod(0o600)
        if self.isolation.user:
            os.chown(fresh, *self.isolation.user)
        return fresh.rename(self._spool / fresh.name)

    def take_back(self, path: Path) -> Path:
        """Take a finished result over, into the spool folder of the blobs.

        Raises:
            FlError: it is not one of the files that were given out.
        """
        if path.parent != self._spool:
            raise FlError("a result must lie in the file that was given for it")
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise FlError("a result can't be taken over", why=error.strerror) from None
        with contextlib.closing(os.fdopen(fd, "rb")) as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_uid not in (self.uid, os.getuid()):
                raise FlError("a result must be a plain file that was given for it")
            os.fchown(fd, os.getuid(), -1)
            os.fchmod(fd, 0o600)
            target = self._blobs.spool / path.name
            if _open_elsewhere(fd):  # it could still change: what counts is a copy
                try:
                    with open(target, "xb") as copy:
                        shutil.copyfileobj(file, copy, 1 << 20)
                except OSError:
                    target.unlink(missing_ok=True)
                    raise
                path.unlink()
            else:
                path.rename(target)
        return target

    def show(self, name: str, blob: Path) -> Path:
        """Let the program read a blob: a hard link in its folder."""
        link = self._shown / name
        with contextlib.suppress(FileExistsError):
            os.link(blob, link)
        if self.isolation.user:
            blob.chmod(0o644)  # the folders on the way to it are closed to others
        return link

    def hide(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._shown / name).unlink()

    def shown(self) -> list[str]:
        """The names of all that is shown."""
        return [path.name for path in self._shown.iterdir()]

    # --- the program

    def launch(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        epoch: int,
        data: Iterable[str],
        memory: int,
        note: Callable[[int], None],
    ) -> subprocess.Popen[bytes]:
        """Start a keeper, and with it the program. Its output goes to the log.

        Args:
            environment: of the program, complete but for what depends on the place.
            memory: bytes it may use, 0 = as many as there are.
            note: makes the keeper's pid durable. The program starts after that, so none runs that nobody knows of.
        """
        for path in (*self._spool.iterdir(), *self._shown.iterdir()):  # of an earlier launch
            path.unlink()
        self.prepare()
        self.give()
        isolated = self.isolation.any
        tmp = self._tmp()
        home = {"HOME": str(self.folder / "home"), "USER": "fedspan-job", "LOGNAME": "fedspan-job"} if isolated else {}
        env = {**environment, **home, "TMPDIR": "/tmp" if self.isolation.mounts else tmp}  # noqa: S108 - a private one
        own = [str(path) for path in (self.bundle, self.folder / "home", self.folder / "tmp")]
        own += [] if self.isolation.mounts else [tmp]
        folders = {
            "own": own,
            "edit": [str(self._spool), str(self.metrics)],
            "read": [str(self.folder)],
            "data": list(data),
        }
        fallback = str(imports(self._state))  # the package's own folder may hold what is not to be seen
        places = [str(self.packages)] * self.packages.exists() + [env.get("PYTHONPATH", ""), fallback]
        env["PYTHONPATH"] = ":".join(dict.fromkeys(filter(None, places)))
        paths = view.paths(self._kit, self._state, argv[0], run=[str(self.packages), fallback], **folders)
        group = cgroups.make(self._state, self.folder.name, memory) if memory else None
        order = {
            "argv": list(argv),
            "env": env,
            "cwd": str(self.bundle),
            "epoch": epoch,
            "record": str(self.record),
            "package": str(Path(fl_runtime.__file__).resolve().parent.parent),
            "user": self.isolation.user,
            "exclusive": self.isolation.exclusive,
            "isolated": isolated,
            "landlock": self.isolation.landlock,
            "mounts": self.isolation.mounts,
            "cut": self.isolation.cut,
            "tmp": str(self.folder / "tmp") if self.isolation.mounts else tmp,
            "paths": paths,
            "memory": memory,
            "cgroups": group.join if group else [],
            "kill": group.kill if group else [],
            "oom": group.killed if group else [],
            "grace": STOP_S,
        }
        return _start_keeper(order, self.log, note)

    def _tmp(self) -> str:
        """Where temporary files go. Without a private /tmp: a short path, for sockets' names hold 107 bytes."""
        link = self.folder / "tmp"
        if self.isolation.mounts:
            return str(link)
        with contextlib.suppress(OSError):
            former = os.lstat(os.readlink(link))
            if stat.S_ISDIR(former.st_mode) and former.st_uid == self.uid:  # the program may have put a link there
                return os.readlink(link)
        folder = tempfile.mkdtemp(prefix="fedspan-")
        if self.isolation.user:
            os.chown(folder, *self.isolation.user)
        if link.is_symlink():
            link.unlink()
        else:
            shutil.rmtree(link, ignore_errors=True)
        link.symlink_to(folder)
        return folder

    def recorded(self, epoch: int) -> dict[str, Any]:
        """What the keeper of that launch noted: `script` (pid), and after its end `code` and `why`."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self.record.read_text())
            if isinstance(found, dict) and found.get("epoch") == epoch:
                return found
        return {}

    def sweep(self) -> None:
        """End what a killed keeper has left: all of the job's user, or what has the job's environment."""
        if self.isolation.user and self.isolation.exclusive:
            user, _ = self.isolation.user
            keeper.end_all(lambda: keeper.of_user(user))
        else:
            mark = f"{SOCKET}={self.socket}".encode()
            keeper.end_all(lambda: processes.marked(lambda entry: entry == mark))


def clear(folder: Path) -> None:
    """Remove a job's folder and the temporary one that belongs to it."""
    link = folder / "tmp"
    if link.is_symlink():
        shutil.rmtree(os.readlink(link), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _start_keeper(order: Mapping[str, Any], log: Path, note: Callable[[int], None]) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-I", "-S", keeper.__file__]
    with open(log, "ab") as output:
        child = subprocess.Popen(
            argv,
            cwd="/",
            env={"PATH": os.defpath},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    assert child.stdin is not None
    try:
        with contextlib.suppress(BrokenPipeError), child.stdin:
            note(child.pid)
            child.stdin.write(json.dumps(order).encode())
    except BaseException:
        child.wait()  # without an order it has ended
        raise
    return child


def _open_elsewhere(fd: int) -> bool:
    """Whether another process has the file open or mapped (False where the file system can't tell)."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
