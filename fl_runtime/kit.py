"""Reading a kit: who this participant is, where the server may be, and what the site's owner allows.

The layout is documented in docs/federation.md. The runtime trusts `startup/` (its signature was checked before start)
and reads `local/` anew whenever it matters: it belongs to the site and may be changed while the runtime runs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fl_runtime.errors import KitError
from fl_runtime.filters.registry import parse_filters
from fl_runtime.plain import check_plain, read_plain

SERVER = "server"


def machine_path(path: str) -> Path:
    """An absolute path of the product on this machine: `$FEDSPAN_ROOT` + path."""
    root = os.environ.get("FEDSPAN_ROOT", "")
    return Path(root + path) if root and os.path.isabs(path) else Path(path)


@dataclass(frozen=True)
class Endpoint:
    """Where to dial. A hint: the identity of whoever answers is its certificate."""

    host: str
    port: int
    proxy: str | None = None

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Policy:
    """local/policy.yml: who may submit jobs (admin roles or e-mail addresses), which scripts may run, and the filters
    that are always applied last."""

    submitters: tuple[str, ...] = ("lead",)
    scripts: tuple[str, ...] = ("any",)
    operators: tuple[str, ...] = ("lead",)  # who may restart or shut down this participant
    filters: dict[str, Any] = field(default_factory=dict, hash=False)
    isolation: str = ""  # required, best; else: code that can't be isolated runs only when `scripts` names it
    network: str = "any"  # or none: jobs get no network
    wheels: str | None = None  # a folder; what a job requires and is not here is installed from it, for that job only
    revocations: str = ""  # required: jobs run only while a fresh list of revoked certificates is here
    job_filters: tuple[str, ...] = ()  # files of jobs whose own filters may run here, as the agent


@dataclass(frozen=True)
class Kit:
    """One participant's kit, as far as the runtime needs it."""

    path: Path
    name: str
    role: str
    federation: str
    server_name: str
    port: int
    runtime: str = ""
    admin_role: str = ""
    gpus: dict[str, Any] | None = field(default=None, hash=False)

    @property
    def ca(self) -> bytes:
        return self._read("startup/ca.crt")

    @property
    def certificate(self) -> bytes:
        return self._read("startup/participant.crt")

    @property
    def key(self) -> bytes:
        return self._read("startup/participant.key")

    def _read(self, relative: str) -> bytes:
        try:
            return (self.path / relative).read_bytes()
        except OSError as error:
            raise KitError(
                f"The kit lacks {relative}", participant=self.name, why=str(error), next_step="fedspan kit verify"
            ) from None

    def endpoint(self) -> Endpoint:
        """local/endpoint.yml as it is now.

        Raises:
            KitError: the file names no server.
        """
        document = self._local("endpoint.yml")
        server = document.get("server")
        if not server:
            raise KitError(
                "This kit does not know the server's address yet",
                participant=self.name,
                why="local/endpoint.yml has no `server: HOST:PORT`",
                next_step="start.sh --server HOST:PORT",
            )
        host, _, port = str(server).rpartition(":")
        if not host or not (port.isascii() and port.isdigit() and len(port) < 6):
            host, port = str(server), str(self.port)
        proxy = document.get("proxy")
        return Endpoint(host.strip("[]"), int(port), str(proxy) if proxy else None)

    def declared(self) -> dict[str, str]:
        """Names of the data that this site declares, and the path of each as the spec and people write it."""
        named = self._local("data.yml").get("data") or {}
        if not isinstance(named, dict):
            raise KitError(
                "local/data.yml: data must map names to paths", participant=self.name, why=f"it is {named!r}"
            )
        return {str(name): str(path) for name, path in named.items()}

    def data(self) -> dict[str, Path]:
        """Names of the data that this site declares, and where each lies on this machine."""
        return {name: machine_path(path) for name, path in self.declared().items()}

    def policy(self) -> Policy:
        """local/policy.yml as it is now.

        Raises:
            KitError, JobSpecError: it can't be read, or names a filter that does not exist.
        """
        document = self._local("policy.yml")
        return Policy(
            tuple(_texts(document.get("submitters", ["lead"]))),
            tuple(_texts(document.get("scripts", ["any"]))),
            tuple(_texts(document.get("operators", ["lead"]))),
            parse_filters(document.get("filters"), "local/policy.yml"),
            isolation=self._choice(document, "isolation", ("", "best", "required")),
            network=self._choice(document, "network", ("any", "none")),
            wheels=str(document["wheels"]) if document.get("wheels") else None,
            revocations=self._choice(document, "revocations", ("", "required")),
            job_filters=tuple(_texts(document.get("job_filters", []))),
        )

    def _choice(self, document: dict[str, Any], key: str, values: tuple[str, ...]) -> str:
        value = values[0] if document.get(key) is None else str(document[key])
        if value not in values:
            raise KitError(
                f"local/policy.yml: {key} must be one of {', '.join(filter(None, values))}",
                participant=self.name,
                why=f"it is {value!r}",
                next_step="mend the file; it is read anew for each job",
            )
        return value

    def store(self) -> str | None:
        """local/store.yml: the URL of the server's PostgreSQL database, if its state lies in one."""
        url = self._local("store.yml").get("store")
        return str(url) if url else None

    def resources(self) -> dict[str, Any]:
        return self._local("resources.yml")

    def _local(self, name: str) -> dict[str, Any]:
        path = self.path / "local" / name
        try:
            document = read_plain(path) or {}
            check_plain(document)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise KitError(f"local/{name} can't be read", participant=self.name, why=str(error)) from None
        if not isinstance(document, dict):
            raise KitError(f"local/{name} must hold a mapping", participant=self.name)
        return document


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else [str(value)]


def read_kit(path: Path | str) -> Kit:
    """Read `startup/participant.yml`.

    Raises:
        KitError: no kit lies there, or it lacks what every kit has.
    """
    folder = Path(path)
    file = folder / "startup" / "participant.yml"
    try:
        document = read_plain(file)
        check_plain(document)
    except OSError as error:
        raise KitError(
            f"{folder} is not a kit",
            why=f"{file.name}: {error.strerror}",
            next_step="fedspan kit verify " + str(folder),
        ) from None
    except ValueError as error:
        raise KitError(f"{file} can't be read", why=str(error)) from None
    try:
        server = document["server"]
        return Kit(
            path=folder.resolve(),
            name=str(document["name"]),
            role=str(document["role"]),
            federation=str(document["federation"]),
            server_name=str(server["name"]),
            port=int(server["port"]),
            runtime=str(document.get("runtime") or ""),
            admin_role=str(document.get("admin_role") or ""),
            gpus=document.get("gpus"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise KitError(f"{file} lacks what every kit has", why=repr(error)) from None
