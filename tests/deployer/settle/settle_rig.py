"""A participant's stack in the sandbox, and a process that works on it and can be killed.

Run as a program it is that process: `settle_rig.py FOLDER CLOUD PARTICIPANT up|address|destroy CHANGES` (JSON).
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil

from deployer.engine import StackEngine
from deployer.engine_home import EngineHome
from deployer.interrupts import Interrupts
from deployer.realm_sandbox import SandboxRealm
from deployer.sandbox.client import Sandbox
from deployer.sandbox.faults import Faults
from deployer.settle import Found, Settled, Whose, find_all, orphans, settle
from deployer.settle.state import cloud_resources, state_key
from stacks.args import HostKey, ParticipantArgs
from stacks.program import participant_program
from stacks.resources import describe

LIMIT_S = 150.0
DELAY_S = 8.0  # how long the emulated cloud works on what will be interrupted; ARM goes on with it after the kill
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
HOST_KEY = HostKey(
    private="-----BEGIN OPENSSH PRIVATE KEY-----\nbm90IGEga2V5\n-----END OPENSSH PRIVATE KEY-----\n", public=KEY
)
SIZES = {"aws": "m7i.large", "azure": "Standard_D4s_v5"}


@dataclass
class Rig:
    """One participant's stack: worked on here, or in a process of its own that is killed."""

    folder: Path
    cloud: str
    participant: str
    changes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sandbox = Sandbox.find()
        assert sandbox is not None
        self.sandbox = sandbox
        self.realm = SandboxRealm(sandbox)
        self.change()
        self.where = SimpleNamespace(
            name=self.participant, region=self.args.region, profile=None, account=None, subscription=None
        )
        self.home = EngineHome(self.folder / "stacks", "fedspan-digits")
        self.home.ensure()
        self.whose = Whose.of(self.args)
        self.engine = StackEngine(self.participant, self.home, self.realm, Interrupts(), io.StringIO())
        self._world: Any = None

    def change(self, **changes: Any) -> None:
        """Other arguments from now on."""
        self.changes |= changes
        given: dict[str, Any] = {
            "federation": "digits",
            "deployment": "d1",
            "participant": self.participant,
            "role": "site",
            "owner": "fl-lead@hospital-a.example",
            "region": "eu-central-1" if self.cloud == "aws" else "westeurope",
            "size": SIZES[self.cloud],
            "ssh_port": self.sandbox.ssh_port,
            "ssh_ingress": ("198.51.100.10/32",),
            "public_key": KEY,
            "host_key": HOST_KEY,
        }
        self.args = ParticipantArgs(**{**given, **self.changes})

    @property
    def access(self) -> Any:
        return self.realm.access(self.cloud, self.where)

    @property
    def world(self) -> Any:
        if self._world is None:
            self._world = self.realm.world(self.cloud, self.where, self.access)
        return self._world

    def work(self, verb: str) -> None:
        if verb == "destroy":
            self.engine.destroy()
            return
        self.engine.up(self.program("address" if verb == "address" else "full"))

    def program(self, stage: Any = "full") -> Any:
        """The stack's program for these arguments."""
        return participant_program(self.cloud, self.args, self.access, stage)  # type: ignore[arg-type]

    def killed(self, verb: str, kind: str, operation: str) -> None:
        """Start `verb` in a process; kill -9 process and engine when the operation on `kind` is open."""
        self.sandbox.set_faults(Faults(delays={kind: DELAY_S}))
        command = [
            sys.executable,
            __file__,
            str(self.folder),
            self.cloud,
            self.participant,
            verb,
            json.dumps(self.changes),
        ]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            name = f"{self.participant}-{kind_name(kind)}"
            deadline = time.monotonic() + LIMIT_S
            while not self._open(operation, name):
                if child.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"never came to {operation} {name}:\n{child.communicate(timeout=5)[0]}")
                time.sleep(0.05)
            # The engine writes down what it is about to do, then does it: the cloud has it a moment later.
            time.sleep(0.7)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                doomed = psutil.Process(child.pid)
                for process in [*doomed.children(recursive=True), doomed]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
            child.communicate(timeout=10)
            self.sandbox.set_faults(Faults())

    def _open(self, operation: str, name: str) -> bool:
        for path in self.home.state_dir.rglob(f"{self.participant}.json"):
            if "/stacks/" not in str(path):
                continue
            try:
                latest = json.loads(path.read_text())["checkpoint"]["latest"] or {}
            except (ValueError, KeyError):
                continue
            for op in latest.get("pending_operations") or []:
                if op["type"] == operation and op["resource"]["urn"].endswith(f"::{name}"):
                    return True
        return False

    def settle(self) -> Settled:
        """As the deployer does it after a crash: the dead engine's lock away, settle, put the state back."""
        self.engine.unlock()
        state = self.engine.state()
        done = settle(self.world, self.whose, state, failed=self.engine.failed)
        if done.changed:
            self.engine.set_state(done.deployment)
        return done

    def found(self) -> list[Found]:
        return find_all(self.world, self.whose)

    def check_exactly_one_of_each(self) -> None:
        """What the program describes is there once, and nothing else; the state knows all of it."""
        found = [thing for thing in self.found() if not thing.name.endswith("-os-disk")]
        planned = describe(self.cloud, self.args)  # type: ignore[arg-type]
        assert Counter(t.name for t in found) == Counter(p.name for p in planned)
        state = self.engine.state() or {}
        found = self.found()
        assert orphans(found, state) == ()
        assert {state_key(entry) for entry in cloud_resources(state)} <= {thing.key for thing in found}
        assert not state.get("pending_operations")


def kind_name(kind: str) -> str:
    """The logical name's end of the sandbox's kind."""
    return {
        "ec2:vpc": "vpc",
        "aws:ec2/eip:Eip": "address",
        "aws:ec2/instance:Instance": "vm",
        "aws:ec2/keyPair:KeyPair": "key",
        "aws:ebs/volume:Volume": "state",
        "aws:ec2/volumeAttachment:VolumeAttachment": "state-attachment",
        "aws:ec2/route:Route": "default-route",
        "aws:ec2/routeTableAssociation:RouteTableAssociation": "subnet-routes",
        "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": "egress",
        "Microsoft.Resources/resourceGroups": "rg",
        "Microsoft.Compute/virtualMachines": "vm",
        "Microsoft.Compute/disks": "state",
        "Microsoft.Network/publicIPAddresses": "address",
        "Microsoft.Network/virtualNetworks/subnets": "subnet",
        "Microsoft.Network/networkInterfaces": "interface",
        "Microsoft.DevTestLab/schedules": "shutdown",
    }[kind]


if __name__ == "__main__":
    own = Rig(Path(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[5]))
    own.realm.enter()
    own.work(sys.argv[4])
