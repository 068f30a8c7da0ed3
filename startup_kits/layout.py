"""The texts of a kit: scripts, README and YAML files. Pure functions of what the kit is for."""

from __future__ import annotations

from typing import Any

import yaml

from startup_kits.spec_models import AdminSpec, FederationSpec
from startup_kits.spec_participants import ParticipantSpec, SiteSpec

KIT_VERSION = 1

_FIND_FEDSPAN = """\
if [ -n "${FEDSPAN:-}" ]; then
    fedspan=$(command -v "$FEDSPAN") || fedspan=$FEDSPAN
else
    fedspan=$(command -v fedspan) || fedspan=$HOME/.local/bin/fedspan
fi
if ! [ -x "$fedspan" ]; then
    echo "$0: the fedspan command is not installed. Install it with:" >&2
    echo "    python3 -m pip install --user 'fedspan>=@RUNTIME@'      (for --cloud: 'fedspan[cloud]>=@RUNTIME@')" >&2
    exit 16
fi
"""

_SCRIPT = """\
#!/bin/sh
# @WHAT@ @NAME@ of the federation @FEDERATION@. See README.txt beside this file.
set -eu
kit=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
@FIND@exec "$fedspan" kit @VERB@ "$kit" "$@"
"""

FORWARDING_START = """\
#!/bin/sh
# For those who look for start.sh here: it lies one folder up.
exec "$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)/start.sh" "$@"
"""

_ADMIN_README = """\
@NAME@, @ROLE@ of the federation @FEDERATION@
CA fingerprint (SHA-256): @FINGERPRINT@

Compare the fingerprint with the one that the federation's lead reads to you. With this kit you submit and watch jobs:

    fedspan job submit JOB_FOLDER --kit .
    fedspan job list --kit .
    fedspan kit show .

startup/participant.key is your identity. Keep it to yourself; whoever has it can submit jobs in your name.
"""

_README = """\
@NAME@, @ROLE@ of the federation @FEDERATION@
CA fingerprint (SHA-256): @FINGERPRINT@

Compare the fingerprint with the one that the federation's lead reads to you, then:

    ./start.sh@SERVER@ --ca-fingerprint @SHORT@…     start here (the whole fingerprint, or leave it out to be asked)
    ./start.sh --cloud aws|azure                  or: make a machine in your own account and start there
    ./stop.sh [--cloud]                           stop; with --cloud: take the machine down as well

startup/  is signed: a changed, added or missing file is refused. startup/participant.key is this @ROLE@'s identity.
local/    is yours: endpoint.yml (the server's address, a proxy), policy.yml (who may run what), resources.yml@DATA@.
transfer/ is for files that you exchange with the federation.
"""


def root_files(spec: FederationSpec, name: str, role: str, fingerprint: str, runtime: str) -> dict[str, str]:
    """The files at the root of a kit and `startup/start.sh`, by path. Scripts end in `.sh`."""
    values = {"NAME": name, "FEDERATION": spec.name, "ROLE": role, "RUNTIME": runtime, "FINGERPRINT": fingerprint}
    if role == "admin":
        values["ROLE"] = f"admin ({spec.admins[name].role})"
        return {"README.txt": _fill(_ADMIN_README, values)}
    values["SHORT"] = fingerprint[:5]
    values["SERVER"] = "" if role == "server" else " --server HOST:PORT"
    values["DATA"] = "" if role == "server" else ", data.yml (where data lies)"
    find = _fill(_FIND_FEDSPAN, values)
    return {
        "README.txt": _fill(_README, values),
        "start.sh": _fill(_SCRIPT, {**values, "WHAT": "Starts", "VERB": "start", "FIND": find}),
        "stop.sh": _fill(_SCRIPT, {**values, "WHAT": "Stops", "VERB": "stop", "FIND": find}),
        "startup/start.sh": FORWARDING_START,
    }


def participant_file(
    spec: FederationSpec, name: str, role: str, part: ParticipantSpec | AdminSpec, runtime: str
) -> str:
    """`startup/participant.yml`: what owner, stack and runtime read, so that nothing is typed twice."""
    gpus = part.gpus if isinstance(part, ParticipantSpec) else None
    content: dict[str, Any] = {
        "version": KIT_VERSION,
        "federation": spec.name,
        "name": name,
        "role": role,
        "server": {"name": spec.server_name, "hostname": spec.server.hostname, "port": spec.server.port},
        "gpus": {"count": gpus.count, "memory_gib": gpus.memory} if gpus else None,
        "runtime": runtime,
    }
    if spec.residency and not isinstance(part, AdminSpec):
        content["residency"] = list(spec.residency)
    if isinstance(part, SiteSpec) and (torch := spec.torch_of(part)):
        content["torch"] = torch.document()
    if isinstance(part, AdminSpec):
        content["admin_role"] = part.role
    return _yaml(content)


def local_files(spec: FederationSpec, role: str, part: ParticipantSpec | AdminSpec) -> dict[str, str]:
    """The files under `local/`, as they are when a kit is new."""
    files = {"local/endpoint.yml": endpoint_file(spec.server.hostname and f"{spec.server.hostname}:{spec.server.port}")}
    if role == "admin":
        return files
    files["local/policy.yml"] = (
        "# Who may run jobs here: roles of admins (lead, member) or e-mail addresses. Only this site can change it.\n"
        + _yaml({"submitters": ["lead", "member"]})
    )
    gpus = part.gpus.count if isinstance(part, ParticipantSpec) and part.gpus else 0
    files["local/resources.yml"] = "# What jobs may take here: GPUs, and how many jobs run at once.\n" + _yaml(
        {"gpus": gpus, "slots": 1}
    )
    if isinstance(part, SiteSpec):
        files["local/data.yml"] = (
            "# Names that jobs ask for, and where the data lies on this machine. The data itself never moves.\n"
            + _yaml({"data": dict(part.data)})
        )
    return files


def endpoint_file(server: str | None, proxy: str | None = None) -> str:
    """`local/endpoint.yml`: an address is a hint, who answers there must prove the server's name."""
    content: dict[str, Any] = {"server": server or None}
    if proxy:
        content["proxy"] = proxy
    return (
        "# Where the server can be reached (HOST:PORT), and an HTTP proxy on the way if there is one. Not signed:\n"
        "# whoever answers there must prove the server's name with its certificate.\n" + _yaml(content)
    )


def _yaml(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=False, allow_unicode=True)


def _fill(text: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text
