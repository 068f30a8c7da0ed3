"""What a participant's stack is made from: frozen, typed, checked before any engine or cloud sees it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from stacks.cidr import check_cidr
from stacks.errors import StackArgumentError
from stacks.existing import Existing
from stacks.names import NAME, key_fingerprint

MAX_RULES = 60
"""Ingress rules of one machine: EC2's default quota for each security group (Azure allows 1000)."""

CUSTOM_DATA_LIMIT = 16 * 1024
"""Bytes of user-data before base64: EC2's limit; Azure takes 64 KiB, the same text serves both."""

_PUBLIC_KEY_TYPES = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
_DEPLOYMENT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_USER = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_REGION = re.compile(r"[a-z][a-z0-9-]{2,40}")
_SIZE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{1,60}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_TAG_TEXT = re.compile(r"[\w .:/=+@-]*")
_AZURE_TAG_KEY = re.compile(r"[^<>%&\\?/]+")
# Azure refuses these as administrators' names; root and the images' own users would clash with cloud-init's.
_RESERVED_USERS = frozenset(
    (
        "root",
        "admin",
        "administrator",
        "user",
        "guest",
        "test",
        "adm",
        "backup",
        "console",
        "daemon",
        "bin",
        "sys",
        "sshd",
    )
)


@dataclass(frozen=True)
class HostKey:
    """A machine's SSH host key, made before the machine.

    `private` is OpenSSH's PEM text and enters user-data as a secret only; `public` is one line `ssh-ed25519 AAAA…`.
    """

    private: str = field(repr=False)
    public: str

    @property
    def fingerprint(self) -> str:
        """`SHA256:…` as OpenSSH prints it."""
        return key_fingerprint(self.public)


@dataclass(frozen=True)
class Gpu:
    """The GPUs that a kit needs: how many, and the memory that each must have at least, in GiB."""

    count: int
    memory_gib: float = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise StackArgumentError("gpus.count", f"{self.count} is not a number of GPUs; leave gpus out for none")
        if self.memory_gib < 0:
            raise StackArgumentError("gpus.memory", f"{self.memory_gib} GiB is less than nothing")


Endpoints = Mapping[str, str]
"""Service name (`ec2`, `ssm`, `sts`) to the URL that answers for it."""


