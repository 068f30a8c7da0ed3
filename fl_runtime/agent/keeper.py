"""The keeper: the parent of a job's program. It isolates it, starts it, and ends whatever it has started.

`python -I -S keeper.py`, with its order (JSON, made in place.py) on stdin. It outlives the agent. All descendants of
the program stay below it, also those that put themselves in the background or into groups of their own, for the kernel
gives orphans to it. It ends with the program's exit code (128 + the signal's number), after everything else has ended.
SIGTERM: end the program. Only the standard library is imported: a keeper is small and starts in a few milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_EVERY_S = 0.25  # between looks at the memory
_TOO_MUCH = "it needed more than its {:.2f} GB of memory"
NOT_ISOLATED = 126  # exit code: the program was not started


def main() -> int:
    text = sys.stdin.read()
    if not text:
        return NOT_ISOLATED  # the agent has died before it gave the order
    order = json.loads(text)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    waited = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    keeper = os.getpid()
    script = os.fork()
    if script == 0:
        _become(order, libc, keeper, waited)
    record = {"epoch": order["epoch"], "script": script}
    _note(order["record"], record)
    code, why = _watch(order, script, waited)
    _sweep(order)
    _note(order["record"], {**record, "code": code, "why": why})
    return code if code >= 0 else 128 - code


def _become(order: dict[str, Any], libc: ctypes.CDLL, keeper: int, blocked: set[signal.Signals]) -> None:
    """The child: isolate, then become the program."""
    try:
        os.setsid()
        for path in order["cgroups"]:
            with open(path, "w") as file:
                file.write("0")
        _isolate(order)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of user would have cleared it
        if os.getppid() != keeper:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(order["cwd"])
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.execve(order["argv"][0], order["argv"], order["env"])  # noqa: S606 - argv was made by us
    except BaseException as error:  # whatever it is: never go on as a second keeper
        os.write(2, f"this job's program can't be started: {type(error).__name__}: {error}\n".encode())
    os._exit(NOT_ISOLATED)


def _isolate(order: dict[str, Any]) -> None:
    sys.path.insert(0, order["package"])
    from fl_runtime.agent import landlock, namespaces

    uid, gid = order["user"] or (os.getuid(), os.getgid())
    paths = order["paths"]
    os.umask(0o022)  # folders of the private view are to be passed by the job's user
    if order["mounts"] or order["cut"]:
        namespaces.enter(mounts=order["mounts"], network=order["cut"], user=os.geteuid() != 0)
    if order["mounts"]:
        seen, written = [*paths["run"], *paths["read"]], [*paths["edit"], *paths["own"]]
        namespaces.private_view(seen, written, order["tmp"], uid, gid)
    ruleset = None
    if order["landlock"]:
        ruleset = landlock.Ruleset()
        own = [*paths["own"], "/tmp", "/dev/shm"] if order["mounts"] else [*paths["own"], order["tmp"], "/dev/shm"]  # noqa: S108
        for names, rights in (
            (paths["run"], landlock.RUN),
            (paths["read"], landlock.READ),
            (paths["edit"], landlock.EDIT),
            (own, landlock.OWN),
            (paths["devices"], landlock.DEVICE),
        ):
            ruleset.allow(names, rights)
    if order["user"]:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    elif os.geteuid() == 0 and order["isolated"]:
        landlock.only_file_capabilities()
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if order["memory"] and not order["cgroups"]:  # it counts private maps of files too, which cost nothing
        resource.setrlimit(resource.RLIMIT_DATA, (order["memory"], order["memory"]))
    if ruleset is not None:
        ruleset.restrict()
    elif order["isolated"]:
        landlock.no_new_privileges()


# --- watching


def _watch(order: dict[str, Any], script: int, waited: set[signal.Signals]) -> tuple[int, str]:
    """Until the program has ended: its exit code (negative: a signal), and why when we ended it."""
    watched = order["memory"]
    asked_at: float | None = None
    why = ""
    while True:
        info = signal.sigtimedwait(waited, _EVERY_S if watched or asked_at is not None else 30.0)
        if info is not None and info.si_signo != signal.SIGCHLD and asked_at is None:
            asked_at = time.monotonic()
            for pid in descendants(os.getpid()):
                _signal(pid, signal.SIGTERM)
        code = _reap(script)
        if code is not None:
            return code, why or (_TOO_MUCH.format(watched / 1e9) if code < 0 and _over(order) else "")
        if watched and not why and _over(order):
            why = _TOO_MUCH.format(watched / 1e9)
            _signal(script, signal.SIGKILL)
        if asked_at is not None and time.monotonic() - asked_at > order["grace"]:
            _signal(script, signal.SIGKILL)


def _reap(script: int) -> int | None:
    """Take the ended children's bodies away; the script's exit code if it was among them."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == script:
                code = os.waitstatus_to_exitcode(status)
    return code


def _sweep(order: dict[str, Any]) -> None:
    """End what the program has left behind: stopped first, so that nothing is started meanwhile, then killed."""
    for path in order["kill"]:
        with contextlib.suppress(OSError), open(path, "w") as file:
            file.write("1")
    end = time.monotonic() + 10.0
    while time.monotonic() < end:
        stopped: set[int] = set()
        while new := set(_left(order)) - stopped:
            for pid in new:
                _signal(pid, signal.SIGSTOP)
            stopped |= new
        for pid in stopped:
            _signal(pid, signal.SIGKILL)
        _reap(0)
        if not stopped:
            return
        time.sleep(0.01)


def _left(order: dict[str, Any]) -> list[int]:
    found = descendants(os.getpid())
    if order["exclusive"]:
        found += [pid for pid in of_user(order["user"][0]) if pid not in found]
    return found


def end_all(find: Callable[[], list[int]]) -> None:
    """End all processes that `find` finds, until it finds none (for the agent, when a keeper was killed)."""
    for _ in range(100):
        left = find()
        for pid in left:
            _signal(pid, signal.SIGKILL)
        if not left:
            return
        time.sleep(0.01)


def descendants(root: int) -> list[int]:
    """All living processes below `root`."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError):
                with open(f"/proc/{entry}/stat") as file:
                    text = file.read()
                state, parent = text[text.rindex(")") + 2 :].split()[:2]
                if state not in "ZX":
                    children.setdefault(int(parent), []).append(int(entry))
    found: list[int] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def of_user(uid: int) -> list[int]:
    """All living processes of a user: for users that nobody but one job has."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{entry}").st_uid == uid:
                    with open(f"/proc/{entry}/stat") as file:
                        text = file.read()
                    if text[text.rindex(")") + 2] not in "ZX":
                        found.append(int(entry))
    return found


def _anonymous(pids: list[int]) -> int:
    """Bytes of memory that belong to no file."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1]) * 1024
                    break
    return total


def _over(order: dict[str, Any]) -> bool:
    """Whether the kernel has killed one of its processes for its group's limit; without a group: what we count."""
    if not order["cgroups"]:
        return bool(order["memory"]) and _anonymous(descendants(os.getpid())) > order["memory"]
    for path in order["oom"]:
        with contextlib.suppress(OSError), open(path) as file:
            words = file.read().split()
            if int(dict(zip(words[::2], words[1::2], strict=False)).get("oom_kill", "0")):
                return True
    return False


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _note(path: str, record: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a full disk: the agent goes by the exit code
        with open(path + ".new", "w") as file:
            json.dump(record, file)
        os.rename(path + ".new", path)


if __name__ == "__main__":
    sys.exit(main())
