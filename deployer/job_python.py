"""The interpreter for a site's job scripts, where they want torch: the image's, or a virtual environment from an index.

torch has gigabytes and never goes over SSH. `image`: the machine is asked for an interpreter that has it. `index`: the
machine's own pip installs it there, through the machine's own network and proxy. Either way the result is a path,
which the runtime is given as FEDSPAN_JOB_PYTHON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

from deployer.bundle import Bundle
from deployer.errors import MachineError
from deployer.service import BUNDLE, OPT
from deployer.ssh.machine import Machine
from deployer.torch_words import NAME_AN_INDEX
from startup_kits.torch_source import TorchSource

VARIABLE = "FEDSPAN_JOB_PYTHON"
REMEMBERED = f"{OPT}/job-python.json"
"""On the machine: which of the image's interpreters has torch, found once."""

FIND_DEADLINE_S = 1200.0
INSTALL_DEADLINE_S = 3600.0
"""Three gigabytes over a hospital's line."""

DISK_NEEDED = 12 << 30
"""Bytes: torch with CUDA has about 6 GB on disk, beside the wheels it is unpacked from."""


@dataclass(frozen=True)
class JobPython:
    """`path` on the machine; empty where the runtime's own interpreter has to do, `note` says why then."""

    path: str = ""
    changed: bool = False
    note: str = ""


def job_python(
    machine: Machine,
    bundle: Bundle,
    source: TorchSource | None,
    *,
    said: bool,
    proxy: str | None,
    tell: Callable[[str], None],
) -> JobPython:
    """Finds or makes the interpreter for job scripts.

    Args:
        source: where torch comes from; None where nobody wants it.
        said: the kit names the source; else it is the default of a machine with GPUs, and none is no error.
        proxy: HTTP proxy of the kit's endpoint.yml, goes before the login's own.
        tell: told what happens.

    Raises:
        MachineError: no interpreter there has torch although the kit says so, or the index does not give it.
        UnreachableError: the connection broke.
    """
    if source is None:
        return JobPython()
    if source.from_image:
        return _from_image(machine, said, tell)
    return _from_index(machine, bundle, source, proxy, tell)


def _from_image(machine: Machine, said: bool, tell: Callable[[str], None]) -> JobPython:
    tell("looking for the image's torch")
    facts = machine.facts()
    request = {"root": facts.root, "remembered": facts.path(REMEMBERED)}
    argv = [facts.python, "-I", "-c", _remote("job_python.py")]
    done = machine.run_privileged(argv, input=json.dumps(request).encode(), timeout_s=FIND_DEADLINE_S)
    found = json.loads(done.stdout)
    if found["python"]:
        tell(f"torch {found['torch']} in {found['python']}")
        return JobPython(found["python"])
    tried = "; ".join(found["tried"]) or "there is none in /opt/pytorch or /opt/conda, and no python3"
    what = "no interpreter on the machine has torch and numpy"
    if said:
        raise MachineError(what, participant=machine.name, why=tried, next_step=NAME_AN_INDEX)
    return JobPython(note=f"{what}, so jobs can't use torch there; name an index: {NAME_AN_INDEX} {machine.name}")


def _from_index(
    machine: Machine, bundle: Bundle, source: TorchSource, proxy: str | None, tell: Callable[[str], None]
) -> JobPython:
    facts = machine.facts()
    numpy = next((path.name for path in sorted(bundle.folder.glob("numpy-*.whl"))), "")
    content = json.dumps([source.index, source.version, list(facts.version), numpy])
    environment = f"{facts.path(OPT)}/torch-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    python = f"{environment}/bin/python"
    script = [facts.python, "-I", "-c", _remote("environment.py")]
    checked = machine.run_privileged([*script, "check", environment], check=False, timeout_s=60)
    if checked.status == 0:
        return JobPython(python)
    if checked.status != 3:
        raise machine.failed(checked)
    if facts.disk_free < DISK_NEEDED and "/cpu" not in source.index:
        tell(f"{facts.disk_free >> 30} GB of disk are free; torch with CUDA needs about {DISK_NEEDED >> 30}")
    variables = {**facts.network, "HOME": facts.home}
    if proxy:
        variables.update(dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy))
    request = {"index": source.index, "version": source.version, "variables": variables}
    tell(f"torch {source.version} from {source.index}")

    def on_line(stream: str, line: str) -> None:
        if line.strip().startswith(("Downloading", "Installing")):
            tell(line.strip()[:100])

    argv = [*script, "torch", environment, facts.path(BUNDLE)]
    done = machine.run_privileged(
        argv, input=json.dumps(request).encode(), on_line=on_line, check=False, timeout_s=INSTALL_DEADLINE_S
    )
    if done.status != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        told = [line for line in lines if line.startswith("ERROR:")] or lines
        raise MachineError(
            f"torch {source.version} can't be installed from {source.index}",
            participant=machine.name,
            why="\n".join(told[-3:]) or None,
            next_step=f"mend index and version in federation.yml, or let the machine reach it, "
            f"then: fedspan up {machine.name}",
        )
    return JobPython(python, changed=True)


def drop_others(machine: Machine, used: str) -> None:
    """Removes environments with torch that are not in use any more."""
    script = 'for d in "$2"/torch-*; do [ "$d/bin/python" = "$1" ] || [ ! -d "$d" ] || rm -rf "$d"; done'
    machine.run_privileged(["sh", "-c", script, "clean", used, machine.path(OPT)])


def _remote(name: str) -> str:
    return resources.files("deployer.remote").joinpath(name).read_text(encoding="utf-8")
