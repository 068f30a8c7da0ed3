"""What of the machine a job's program may open: the system's programs, its Python, devices, what the site names."""

from __future__ import annotations

import functools
import glob
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import fl_runtime
from fl_runtime.agent.isolation import folders, harmless
from fl_runtime.kit import Kit
from fl_runtime.processes import job_environment

_RUN = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store", "/snap")
# Not all of /etc: as root without a user of their own, jobs could read passwords there.
_ETC = (
    *("passwd", "group", "hosts", "host.conf", "hostname", "resolv.conf", "nsswitch.conf", "gai.conf", "services"),
    *("protocols", "localtime", "timezone", "os-release", "machine-id", "mime.types", "magic", "shells", "locale.conf"),
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "ssl/certs", "ssl/openssl.cnf", "pki/tls/certs"),
    *("pki/ca-trust/extracted", "ca-certificates", "crypto-policies", "fonts", "matplotlibrc", "OpenCL", "vulkan"),
    *("nvidia", "ImageMagick-6", "papersize", "python3", "default/locale"),
)
_READ = (*(f"/etc/{name}" for name in _ETC), "/proc", "/sys", "/run/systemd/resolve", "/var/cache/fontconfig")
_DEVICES = (
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"),
    *("/dev/nvidia*", "/dev/dri", "/dev/kfd", "/dev/dxg", "/dev/infiniband", "/dev/neuron*", "/dev/accel*"),
)


def paths(kit: Kit, state: Path, python: str, data: Iterable[str], own: Iterable[str], edit: Iterable[str],
          read: Iterable[str], run: Iterable[str] = ()) -> dict[str, list[str]]:  # fmt: skip
    """By right: `run` (read and execute), `read`, `edit` (files that are there), `own` (everything), `devices`.

    Args:
        data, own, edit, read, run: the job's own, added to what every job gets.
    """
    resources = kit.resources()
    shown = [path for path in (*_python(python), *os.environ.get("PYTHONPATH", "").split(":")) if os.path.isabs(path)]
    shown += folders(resources, "read")
    return {
        "run": [*_RUN, *(path for path in shown if harmless(path, kit, state)), *run],
        "read": [*_READ, *data, *read],
        "edit": list(edit),
        "own": [*own, *(path for path in folders(resources, "write") if harmless(path, kit, state))],
        "devices": [path for pattern in _DEVICES for path in glob.glob(pattern)],
    }


def _python(python: str) -> tuple[str, ...]:
    """Where an interpreter and its packages lie."""
    package = str(Path(fl_runtime.__file__).resolve().parent)
    if python == sys.executable:
        roots: tuple[str, ...] = (sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path)
    else:
        roots = _asked(python, os.stat(python).st_mtime_ns)
    cwd = os.getcwd()
    shown = dict.fromkeys((*roots, *_linked_from(python)))
    return (package, *(path for path in shown if path and path != cwd), *_user_site(python))


def _linked_from(python: str) -> list[str]:
    """The folders that the chain of links to the interpreter goes through: an environment made from another one
    (Python 3.10) links to that one's link."""
    found: list[str] = []
    path = Path(python)
    while path.is_symlink() and len(found) < 40:
        path = path.parent / os.readlink(path)
        found.append(str(path.parent))
    return found


def _user_site(python: str) -> tuple[str, ...]:
    """Packages of `pip install --user`."""
    import site

    return (site.getusersitepackages(),) if python == sys.executable and site.ENABLE_USER_SITE else ()


@functools.lru_cache(maxsize=8)
def _asked(python: str, _changed: int) -> tuple[str, ...]:
    code = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path[1:]]))"
    env = job_environment({})
    done = subprocess.run([python, "-c", code], capture_output=True, timeout=30, check=False, cwd="/", env=env)
    return tuple(json.loads(done.stdout)) if done.returncode == 0 else ()