@dataclass(frozen=True, kw_only=True)
class ParticipantArgs:
    """Everything that decides one participant's infrastructure. Disks in GiB; CIDRs as IPv4 text.

    Raises `StackArgumentError`, which names the field, when a value is wrong for every cloud; what is wrong for one
    of them `stacks.cloud_checks` finds.
    """

    federation: str
    deployment: str
    participant: str
    role: Literal["server", "site"]
    owner: str
    region: str
    size: str
    zone: str | None = None
    gpus: Gpu | None = None
    os_disk_gib: int = 64
    state_disk_gib: int = 32
    ssh_user: str = "fedspan"
    ssh_port: int = 22
    runtime_port: int | None = None
    ssh_access: Literal["always", "during-operations", "never"] = "always"
    """`always`: rules for `ssh_ingress`. Else the stack has no rule for SSH."""
    ssh_ingress: tuple[str, ...] = ()
    runtime_ingress: tuple[str, ...] = ()
    egress_restricted: bool = False
    """Outwards only to the server, DNS, time and package mirrors; else everywhere."""
    server_cidr: str | None = None
    server_port: int | None = None
    """Where a site finds the server, for `egress_restricted`."""
    mirrors: tuple[str, ...] = ("0.0.0.0/0",)
    """Networks in which package mirrors are (HTTP and HTTPS), for `egress_restricted`."""
    public_key: str
    host_key: HostKey
    tags: Mapping[str, str] = field(default_factory=dict)
    spot: bool = False
    encryption_at_host: bool = False
    torch_image: bool = False
    """With GPUs: the image that has torch too, where the cloud has one; else the smaller one with the driver alone."""
    existing: Existing = field(default_factory=Existing)
    """What it uses of the account's own: network, security group, image, key."""
    expires: str | None = None
    """When a site's machine ends itself, `2026-11-30T05:00:00Z` (a timer on it does it); None: never."""
    deallocate_at: str | None = None
    """`HHMM` in UTC: Azure deallocates the machine daily at that time. For the last day before `expires` only."""
    self_deallocate: bool = False
    """Azure: a site's machine gets an identity of its own that may turn this machine on and off, and nothing else."""
    principal: str | None = field(default=None, repr=False)
    """Azure: the ID of that identity where it stands, as the checkpoint has it; for previews only."""
    drop_identity: bool = False
    """Azure: the machine that stands had an identity once. ARM keeps one that a request does not speak of."""
    reimage: bool = False
    """Another image than the machine's is wanted: a size with GPUs replaces one without (or back), or one's own image
    does. Else a machine that stands keeps its image."""
    trusted_launch: bool = True
    """Azure, where the image knows it. False: a machine that stands was made without, and would be replaced for it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ssh_ingress", tuple(self.ssh_ingress))
        object.__setattr__(self, "runtime_ingress", tuple(self.runtime_ingress))
        object.__setattr__(self, "tags", MappingProxyType(dict(self.tags)))
        self._check_names()
        self._check_machine()
        self._check_ports_and_rules()
        self._check_keys()
        self._check_tags()

    def _fail(self, field_name: str, what: str, next_step: str | None = None) -> StackArgumentError:
        return StackArgumentError(field_name, what, participant=str(self.participant), next_step=next_step)

    def _check_names(self) -> None:
        for name in ("federation", "participant"):
            if not NAME.fullmatch(getattr(self, name)):
                raise self._fail(
                    name, f"{getattr(self, name)!r} must be 2 to 32 of a-z, 0-9 and -, and start with a letter"
                )
        if not _DEPLOYMENT.fullmatch(self.deployment):
            raise self._fail("deployment", f"{self.deployment!r} must be 1 to 40 of a-z, 0-9 and -")
        if self.role not in ("server", "site"):
            raise self._fail("role", f"{self.role!r} has no machine; only server and site have one")
        if not self.owner or len(self.owner) > 256 or not _TAG_TEXT.fullmatch(self.owner):
            raise self._fail("owner", f"{self.owner!r} can't be a tag", "an e-mail address or a team's name")

    def _check_machine(self) -> None:
        if not _REGION.fullmatch(self.region):
            raise self._fail("region", f"{self.region!r} is no region's name")
        if not _SIZE.fullmatch(self.size):
            raise self._fail("size", f"{self.size!r} is no machine size's name")
        if not 8 <= self.os_disk_gib <= 2048:
            raise self._fail("os_disk_gib", f"{self.os_disk_gib} GiB is outside 8 to 2048")
        if not 1 <= self.state_disk_gib <= 16384:
            raise self._fail("state_disk_gib", f"{self.state_disk_gib} GiB is outside 1 to 16384")
        if self.spot and self.role == "server":
            raise self._fail("spot", "the server is never a spot machine: it would take every job down with it")
        if self.expires is not None and not _TIME.fullmatch(self.expires):
            raise self._fail("expires", f"{self.expires!r} is no time", "2026-11-30T05:00:00Z")
        if self.expires is not None and self.role == "server":
            raise self._fail("expires", "the server never ends by itself: it would take every job down with it")
        if self.self_deallocate and self.role == "server":
            raise self._fail("self_deallocate", "the server never ends by itself: it would take every job down with it")
        if self.self_deallocate and self.deallocate_at is not None:
            raise self._fail("deallocate_at", "the machine deallocates itself", "leave one of them out")
        if not _USER.fullmatch(self.ssh_user) or self.ssh_user in _RESERVED_USERS:
            raise self._fail("ssh_user", f"{self.ssh_user!r} can't be the login name on every image", "fedspan")

    def _check_ports_and_rules(self) -> None:
        for name, port in (("ssh_port", self.ssh_port), ("runtime_port", self.runtime_port)):
            if port is not None and not 1 <= port <= 65535:
                raise self._fail(name, f"{port} is no port")
        if self.role == "server" and self.runtime_port is None:
            raise self._fail("runtime_port", "a server needs one: its kit names it")
        if self.role == "site" and (self.runtime_port is not None or self.runtime_ingress):
            raise self._fail("runtime_port", "a site has no ingress but SSH: sites connect outwards")
        if self.runtime_port == self.ssh_port:
            raise self._fail("runtime_port", f"{self.runtime_port} is the SSH port too")
        if self.existing.security_group:
            self._check_foreign_group()
        elif self.ssh_access == "never":
            raise self._fail("ssh_access", "never: nobody could install the runtime", "network: {security_group: ID}")
        elif self.ssh_access == "always" and not self.ssh_ingress:
            raise self._fail("ssh_ingress", "nobody could log in", "name your address, for example 203.0.113.7/32")
        if self.ssh_access != "always" and self.ssh_ingress:
            raise self._fail("ssh_ingress", f"with ssh_access {self.ssh_access} the stack opens no SSH")
        if self.server_cidr is not None:
            check_cidr(self.server_cidr, "server_cidr", self.participant)
        for name in ("ssh_ingress", "runtime_ingress"):
            given: tuple[str, ...] = getattr(self, name)
            for cidr in given:
                check_cidr(cidr, name, self.participant)
            twice = sorted({cidr for cidr in given if given.count(cidr) > 1})
            if twice:
                raise self._fail(name, f"{', '.join(twice)} is there twice", "name each network once")
        total = len(self.ssh_ingress) + len(self.runtime_ingress) + door_rules(self.ssh_access)
        if total > MAX_RULES:
            raise self._fail(
                "runtime_ingress",
                f"{total} rules, and a security group takes {MAX_RULES}",
                "join neighbouring addresses into one network",
            )

    def _check_foreign_group(self) -> None:
        """A security group of somebody else's gets no rules of ours, so none must be wanted."""
        if self.ssh_access == "during-operations":
            raise self._fail("ssh_access", "during-operations changes a group's rules; this group is not ours", "never")
        if self.egress_restricted:
            raise self._fail("egress", "restricted is for groups that fedspan makes; this one's own rules decide")

    def _check_keys(self) -> None:
        for name, line in (("public_key", self.public_key), ("host_key.public", self.host_key.public)):
            if not _is_public_key(line):
                raise self._fail(name, "is no OpenSSH public key in one line", "like ssh-ed25519 AAAA…")
        if not self.host_key.public.startswith("ssh-ed25519 "):
            raise self._fail("host_key.public", "host keys are ed25519")
        private = self.host_key.private
        if not private.startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n"):
            raise self._fail("host_key.private", "is no OpenSSH private key")
        if not private.rstrip().endswith("-----END OPENSSH PRIVATE KEY-----"):
            raise self._fail("host_key.private", "is cut off")

    def _check_tags(self) -> None:
        if len(self.tags) > 30:
            raise self._fail("tags", f"{len(self.tags)} tags; 30 are left beside fedspan's own")
        lowered = [key.lower() for key in self.tags]
        if len(set(lowered)) < len(lowered):
            raise self._fail("tags", "two keys differ in case only: Azure takes them for one")
        for key, value in self.tags.items():
            if not key or len(key) > 128 or not _TAG_TEXT.fullmatch(key) or not _AZURE_TAG_KEY.fullmatch(key):
                raise self._fail("tags", f"{key!r} can't be a tag's key on both clouds")
            if key.lower() == "name" or key.lower().startswith(("fedspan", "aws", "azure", "microsoft", "windows")):
                raise self._fail("tags", f"{key!r} is reserved")
            if len(value) > 256 or not _TAG_TEXT.fullmatch(value):
                raise self._fail("tags", f"{key}: {value!r} can't be a tag's value")


def door_rules(ssh_access: str) -> int:
    """How many rules a command adds to a machine's own, past its stack, while it is logged in."""
    return 1 if ssh_access == "during-operations" else 0


def _is_public_key(line: str) -> bool:
    parts = line.split()
    if "\n" in line.strip() or len(parts) < 2 or parts[0] not in _PUBLIC_KEY_TYPES:
        return False
    try:
        blob = base64.b64decode(parts[1], validate=True)
    except (binascii.Error, ValueError):
        return False
    return blob[4 : 4 + int.from_bytes(blob[:4], "big")].decode("ascii", "replace") == parts[0]
