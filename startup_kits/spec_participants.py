"""Server and sites of `federation.yml` as typed models: where each runs, and what may be said about it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from startup_kits import units
from startup_kits.spec_types import (
    AccountId,
    Cidrs,
    DataPath,
    GiB,
    Host,
    HostKeyPolicy,
    IdleTime,
    Jump,
    Name,
    Port,
    Proxy,
    Torch,
    Words,
)

DEFAULT_PORT = 8002
SERVER = "server"

CLOUDS = ("aws", "azure")
#: Fields that mean something only for some targets, with the targets for which they do.
_ONLY_FOR: dict[str, tuple[str, ...]] = {
    "region": CLOUDS,
    "zone": CLOUDS,
    "zones": CLOUDS,
    "size": CLOUDS,
    "sizes": CLOUDS,
    "fallback_regions": CLOUDS,
    "disk": CLOUDS,
    "spot": CLOUDS,
    "account": ("aws",),
    "profile": ("aws",),
    "subscription": ("azure",),
    "tenant": ("azure",),
    "host": ("host",),
    "user": ("host",),
    "key": ("host",),
    "ssh_port": (*CLOUDS, "host"),
    "jump": (*CLOUDS, "host"),
    "agent": ("host",),
    "host_key": ("host",),
    "proxy": ("host", "kit"),
    **dict.fromkeys(("ssh_access", "mirrors", "network", "image", "kms_key", "idle_stop"), CLOUDS),
    **dict.fromkeys(("encryption_at_host", "self_deallocate"), ("azure",)),
}


class SpecPart(BaseModel):
    """What all parts of the file have in common: no unknown field, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)


class Gpus(SpecPart):
    """How many GPUs, and how much memory each of them needs."""

    count: int = Field(default=1, ge=1, le=16)
    memory: GiB | None = Field(default=None, description="GiB of memory of each GPU, at least")


class Network(SpecPart):
    """The account's own network for a machine in a cloud, by ID; checked for its cloud when a plan is made."""

    vpc: str | None = Field(default=None, max_length=300)
    subnet: str | None = Field(default=None, max_length=300)
    security_group: str | None = Field(default=None, max_length=300)
    private: bool = Field(default=False, description="no public address: reached through `jump`")


