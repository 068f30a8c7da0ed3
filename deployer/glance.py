"""A short visit to a machine: what its runtime says of itself, in one command and without asking what machine it is.

`status` looks at many machines at once and must be done in a second. So one line of shell finds the runtime (where the
product lies under a machine's own root, or at `/`), becomes root only where the login may not look, and asks.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from deployer.service import NOT_RUNNING, STATE, VENV

if TYPE_CHECKING:
    from deployer.ssh import Machine

_NOT_INSTALLED = 4

# The runtime's folders belong to a user of its own where systemd runs it: then sudo, which is tried only where needed.
_ASK = f"""\
root=${{FEDSPAN_ROOT:-}}; python=$root{VENV}/bin/python; state=$root{STATE}
[ -x "$state" ] || become="sudo -n"
$become test -x "$python" || exit {_NOT_INSTALLED}
exec $become "$python" -m fl_runtime status --state "$state"
"""


def glance(machine: Machine) -> dict[str, Any] | None:
    """What the runtime says; None where it is not installed or not running.

    Raises:
        MachineError: it answers something that can't be read.
        UnreachableError: the connection broke.
    """
    done = machine.run(["sh", "-c", _ASK], check=False, timeout_s=60)
    if done.status in (NOT_RUNNING, _NOT_INSTALLED):
        return None
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise machine.failed(done) from error
    if not isinstance(answer, dict):
        raise machine.failed(done)
    return answer
