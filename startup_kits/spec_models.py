"""`federation.yml` as typed models: what a federation is made of, and what may be said about each part.

`startup_kits.spec.load_spec` reads a file into these; the rules that need several fields stand here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from startup_kits import regions, units
from startup_kits.spec_types import (
    AccountId,
    Areas,
    Cidrs,
    DataPath,
    Email,
    GiB,
    Host,
    HostKeyPolicy,
    Jump,
    Name,
    Port,
    Proxy,
    Torch,
    Words,
)
from startup_kits.torch_source import TorchSource

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
    **dict.fromkeys(("ssh_access", "mirrors", "network", "image", "kms_key"), CLOUDS),
}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)


class Gpus(_Model):
    """How many GPUs, and how much memory each of them needs."""

    count: int = Field(default=1, ge=1, le=16)
    memory: GiB | None = Field(default=None, description="GiB of memory of each GPU, at least")


class Network(_Model):
    """The account's own network for a machine in a cloud, by ID; checked for its cloud when a plan is made."""

    vpc: str | None = Field(default=None, max_length=300)
    subnet: str | None = Field(default=None, max_length=300)
    security_group: str | None = Field(default=None, max_length=300)
    private: bool = Field(default=False, description="no public address: reached through `jump`")


class Defaults(_Model):
    """What holds for every participant that does not say otherwise."""

    owner: str = Field(default="", max_length=200)
    ssh_from: Literal["auto"] | Cidrs = "auto"
    tags: dict[str, str] = Field(default={}, max_length=30, description="tags of yours on every resource")
    torch: Torch | None = Field(default=None, description="for every site that does not say otherwise")

    @model_validator(mode="after")
    def _never_the_world(self) -> Defaults:
        for network in self.ssh_from if isinstance(self.ssh_from, list) else ():
            if units.is_world(network):
                raise ValueError(f"ssh_from: {network} opens SSH to the world; name your own network, or auto")
        return self


class ParticipantSpec(_Model):
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
    def _never_the_world(self) -> SiteSpec:
        for network in self.egress if isinstance(self.egress, list) else ():
            if units.is_world(network):
                raise ValueError(
                    f"egress: {network} opens the server's port to the world; name what the server sees of the site"
                )
        return self


class AdminSpec(_Model):
    """A person who submits jobs and looks after the federation."""

    role: Literal["lead", "member", "observer"] = "member"
    from_: Cidrs = Field(default=[], alias="from")

    @model_validator(mode="after")
    def _never_the_world(self) -> AdminSpec:
        for network in self.from_:
            if units.is_world(network):
                raise ValueError(f"from: {network} opens the server's port to the world; name the admin's network")
        return self


class FederationSpec(_Model):
    """A whole federation. `participants()` gives the server and the sites, in that order."""

    version: Literal[1]
    name: Name
    residency: Areas = []
    defaults: Defaults = Defaults()
    server: ServerSpec
    sites: dict[Name, SiteSpec]
    admins: dict[Email, AdminSpec]

    @model_validator(mode="before")
    @classmethod
    def _give_names(cls, values: Any) -> Any:
        """Every part learns its own name, which in the file is the key it stands under."""
        if not isinstance(values, Mapping):
            return values
        given = dict(values)
        if isinstance(server := given.get(SERVER), Mapping) and "name" in server:
            raise ValueError(f"server.name: is not known here; the server is always called {SERVER}")
        if isinstance(sites := given.get("sites"), Mapping):
            for key, site in sites.items():
                if isinstance(site, Mapping) and "name" in site:
                    raise ValueError(f"sites.{key}.name: is not known here; the site's name is {key}")
            given["sites"] = {
                key: {**site, "name": key} if isinstance(site, Mapping) else site for key, site in sites.items()
            }
        if isinstance(server, Mapping) and "torch" in server:
            raise ValueError(f"{SERVER}.torch: means something for sites only: that is where scripts train")
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> FederationSpec:
        if not self.sites:
            raise ValueError("sites: at least one site is wanted")
        if SERVER in self.sites:
            raise ValueError(f"sites.{SERVER}: a site can't be called {SERVER}; that is the server's name")
        if not any(admin.role == "lead" for admin in self.admins.values()):
            raise ValueError("admins: at least one admin with role: lead is wanted")
        self._check_residency()
        self._check_jumps()
        return self

    def _check_jumps(self) -> None:
        """Through a jump host a connection comes from there: this computer's own address is of no use in a rule."""
        for one in self.participants().values():
            if not (one.cloud and one.jump) or (one.network is not None and one.network.security_group):
                continue
            if one.ssh_access == "never":
                continue
            during = one.ssh_access == "during-operations"
            if not during and self.defaults.ssh_from != "auto":
                continue
            place = "server" if one.name == SERVER else f"sites.{one.name}"
            lets_in = "ssh_access: during-operations" if during else "ssh_from: auto"
            raise ValueError(
                f"{place}.jump: SSH comes from the jump host, but {lets_in} lets in this computer's own address; "
                "name the jump host's network in defaults.ssh_from"
                + (" and leave ssh_access out" if during else "")
                + ", or let it in by a security group of yours (network: {security_group: ID})"
            )

    def _check_residency(self) -> None:
        if not self.residency:
            return
        places = [
            (participant, region)
            for participant in self.participants().values()
            for region in (participant.region, *participant.fallback_regions)
        ]
        for participant, region in places:
            cloud = participant.cloud
            if cloud is None or region is None or regions.allowed(self.residency, cloud, region):
                continue
            place = "server" if participant.name == SERVER else f"sites.{participant.name}"
            area = regions.area_of(cloud, region)
            if area is not None:
                why = f"{region} lies in {area}, outside residency {self.residency}"
            else:
                near = regions.nearest(cloud, region)
                why = f"{region} is no region of {cloud} that fedspan knows" + (
                    f"; did you mean {near}?" if near else ""
                )
            fitting = [name for entry in self.residency for name in regions.regions_of(entry, cloud)]
            raise ValueError(f"{place}.region: {why} (allowed: {', '.join(fitting) or 'none'})")

    def torch_of(self, site: SiteSpec) -> TorchSource | None:
        """Where a site gets torch from, as the file says; None where it says nothing."""
        return site.torch or self.defaults.torch

    def participants(self) -> dict[str, ParticipantSpec]:
        """Server first, then the sites in the file's order."""
        return {SERVER: self.server, **self.sites}

    @property
    def server_name(self) -> str:
        """The name in the server's certificate, which is always the name verified."""
        return f"{SERVER}.{self.name}.fedspan"
