"""One participant as the deployer sees it: what the spec (or a kit's owner) wants, completed from kit and catalogue."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from startup_kits.errors import KitError
from startup_kits.torch_source import TorchSource

if TYPE_CHECKING:
    from stacks.args import Gpu
    from stacks.catalogue import Offer
    from stacks.names import Cloud
    from startup_kits.kit import Kit
    from startup_kits.spec import ParticipantSpec

# GiB of the operating system's disk; images with GPU drivers and CUDA need more
OS_DISK_GIB = 64
GPU_OS_DISK_GIB = 160
# GiB of the volume with the runtime's state, where the spec names none
STATE_DISK_GIB = {"server": 64, "site": 32}


@dataclass(frozen=True)
class Member:
    """A participant to be deployed. Sizes in GiB; `port` is the server's."""

    name: str
    role: Literal["server", "site"]
    target: str
    kit: Path
    region: str | None = None
    zone: str | None = None
    size: str | None = None
    zones: tuple[str, ...] = ()
    """Zones of the spec's region to try, in this order; `zone` is the one that is wanted now."""
    sizes: tuple[str, ...] = ()
    """Sizes to try, in this order; `size` is the one that is wanted now."""
    fallback_regions: tuple[str, ...] = ()
    home_region: str | None = None
    """The spec's region, where `region` is one of the others."""
    zone_chosen: bool = False
    """`zone` was found to have room; the spec names none."""
    market_chosen: bool = False
    """It is on demand because there was no room for spot machines; the spec wants one."""
    gpu_count: int = 0
    gpu_memory_gib: float = 0.0
    disk_gib: float | None = None
    spot: bool = False
    account: str | None = None
    profile: str | None = None
    subscription: str | None = None
    tenant: str | None = None
    host: str | None = None
    user: str | None = None
    key: str | None = None
    ssh_port: int | None = None
    jump: str | None = None
    agent: bool = False
    host_key: str | None = None
    """Of a host: `ask`, `accept-new`, or the public key itself."""
    proxy: str | None = None
    ssh_access: Literal["always", "during-operations", "never"] = "always"
    egress_restricted: bool = False
    existing: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What it uses of the account's own: the fields of `stacks.existing.Existing`."""
    encryption_at_host: bool = False
    """Azure: what lies on the host itself (caches, temporary disks) is encrypted too."""
    idle_stop: int | None = None
    """Seconds without a job after which a site's machine in a cloud turns itself off; None: never."""
    self_deallocate: bool = False
    """Azure: its machine ends its own bill, by an identity of its own."""
    mirrors: tuple[str, ...] = ("0.0.0.0/0",)
    egress: tuple[str, ...] = ()
    port: int | None = None
    data: dict[str, str] = field(default_factory=dict, hash=False)
    torch: TorchSource | None = None
    """Where job scripts get torch from, as the kit says; None where it says nothing."""

    @property
    def cloud(self) -> Cloud | None:
        """`aws` or `azure` where the participant has a stack, else None."""
        return cast("Cloud", self.target) if self.target in ("aws", "azure") else None

    @property
    def has_machine(self) -> bool:
        """Whether we log in to its machine."""
        return self.target != "kit"

    @property
    def gpus(self) -> Gpu | None:
        """What the kit needs."""
        from stacks.args import Gpu

        return Gpu(self.gpu_count, self.gpu_memory_gib) if self.gpu_count else None

    @property
    def has_gpus(self) -> bool:
        """Whether its machine has GPUs: the kit asks for them, or its size is known to have them."""
        return bool(self.gpu_count) or (self.cloud is not None and self.offer().gpus > 0)

    @property
    def wanted_torch(self) -> TorchSource | None:
        """Where torch comes from on its machine: what the kit says, the image's where GPUs are wanted, else none."""
        if self.role != "site":
            return None
        return self.torch or (TorchSource() if self.has_gpus else None)

    def offer(self) -> Offer:
        """The machine's size, its GPUs and its list price. Only for a participant in a cloud."""
        from stacks.catalogue import choose_size

        assert self.cloud is not None, "only a participant in a cloud has a size"
        return choose_size(self.cloud, self.gpus, self.size)

    @property
    def os_disk_gib(self) -> int:
        """The operating system's disk."""
        return GPU_OS_DISK_GIB if self.has_gpus else OS_DISK_GIB

    @property
    def state_disk_gib(self) -> int:
        """The volume with the runtime's state."""
        return math.ceil(self.disk_gib) if self.disk_gib else STATE_DISK_GIB[self.role]

    def with_kit(self, kit: Kit) -> Member:
        """What the kit says goes before what the spec says: port and GPU needs.

        Raises:
            KitError: the kit is another participant's.
        """
        if (kit.name, kit.role) != (self.name, self.role):
            raise KitError(
                f"{kit.path} is the kit of {kit.role} {kit.name}",
                participant=self.name,
                next_step=f"move {kit.path} away, then: fedspan provision",
            )
        return replace(
            self,
            port=kit.port if self.role == "server" else None,
            gpu_count=kit.gpu_count or self.gpu_count,
            gpu_memory_gib=kit.gpu_memory_gib or self.gpu_memory_gib,
            torch=kit.torch,
        )


def existing_of(spec: ParticipantSpec) -> dict[str, Any]:
    """What a participant uses of the account's own, as the stack takes it."""
    network = spec.network.model_dump() if spec.network is not None else {}
    return {**network, "image": spec.image, "kms_key": spec.kms_key} if spec.cloud else {}


def uses_in_words(member: Member) -> str:
    """What a machine uses of the account's own, and how its disks are encrypted where the spec says so. Pure."""
    words = [f"{name.replace('_', ' ')} {known}" for name, known in member.existing.items() if isinstance(known, str)]
    if member.existing.get("private"):
        words.append("no public address")
    if member.encryption_at_host:
        words.append("encryption at host")
    return ", ".join(words)


def from_spec(spec: ParticipantSpec, kits_dir: Path) -> Member:
    """A participant of federation.yml."""
    role: Literal["server", "site"] = "server" if spec.role == "server" else "site"
    gpus = spec.gpus
    return Member(
        name=spec.name,
        role=role,
        target=spec.target,
        kit=kits_dir / spec.name,
        region=spec.region,
        zone=spec.zone or next(iter(spec.zones), None),
        size=spec.size or next(iter(spec.sizes), None),
        zones=tuple(spec.zones),
        sizes=tuple(spec.sizes),
        fallback_regions=tuple(spec.fallback_regions),
        gpu_count=gpus.count if gpus else 0,
        gpu_memory_gib=(gpus.memory or 0.0) if gpus else 0.0,
        disk_gib=spec.disk,
        spot=spec.spot,
        account=spec.account,
        profile=spec.profile,
        subscription=spec.subscription,
        tenant=spec.tenant,
        host=spec.host,
        user=spec.user,
        key=spec.key,
        ssh_port=spec.ssh_port,
        jump=spec.jump,
        agent=spec.agent,
        host_key=spec.host_key,
        proxy=spec.proxy,
        egress=() if spec.egress == "restricted" else tuple(spec.egress),
        ssh_access=spec.ssh_access or "always",
        existing=existing_of(spec),
        encryption_at_host=spec.encryption_at_host,
        idle_stop=spec.idle_stop,
        self_deallocate=spec.self_deallocate,
        egress_restricted=spec.egress == "restricted",
        mirrors=tuple(spec.mirrors) if spec.mirrors is not None else ("0.0.0.0/0",),
        port=getattr(spec, "port", None),
        data=dict(getattr(spec, "data", {})),
    )
