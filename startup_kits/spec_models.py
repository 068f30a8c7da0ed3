"""`federation.yml` as typed models: the whole of a federation, and what holds between its parts.

`startup_kits.spec.load_spec` reads a file into these; server and sites are `startup_kits.spec_participants`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from startup_kits import regions, units
from startup_kits.spec_participants import SERVER, ParticipantSpec, ServerSpec, SiteSpec, SpecPart
from startup_kits.spec_types import Areas, Cidrs, Email, Name, Torch
from startup_kits.torch_source import TorchSource


class Defaults(SpecPart):
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


class AdminSpec(SpecPart):
    """A person who submits jobs and looks after the federation."""

    role: Literal["lead", "member", "observer"] = "member"
    from_: Cidrs = Field(default=[], alias="from")

    @model_validator(mode="after")
    def _never_the_world(self) -> AdminSpec:
        for network in self.from_:
            if units.is_world(network):
                raise ValueError(f"from: {network} opens the server's port to the world; name the admin's network")
        return self


class FederationSpec(SpecPart):
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