class ParticipantSpec(SpecPart):
    """What server and sites have in common: where a participant runs, and on what machine."""

    name: str = Field(default="", exclude=True, init=True)
    role: ClassVar[str]

    target: Literal["aws", "azure", "host", "kit"]
    region: str | None = None
    zone: str | None = None
    zones: Words = Field(default=[], description="instead of zone: tried in this order where the cloud has no room")
    size: str | None = None
    sizes: Words = Field(default=[], description="instead of size: tried in this order where the cloud has no room")
    fallback_regions: Words = Field(default=[], description="tried after region, and only by up --allow-fallback")
    gpus: Gpus | None = None
    disk: GiB | None = None
    spot: bool = False
    account: AccountId | None = None
    profile: str | None = None
    subscription: str | None = None
    tenant: str | None = None
    host: Host | None = None
    user: str | None = None
    key: str | None = Field(default=None, description="path of the SSH key for a host target")
    ssh_port: Port | None = None
    jump: Jump | None = None
    agent: bool = False
    host_key: HostKeyPolicy | None = None
    proxy: Proxy | None = None
    egress: Literal["restricted"] | Cidrs = []
    ssh_access: Literal["always", "during-operations", "never"] | None = None
    mirrors: Cidrs | None = None
    network: Network | None = None
    image: str | None = Field(default=None, max_length=300)
    kms_key: str | None = Field(default=None, max_length=300)
    encryption_at_host: bool = Field(default=False, description="caches and temporary disks too")
    idle_stop: IdleTime | None = Field(default=None, description="off when no job ran for so long; seconds")
    self_deallocate: bool = Field(default=False, description="it ends its own bill, by an identity of its own")

    @property
    def cloud(self) -> str | None:
        """`aws` or `azure` where the deployer makes a machine, else None."""
        return self.target if self.target in CLOUDS else None

    @model_validator(mode="after")
    def _fits_the_target(self) -> ParticipantSpec:
        for field, targets in _ONLY_FOR.items():
            if field in self.model_fields_set and self.target not in targets:
                raise ValueError(f"{field}: has no meaning for target {self.target}, only for {' and '.join(targets)}")
        if "egress" in self.model_fields_set and (self.egress == "restricted") != bool(self.cloud):
            meant = "what the machine may reach" if self.cloud else "what the server sees of the participant"
            right = "`restricted`" if self.cloud else "networks"
            raise ValueError(f"egress: is {meant} for target {self.target}: {right}")
        if self.mirrors is not None and self.egress != "restricted":
            raise ValueError("mirrors: goes with egress: restricted; without it everything is open outwards")
        if self.network is not None and self.network.private and not self.jump:
            raise ValueError("jump: is missing; a machine without a public address is reached through a bastion")
        if self.cloud and not self.region:
            example = "eu-central-1" if self.target == "aws" else "westeurope"
            raise ValueError(f"region: is missing; a machine on {self.target} needs one, such as {example}")
        if (self.size or self.sizes) and self.gpus:
            raise ValueError("gpus: stands beside size; give the size, or the GPUs from which a size is chosen")
        for one, many in (("zone", self.zones), ("size", self.sizes)):
            if many and getattr(self, one):
                raise ValueError(f"{one}: stands beside {one}s; give one of them")
        if self.region in self.fallback_regions:
            raise ValueError(f"fallback_regions: {self.region} is the region itself; name others")
        if self.target == "host" and not (self.host and self.user):
            missing = "host" if not self.host else "user"
            raise ValueError(
                f"{missing}: is missing; a host target needs host (its address) and user (whom to log in as)"
            )
        return self


class ServerSpec(ParticipantSpec):
    """The federation's server: the only participant that others connect to."""

    role: ClassVar[str] = "server"
    name: str = Field(default=SERVER, exclude=True)
    port: Port = DEFAULT_PORT
    hostname: Host | None = None

    @model_validator(mode="after")
    def _never_spot(self) -> ServerSpec:
        if self.spot:
            raise ValueError("spot: the server is never a spot machine, or every job would end with it")
        return self

    @model_validator(mode="after")
    def _never_ends(self) -> ServerSpec:
        if self.idle_stop is not None:
            raise ValueError("idle_stop: the server never turns itself off: it would take every job down with it")
        if self.self_deallocate:
            raise ValueError("self_deallocate: the server never ends by itself, or every job would end with it")
        return self

    @model_validator(mode="after")
    def _a_port_of_its_own(self) -> ServerSpec:
        if self.port == (self.ssh_port or 22):
            raise ValueError(f"port: {self.port} is the port of the machine's SSH; the default is {DEFAULT_PORT}")
        return self


class SiteSpec(ParticipantSpec):
    """A site: a participant that holds data and trains on it."""

    role: ClassVar[str] = "site"
    data: dict[Name, DataPath] = {}
    torch: Torch | None = Field(default=None, description="where job scripts get torch from")

    @model_validator(mode="after")
    def _off_ends_the_bill(self) -> SiteSpec:
        if self.idle_stop is not None and self.target == "azure" and not self.self_deallocate:
            raise ValueError(
                "idle_stop: Azure bills a machine on that powered itself off; wanted is self_deallocate: true, "
                "or fedspan stop --idle 2h from a timer of yours"
            )
        return self

    @model_validator(mode="after")
    def _never_the_world(self) -> SiteSpec:
        for network in self.egress if isinstance(self.egress, list) else ():
            if units.is_world(network):
                raise ValueError(
                    f"egress: {network} opens the server's port to the world; name what the server sees of the site"
                )
        return self
