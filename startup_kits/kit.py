"""A startup kit on disk: reading it, verifying it, and writing its server's address."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from startup_kits import certificates, layout, signing
from startup_kits.certificates import Subject
from startup_kits.errors import KitError
from startup_kits.torch_source import TorchSource, torch_source
from startup_kits.units import EMAIL, NAME
from startup_kits.workspace import write_private

PARTICIPANT = "startup/participant.yml"
CERTIFICATE = "startup/participant.crt"
CA_CERTIFICATE = "startup/ca.crt"
ENDPOINT = "local/endpoint.yml"
ROLES = ("server", "site", "admin")
LEAD_AGAIN = "ask the federation's lead for the kit again; where it was made: move it away, then fedspan provision"


@dataclass(frozen=True)
class Endpoint:
    """Where the server can be reached: `HOST:PORT`, and an HTTP proxy's URL on the way."""

    server: str | None
    proxy: str | None = None


@dataclass(frozen=True)
class Kit:
    """What a kit says. `Kit.open` only reads; `Kit.verify` also checks that it is to be believed."""

    path: Path
    name: str
    role: str
    federation: str
    server_name: str
    hostname: str | None
    port: int
    runtime: str
    gpu_count: int
    gpu_memory_gib: float | None
    admin_role: str | None
    residency: tuple[str, ...]
    torch: TorchSource | None
    ca_fingerprint: str
    certificate: x509.Certificate

    @classmethod
    def open(cls, path: Path | str) -> Kit:
        """Reads a kit.

        Raises:
            KitError: the folder is no kit, or one of its files is missing or makes no sense.
        """
        path = Path(path)
        if path.is_file() and path.suffix == ".zip":
            raise KitError(f"{path} is a zip", next_step=f"unzip {path}, then name the folder")
        if not (path / PARTICIPANT).is_file():
            raise KitError(
                f"{path} is not a startup kit",
                why=f"it has no {PARTICIPANT}" if path.exists() else "there is no such folder",
                next_step="name a kit's folder, such as kits/site-1; fedspan provision makes them",
            )
        with _completed(path.resolve().name):
            return cls._open(path)

    @classmethod
    def _open(cls, path: Path) -> Kit:
        content = _mapping(path, PARTICIPANT)
        certificate = certificates.load_certificate(_bytes(path, CERTIFICATE), CERTIFICATE)
        ca = certificates.load_certificate(_bytes(path, CA_CERTIFICATE), CA_CERTIFICATE)
        try:
            if content["version"] != layout.KIT_VERSION:
                raise KitError(
                    f"the kit has version {content['version']}, this fedspan reads version {layout.KIT_VERSION}",
                    next_step=f"python3 -m pip install --upgrade 'fedspan>={content['runtime']}'",
                )
            server, gpus = content["server"], content["gpus"] or {}
            kit = cls(
                path=path.resolve(),
                name=str(content["name"]),
                role=str(content["role"]),
                federation=str(content["federation"]),
                server_name=str(server["name"]),
                hostname=server.get("hostname"),
                port=int(server["port"]),
                runtime=str(content["runtime"]),
                gpu_count=int(gpus.get("count", 0)),
                gpu_memory_gib=gpus.get("memory_gib"),
                admin_role=content.get("admin_role"),
                residency=tuple(str(area) for area in content.get("residency") or ()),
                torch=torch_source(content["torch"]) if content.get("torch") is not None else None,
                ca_fingerprint=certificates.fingerprint(ca),
                certificate=certificate,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise KitError(f"{PARTICIPANT} makes no sense", why=f"{type(error).__name__}: {error}") from None
        if kit.role not in ROLES:
            raise KitError(f"{PARTICIPANT} names an unknown role", why=kit.role)
        # both become parts of paths (pins, state), and a stranger's kit may be signed by a CA of the stranger's own
        for text, form in ((kit.federation, NAME), (kit.name, EMAIL if kit.role == "admin" else NAME)):
            if not form.fullmatch(text):
                raise KitError(f"{PARTICIPANT} makes no sense", why=f"{text!r} is no name")
        return kit

    @classmethod
    def verify(cls, path: Path | str, ca_fingerprint: str | None = None) -> Kit:
        """Reads a kit and checks everything that can be checked.

        The CA (against `ca_fingerprint` where given), the signature over every file, the certificate's issuer,
        validity and subject, the private key and its permissions.

        Raises:
            KitError: naming what is wrong.
        """
        kit = cls.open(path)
        with _completed(kit.name):
            kit._verify(ca_fingerprint)
        return kit

    def _verify(self, ca_fingerprint: str | None) -> None:
        kit = self
        if ca_fingerprint is not None:
            wanted = certificates.normal_fingerprint(ca_fingerprint)
            if wanted != kit.ca_fingerprint:
                raise KitError(
                    "the kit is of another CA",
                    participant=kit.name,
                    why=f"its fingerprint is {kit.ca_fingerprint}, expected was {wanted}",
                    next_step="ask the federation's lead for the right kit, and read the fingerprint to each other",
                )
        ca = certificates.load_certificate(_bytes(kit.path, CA_CERTIFICATE), CA_CERTIFICATE)
        signing.check(kit.path, ca, kit.name, kit.federation)
        certificates.check_issued(kit.certificate, ca)
        named = Subject.of(kit.certificate)
        said = (kit.name, kit.federation, kit.role, kit.admin_role)
        if (named.name, named.federation, named.role, named.admin_role) != said:
            raise KitError("the certificate names somebody else", participant=kit.name, why=str(named.name))
        kit._check_key()

    def _check_key(self) -> None:
        path = self.path / signing.PRIVATE_KEY
        key_bytes = _bytes(self.path, signing.PRIVATE_KEY)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise KitError(
                f"{signing.PRIVATE_KEY} can be read by others", participant=self.name, next_step=f"chmod 600 {path}"
            )
        try:
            key = serialization.load_pem_private_key(key_bytes, None)
        except (ValueError, TypeError):
            raise KitError(f"{signing.PRIVATE_KEY} is no private key", participant=self.name) from None
        if key.public_key() != self.certificate.public_key():
            raise KitError(f"{signing.PRIVATE_KEY} does not belong to the certificate", participant=self.name)

    def endpoint(self) -> Endpoint:
        """The server's address as this kit knows it now."""
        if not (self.path / ENDPOINT).exists():
            return Endpoint(None)
        content = _mapping(self.path, ENDPOINT)
        return Endpoint(content.get("server"), content.get("proxy"))

    def set_endpoint(self, server: str | None, proxy: str | None = None) -> bool:
        """Writes the server's address; signed files are not touched. Whether anything changed.

        A proxy that is written there stays unless another is given.
        """
        now = self.endpoint()
        new = Endpoint(server, proxy or now.proxy)
        if now == new:
            return False
        (self.path / "local").mkdir(exist_ok=True)
        write_private(self.path / ENDPOINT, layout.endpoint_file(new.server, new.proxy).encode(), 0o644)
        return True

    def data(self) -> dict[str, str]:
        """Names and paths of the data that this site declares, empty for other roles."""
        if not (self.path / "local/data.yml").exists():
            return {}
        data = _mapping(self.path, "local/data.yml").get("data") or {}
        return {str(name): str(path) for name, path in data.items()}


@contextlib.contextmanager
def _completed(name: str) -> Iterator[None]:
    """Every refusal of a kit tells whose it is and what to do, also where a file's own check can't know."""
    try:
        yield
    except KitError as error:
        error.complete(name, LEAD_AGAIN)
        raise


def _bytes(kit: Path, path: str) -> bytes:
    if (kit / path).is_symlink() or (kit / path).parent.is_symlink():
        raise KitError(f"{path} in the kit is a link", why="a kit holds no links: they could lead anywhere")
    try:
        return (kit / path).read_bytes()
    except FileNotFoundError:
        raise KitError(
            f"{path} is missing in the kit", next_step="ask the federation's lead for the kit again"
        ) from None
    except OSError as error:
        raise KitError(f"{path} in the kit can't be read", why=error.strerror) from None


def _mapping(kit: Path, path: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(_bytes(kit, path))
    except (yaml.YAMLError, RecursionError) as error:
        raise KitError(f"{path} in the kit is not YAML", why=str(error).replace("\n", " ")) from None
    if not isinstance(content, dict):
        raise KitError(f"{path} in the kit holds no mapping of keys")
    return content
