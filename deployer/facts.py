"""What a machine is: asked once, before anything is installed, with nothing but a shell and Python's own library."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from deployer.errors import MachineError
from deployer.ssh.session import Session

OLDEST_PYTHON = (3, 10)
_CANDIDATES = ("python3", "python3.13", "python3.12", "python3.11", "python3.10")

# The shell picks the first interpreter that is new enough; the interpreter tells the rest. An exit status of 3 says
# that there is none, with what there is on standard output.
_PICK = """\
for p in {candidates}; do
  w=$(command -v "$p") || continue
  seen="$seen $("$w" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
  if "$w" -c 'import sys; sys.exit(sys.version_info[:2] < {oldest})' 2>/dev/null; then exec "$w" -I -c "$PROBE"; fi
done
echo "$seen"; exit 3
"""

NETWORK = (
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "PIP_CERT"),
)
"""Variables of a login that say how the machine reaches a network. sudo drops them."""

_PROBE = """\
import getpass, json, os, platform, shutil, subprocess, sys
root = os.environ.get("FEDSPAN_ROOT", "").rstrip("/")
libc = ""
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
except (ValueError, OSError):
    pass  # not glibc
def works(*argv):
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
try:
    import venv
    has_venv = True
except ImportError:
    has_venv = False
folder = root + "/opt"
while not os.path.isdir(folder):
    folder = os.path.dirname(folder) or "/"
uid = os.getuid()
print(json.dumps({
    "root": root,
    "bind": os.environ.get("FEDSPAN_BIND") or None,
    "python": sys.executable,
    "version": list(sys.version_info[:3]),
    "implementation": sys.implementation.name,
    "arch": platform.machine(),
    "libc": libc,
    "has_venv": has_venv,
    "systemd": os.path.isdir(root + "/run/systemd/system"),
    "user": getpass.getuser(),
    "home": os.path.expanduser("~"),
    "uid": uid,
    "writable": os.access(folder, os.W_OK),
    "sudo": not root and uid != 0 and shutil.which("sudo") is not None and works("sudo", "-n", "true"),
    "cloud_init": not root and shutil.which("cloud-init") is not None,
    "disk_free": shutil.disk_usage(folder).free,
    "cpus": len(os.sched_getaffinity(0)),
    "hostname": platform.node(),
    "network": {name: os.environ[name] for name in NETWORK if os.environ.get(name)},
}))
"""


@dataclass(frozen=True)
class MachineFacts:
    """What the machine says about itself.

    Attributes:
        root: the machine root (`FEDSPAN_ROOT` there), empty on a machine of its own: stands before every absolute path.
        bind: address that services bind to (`FEDSPAN_BIND`), None for all.
        python: absolute path of the interpreter, 3.10 or newer.
        version: its (major, minor, micro).
        implementation: `cpython`.
        arch: `x86_64`, `aarch64`.
        glibc: (major, minor), or None on another C library.
        has_venv: whether the interpreter can make virtual environments (without pip: Debian's can).
        systemd: whether systemd is the machine's init.
        user, home, uid: of the login.
        writable: whether the login may write `/opt` (or the nearest folder above that exists).
        sudo: whether `sudo -n` works and is needed.
        cloud_init: whether cloud-init is there.
        disk_free: bytes free for `/opt`.
        cpus: that may be used.
        hostname: the machine's own name.
        network: the login's variables about proxies and certificates, see `NETWORK`.
    """

    root: str
    bind: str | None
    python: str
    version: tuple[int, int, int]
    implementation: str
    arch: str
    glibc: tuple[int, int] | None
    has_venv: bool
    systemd: bool
    user: str
    home: str
    uid: int
    writable: bool
    sudo: bool
    cloud_init: bool
    disk_free: int
    cpus: int
    hostname: str
    network: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words before a command that writes `/opt`, `/etc` or `/var/lib`."""
        return ("sudo", "-n") if self.sudo else ()

    @property
    def privileged(self) -> bool:
        """Whether commands can act as root: then the runtime gets a user and a systemd unit of its own."""
        return not self.root and (self.uid == 0 or self.sudo)

    def path(self, absolute: str) -> str:
        """An absolute path of the product on this machine."""
        return self.root + absolute


def probe(session: Session) -> MachineFacts:
    """Asks the machine.

    Raises:
        MachineError: no Python 3.10, or no answer that can be read.
        UnreachableError: the connection broke.
    """
    oldest = f"({OLDEST_PYTHON[0]}, {OLDEST_PYTHON[1]})"
    script = _PICK.format(candidates=" ".join(_CANDIDATES), oldest=oldest)
    done = session.run(
        ["sh", "-c", script], env={"PROBE": f"NETWORK = {NETWORK!r}\n{_PROBE}"}, timeout_s=60, check=False
    )
    if done.status == 3:
        seen = done.stdout.split()
        raise MachineError(
            "the machine has no Python 3.10 or newer",
            participant=session.name,
            why=f"found {', '.join(seen)}" if seen else "found none",
            next_step="choose a newer image, or install python3.10 or newer there",
        )
    if done.status != 0:
        raise session.failed(done)
    return parse_facts(done.stdout, session.name)


def parse_facts(text: str, name: str) -> MachineFacts:
    """Facts from the probe's answer: its last line, as login scripts may print before it."""
    try:
        raw = json.loads(text.strip().splitlines()[-1])
        libc = str(raw.pop("libc")).split()
        glibc = None
        if len(libc) == 2 and libc[0] == "glibc":
            major, minor = libc[1].split(".")[:2]
            glibc = (int(major), int(minor))
        version = raw.pop("version")
        return MachineFacts(glibc=glibc, version=(version[0], version[1], version[2]), **raw)
    except (ValueError, LookupError, TypeError) as error:
        raise MachineError(
            "the machine's answer cannot be read",
            participant=name,
            why=f"{error}: {text[-200:]!r}",
            next_step=f"fedspan ssh {name}, to see what its login prints",
        ) from error
