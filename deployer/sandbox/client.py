"""The sandbox as the deployer sees it: start it, ask it, get clients' environments and plugins from it.

Light on purpose: no boto3, moto, grpc or azure here, so that `status` stays fast.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployer.errors import CredentialsError, SandboxError
from deployer.sandbox.faults import Faults
from deployer.sandbox.launch import launch
from deployer.sandbox.leftovers import sweep
from deployer.sandbox.machines import tree
from deployer.sandbox.model import InventoryItem
from deployer.sandbox.state import (
    DEFAULT_REGION,
    LOG,
    START_LOCK,
    WORKSTATION,
    SandboxState,
    home_folder,
    locked,
)

STOP_S = 30.0
_ANSWER_S = 60.0


class Sandbox:
    """A running sandbox. Get one by `find` or `ensure`."""

    def __init__(self, home: Path, state: SandboxState) -> None:
        self.home = home
        self._state = state

    # -- life ---------------------------------------------------------------------------------------------------

    @classmethod
    def find(cls) -> Sandbox | None:
        """The running sandbox of this user (FEDSPAN_SANDBOX_HOME), or None."""
        home = home_folder()
        state = SandboxState.load(home)
        return None if state is None else cls(home, state)

    @classmethod
    def ensure(cls, image: Path | None = None) -> Sandbox:
        """The running sandbox; started if there is none. Raises SandboxError, which says where the log is.

        With `image`, the root file system of the nspawn driver, a start makes one with such machines.
        """
        found = cls.find()
        if found is None:
            home = home_folder()
            try:
                home.mkdir(mode=0o700, parents=True, exist_ok=True)
                home.chmod(0o700)
                with locked(home / START_LOCK):
                    found = cls.find() or cls(home, launch(home, image))
            except OSError as error:
                raise SandboxError(
                    f"the sandbox's folder {home} can't be used",
                    why=str(error),
                    next_step="export FEDSPAN_SANDBOX_HOME=/another/folder",
                ) from error
        found._check_version()
        return found

    def _check_version(self) -> None:
        from fl_runtime import version

        if self._state.version != version():
            raise SandboxError(
                f"the running sandbox is fedspan {self._state.version}, this is {version()}",
                next_step="fedspan sandbox stop",
            )

    def stop(self) -> None:
        """Ends the sandbox with all its clouds and machines; returns when nothing of it is left."""
        pid, started = self._state.pid, self._state.started
        with contextlib.suppress(SandboxError):
            self._ask("POST", "/stop")
        deadline = time.monotonic() + STOP_S
        while tree.alive(pid, started) and time.monotonic() < deadline:
            time.sleep(0.02)
        if tree.alive(pid, started):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            while tree.alive(pid, started):
                time.sleep(0.02)
        sweep(self.home)

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def realm_id(self) -> str:
        """Another one for each start: the clouds' contents don't outlive the daemon."""
        return self._state.realm_id

    @property
    def driver(self) -> str:
        """What makes the machines: `process` or `nspawn`."""
        return self._state.driver

    @property
    def ssh_port(self) -> int:
        """The port for SSH on this sandbox's machines (22 would need root, which only the nspawn driver has)."""
        return self._state.ssh_port

    @property
    def engine_root(self) -> Path:
        """The folder that holds the stand-in's `bin/pulumi`."""
        from deployer.sandbox import engine

        return Path(engine.root())

    @property
    def log(self) -> Path:
        return self.home / LOG

    def my_address(self) -> str:
        """The address by which the emulated world knows this workstation."""
        return WORKSTATION

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = self._ask("GET", "/status")
        return answer

    def machines(self) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self._ask("GET", "/machines")
        return answer

    def settle(self, seconds: float = 20.0) -> bool:
        """Waits until the machines are what the clouds say that they are; False if they were not in time."""
        return bool(self._ask("POST", "/settle", {"seconds": seconds})["settled"])

    def inventory(self) -> list[InventoryItem]:
        """Everything that exists in both clouds, over all accounts and regions."""
        return [InventoryItem(**item) for item in self._ask("GET", "/inventory")]

    @property
    def faults(self) -> Faults:
        return Faults.from_json(self._ask("GET", "/faults"))

    def set_faults(self, faults: Faults) -> None:
        """From now on exactly these things go wrong. `Faults()` ends all faults."""
        self._ask("PUT", "/faults", faults.to_json())

    # -- clients' environments ----------------------------------------------------------------------------------

    def aws_endpoints(self) -> dict[str, str]:
        """For a provider's `endpoints`: every service that the sandbox emulates."""
        return dict.fromkeys(("ec2", "sts", "ssm"), self._state.aws_url)

    def register_profile(self, name: str, account: str) -> str:
        """Gives the profile `name` an account; a known profile keeps its own. Answers the profile's account."""
        answer = self._ask("POST", "/profiles", {"name": name, "account": account})
        return str(answer["account"])

    def aws_environment(self, profile: str | None = None) -> dict[str, str]:
        """Variables for AWS clients: dummy credentials of the profile's account, the endpoint, and no way to others.

        Raises CredentialsError for a profile that the sandbox does not have.
        """
        name = profile or "default"
        known: dict[str, dict[str, str]] = self._ask("GET", "/profiles")
        if name not in known:
            raise CredentialsError(
                f"no AWS profile {name} in the sandbox",
                why=f"it has {', '.join(sorted(known))}",
                next_step=f"fedspan sandbox profile {name} --account 123456789012",
            )
        who = known[name]
        folder = self.home / "aws"
        return {
            "AWS_ACCESS_KEY_ID": who["access_key"],
            "AWS_SECRET_ACCESS_KEY": who["secret_key"],
            "AWS_REGION": DEFAULT_REGION,
            "AWS_DEFAULT_REGION": DEFAULT_REGION,
            "AWS_ENDPOINT_URL": self._state.aws_url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
            "AWS_CONFIG_FILE": str(folder / "config"),
        }

    def set_quota(self, cloud: str, owner: str, region: str, name: str, value: float) -> None:
        """A quota of an account or subscription in a region: AWS's by its code, Azure's by the usage's name."""
        body = {"cloud": cloud, "owner": owner, "region": region, "name": name, "value": value}
        self._ask("POST", "/quotas", body)

    def enforce_policy(self, account: str, policy: Mapping[str, Any] | None) -> None:
        """From now on an IAM policy is all that this AWS account's credentials may do; None: everything again."""
        self._ask("POST", "/policies", {"account": account, "policy": policy})

    def enforce_role(self, subscription: str, role: Mapping[str, Any] | None) -> None:
        """From now on a custom role's definition is all that may be done with this Azure subscription's credentials.

        `role` is as `az role definition create` takes it. None: everything again.
        """
        self._ask("POST", "/roles", {"subscription": subscription, "role": role})

    def azure_management(self, vm_id: str) -> tuple[str, str, bytes]:
        """What a machine, by its resource ID, finds Azure by: the manager's and the metadata service's URL, the CA."""
        ca = Path(self._state.ca_file).read_bytes()
        if self.driver != "process":
            return "https://169.254.169.254", "http://169.254.169.254", ca
        return self._state.arm_url, f"{self._state.metadata_url}{vm_id}", ca

    def azure_environment(self, subscription: str | None = None) -> dict[str, str]:
        """Variables for Azure clients: dummy credentials, endpoints, and the file of the sandbox's own CA."""
        if subscription is None:
            return dict(self._state.azure)
        answer: dict[str, str] = self._ask("POST", "/subscriptions", {"subscription": subscription})
        return answer

    # -- leases, the world outside ------------------------------------------------------------------------------

    @contextmanager
    def plugins(self) -> Iterator[str]:
        """Fresh plugin servers for one engine command: the value for PULUMI_DEBUG_PROVIDERS.

        They end with the `with`, or when this process dies.
        """
        pid = os.getpid()
        lease = self._ask("POST", "/leases", {"pid": pid, "started": tree.start_time(pid)})
        try:
            yield str(lease["providers"])
        finally:
            # A sandbox that has gone meanwhile took the lease with it.
            with contextlib.suppress(SandboxError):
                self._ask("DELETE", f"/leases/{lease['id']}")

    def on_premises(self, world_address: str) -> str:
        """The URL of a CONNECT proxy: what uses it seems to the clouds to come from `world_address` (a NAT's)."""
        return str(self._ask("POST", "/on-premises", {"world_address": world_address})["url"])

    def host(
        self, name: str, user: str, public_key: str, ssh_port: int | None = None, egress: str | None = None
    ) -> str:
        """A machine without a cloud, for `target: host`; answers its address. `egress`: as whom the clouds see it."""
        body = {"name": name, "user": user, "public_key": public_key, "ssh_port": ssh_port, "egress": egress}
        return str(self._ask("POST", "/hosts", body)["address"])

    def remove_host(self, name: str) -> None:
        self._ask("DELETE", f"/hosts/{name}")

    # -- wire ---------------------------------------------------------------------------------------------------

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request to the daemon. Raises SandboxError when it does not answer, or answers with a refusal."""
        data = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.0\r\nAuthorization: Bearer {self._state.token}\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        try:
            with socket.create_connection(self._state.control, timeout=_ANSWER_S) as connection:
                connection.sendall(head.encode() + data)
                answer = b""
                while chunk := connection.recv(1 << 20):
                    answer += chunk
            first, _, rest = answer.partition(b"\r\n")
            status = int(first.split()[1])
            document = json.loads(rest.partition(b"\r\n\r\n")[2])
        except (OSError, ValueError, IndexError) as error:
            alive = tree.alive(self._state.pid, self._state.started)
            raise SandboxError(
                "the sandbox does not answer" if alive else "the sandbox has ended",
                why=f"{method} {path}: {error}" if alive else "its clouds and machines are gone with it",
                next_step="fedspan sandbox stop" if alive else "fedspan sandbox start",
                log=str(self.log),
            ) from error
        if status == 401:
            # Another daemon answers where this sandbox was: its realm is gone.
            raise SandboxError(
                "the sandbox has ended",
                why=f"realm {self.realm_id} is gone with its clouds and machines; another one runs",
                next_step="fedspan sandbox status",
            )
        if status != 200:
            raise SandboxError(
                f"the sandbox refused {method} {path}", why=str(document.get("error")), log=str(self.log)
            )
        return document
