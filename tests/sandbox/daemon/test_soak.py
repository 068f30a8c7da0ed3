"""Many machines, much coming and going, and a daemon that is killed in the middle of it: nothing is left."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncssh
import pytest

from deployer.errors import SandboxError
from deployer.sandbox.client import Sandbox
from deployer.sandbox.machines.tree import descendants, marked, start_time

pytestmark = pytest.mark.slow

KEY = asyncssh.generate_private_key("ssh-ed25519")
PUBLIC = KEY.export_public_key().decode().strip()
COUNT = 50
QUIET = "> /dev/null 2>&1 < /dev/null"


def listeners(prefix: str) -> int:
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        address = socket.inet_ntoa(bytes.fromhex(fields[1].partition(":")[0])[::-1])
        count += fields[3] == "0A" and address.startswith(prefix)
    return count


async def _command(address: str, port: int, command: str) -> str:
    async with asyncssh.connect(
        address, port, username="fedspan", client_keys=[KEY], known_hosts=None, config=None, login_timeout=60
    ) as connection:
        return str((await connection.run(command, check=True)).stdout).strip()


def leave_fugitives(addresses: list[str], port: int) -> None:
    async def all_of_them() -> None:
        gate = asyncio.Semaphore(8)

        async def one(address: str) -> None:
            async with gate:
                await _command(
                    address,
                    port,
                    "setsid sleep 997 >/dev/null 2>&1 </dev/null & nohup sleep 998 >/dev/null 2>&1 </dev/null &",
                )

        await asyncio.gather(*(one(address) for address in addresses))

    asyncio.run(all_of_them())


def gone(pids: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while living := [pid for pid in pids if start_time(pid) is not None]:
        assert time.monotonic() < deadline, f"{len(living)} processes are left: {living[:5]}"
        time.sleep(0.05)


def test_fifty_machines_come_and_go_and_leave_nothing(home: Path) -> None:
    sandbox = Sandbox.ensure()
    status = sandbox.status()
    daemon, prefix = status["pid"], ".".join(status["addresses"].split(".")[:2]) + "."
    before = listeners(prefix)
    names = [f"box-{n}" for n in range(COUNT)]
    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        addresses = dict(zip(names, pool.map(lambda name: sandbox.host(name, "fedspan", PUBLIC), names), strict=True))
    assert len(set(addresses.values())) == COUNT
    assert sandbox.settle(60)
    print(f"{COUNT} machines in {time.monotonic() - began:.1f} s")
    leave_fugitives(list(addresses.values()), sandbox.ssh_port)
    pids = list(descendants(daemon))
    assert len(pids) >= 3 * COUNT
    # Some are killed, some go and come again, at random, several times.
    chance = random.Random(7)
    for _ in range(3):
        for machine in chance.sample(sandbox.machines(), 10):
            if machine["pid"]:
                os.kill(machine["pid"], signal.SIGKILL)
        for name in chance.sample(names, 10):
            sandbox.remove_host(name)
            assert sandbox.host(name, "fedspan", PUBLIC)
        assert sandbox.settle(60)
    pids += list(descendants(daemon))
    for name in names:
        sandbox.remove_host(name)
    assert sandbox.settle(60)
    assert sandbox.machines() == []
    gone(pids, 10)
    assert descendants(daemon) == {}
    assert listeners(prefix) == before
    assert list((home / "machines").iterdir()) == []


def test_fifty_machines_end_when_the_daemon_is_killed(home: Path) -> None:
    sandbox = Sandbox.ensure()
    status = sandbox.status()
    daemon, prefix = status["pid"], ".".join(status["addresses"].split(".")[:2]) + "."
    names = [f"box-{n}" for n in range(COUNT)]
    with ThreadPoolExecutor(16) as pool:
        addresses = list(pool.map(lambda name: sandbox.host(name, "fedspan", PUBLIC), names))
    assert sandbox.settle(60)
    leave_fugitives(addresses, sandbox.ssh_port)
    pids = list(descendants(daemon))
    os.kill(daemon, signal.SIGKILL)
    gone([daemon, *pids], 20)
    assert listeners(prefix) == 0
    with pytest.raises(SandboxError, match="has ended"):
        sandbox.machines()
    assert Sandbox.ensure().machines() == []
    assert list((home / "machines").iterdir()) == []


def test_a_daemon_that_is_killed_while_machines_start_leaves_nothing(home: Path) -> None:
    chance = random.Random(11)
    for _ in range(5):
        sandbox = Sandbox.ensure()
        daemon = sandbox.status()["pid"]
        with ThreadPoolExecutor(8) as pool:
            waiting = [pool.submit(sandbox.host, f"box-{n}", "fedspan", PUBLIC) for n in range(12)]
            time.sleep(chance.uniform(0.0, 0.8))
            pids = list(descendants(daemon))
            os.kill(daemon, signal.SIGKILL)
            for one in waiting:
                one.exception()
        gone([daemon, *pids], 20)
    Sandbox.ensure().stop()
    assert marked(os.fsencode(f"FEDSPAN_ROOT={home}/")) == []
