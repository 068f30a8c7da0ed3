"""Every time-out and bound of the deployer, in one place. Seconds, unless the name says otherwise.

Each can be set by the environment variable `FEDSPAN_` + its name, for slow clouds and for tests.
"""

from __future__ import annotations

import os

DEFAULTS: dict[str, float] = {
    # how long a new machine may take until its SSH server answers
    "SSH_DEADLINE": 300,
    # how long a cloud may take to make one machine, and any other resource, before the engine is told to give up
    "MACHINE_DEADLINE": 900,
    "STEP_DEADLINE": 1800,
    # how long an engine that was told to give up may take to save, before it is told to stop at once
    "ENGINE_GRACE": 120,
    # how long `status` waits for one machine
    "STATUS_DEADLINE": 6,
    # how long a machine is asked whether jobs run there before they are interrupted, or their results lost
    "JOBS_DEADLINE": 15,
    # how long `up` waits for the sites after the last one was started
    "REGISTER_DEADLINE": 180,
    # pause between two looks at the server while sites are awaited
    "REGISTER_INTERVAL": 0.5,
    # how long an engine that outlived its fedspan may take to save and end
    "ORPHAN_ENGINE_WAIT": 120,
    # how long a kit's owner waits for the federation's server to let the site in
    "OWNER_DEADLINE": 900,
    # megabytes that one running stack takes: engine and provider plugin (a real AWS plugin takes 300 to 430)
    "STACK_MEMORY_REAL": 600,
    "STACK_MEMORY_SANDBOX": 160,
    # how long a cloud may take until what was deleted is no longer listed, and the pause between two looks
    "GONE_DEADLINE": 120,
    "GONE_INTERVAL": 3,
    # how often `status --watch` looks again
    "WATCH_INTERVAL": 2,
    # how long a cloud may take to turn a machine on or off
    "POWER_DEADLINE": 600,
    # one question to a service that tells one's own address
    "MY_ADDRESS_TIMEOUT": 5,
    # how long a download of the engine may say nothing
    "DOWNLOAD_TIMEOUT": 60,
}


def setting(name: str) -> float:
    """The value of a setting; the environment's `FEDSPAN_<name>` goes before the default.

    Raises:
        UsageError: the environment's value is no number.
    """
    given = os.environ.get(f"FEDSPAN_{name}")
    if given is None or not given.strip():
        return DEFAULTS[name]
    try:
        return float(given)
    except ValueError:
        from deployer.errors import UsageError

        what = f"FEDSPAN_{name}={given!r} is no number of seconds"
        raise UsageError(what, next_step=f"unset FEDSPAN_{name}") from None
