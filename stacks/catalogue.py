"""A small dated catalogue of machine sizes: which fits a kit's GPUs, and what it lists at an hour.

`sizes.csv`, one row for each size, these columns:

`cloud` (aws, azure), `size`, `vcpu`, `memory_gib`, `gpus` (0: none), `gpu_model`, `gpu_memory_gib` (of each GPU),
`usd_hour` (list price, Linux, on demand, in `price_region`; empty: unknown), `price_region`, `as_of` (when the price
was read), `source` (where).

Prices are list prices of one region, for orientation: the clouds' own bills decide.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from stacks.args import Gpu
from stacks.errors import StackArgumentError
from stacks.names import Cloud


@dataclass(frozen=True)
class Offer:
    """One size of one cloud. `memory_gib` is the machine's, `gpu_memory_gib` each GPU's.

    `usd_hour` is None when the price is unknown; otherwise it is `price_region`'s list price as of `as_of` (ISO date).
    """

    cloud: Cloud
    size: str
    vcpu: int
    memory_gib: float
    gpus: int
    gpu_model: str
    gpu_memory_gib: float
    usd_hour: float | None
    price_region: str
    as_of: str
    source: str


@lru_cache(maxsize=1)
def offers() -> tuple[Offer, ...]:
    """The whole catalogue, in the file's order."""
    text = files("stacks").joinpath("sizes.csv").read_text(encoding="utf-8")
    return tuple(_offer(row) for row in csv.DictReader(text.splitlines()))


def find(cloud: Cloud, size: str) -> Offer | None:
    """The row of this size (case does not matter, as on Azure), or None when the catalogue has not got it."""
    wanted = size.lower()
    return next((offer for offer in offers() if offer.cloud == cloud and offer.size.lower() == wanted), None)


def price(cloud: Cloud, size: str) -> float | None:
    """List price in USD an hour; None when unknown."""
    offer = find(cloud, size)
    return offer.usd_hour if offer else None


def choose_size(cloud: Cloud, gpus: Gpu | None = None, size: str | None = None) -> Offer:
    """The cheapest size that meets the need; with `size`, that row, checked against the need.

    Without GPUs the need is two CPUs and 8 GiB. A size that the catalogue has not got comes back with an unknown price
    and nothing checked: the cloud knows more sizes than this file. Unknown prices sort last, then fewer GPUs, then
    fewer CPUs. Raises `StackArgumentError` when nothing fits.
    """
    if size is not None:
        return _named(cloud, size, gpus)
    fitting = [offer for offer in offers() if offer.cloud == cloud and _fits(offer, gpus)]
    if not fitting:
        most = max(offers(), key=lambda o: (o.cloud == cloud, o.gpus * o.gpu_memory_gib))
        raise StackArgumentError(
            "gpus",
            f"no {cloud} size in the catalogue has {_words(gpus)}; "
            f"the largest has {most.gpus} of {most.gpu_memory_gib:g} GiB",
            next_step="name a size yourself, with size:",
        )
    return min(fitting, key=lambda o: (o.usd_hour is None, o.usd_hour or 0.0, o.gpus, o.vcpu, o.size))


def looks_like_gpu(cloud: Cloud, size: str) -> bool:
    """Whether a size outside the catalogue has NVIDIA GPUs, told by its name: AWS's g and p families, Azure's N."""
    name = size.lower()
    if cloud == "aws":
        return name[:1] in ("g", "p") and name[1:2].isdigit() and not name.startswith("g4ad")
    return name.startswith(("standard_nc", "standard_nd", "standard_nv"))


def _named(cloud: Cloud, size: str, gpus: Gpu | None) -> Offer:
    known = find(cloud, size)
    if known is None:
        return Offer(cloud, size, 0, 0, gpus.count if gpus else 0, "", gpus.memory_gib if gpus else 0, None, "", "", "")
    if gpus is not None and not _fits(known, gpus):
        has = f"{known.gpus} of {known.gpu_memory_gib:g} GiB" if known.gpus else "none"
        raise StackArgumentError(
            "size",
            f"{known.size} has too little for the kit, which needs {_words(gpus)}: it has {has}",
            next_step=f"size: {choose_size(cloud, gpus).size}",
        )
    return known


def _fits(offer: Offer, gpus: Gpu | None) -> bool:
    if gpus is None:
        return offer.gpus == 0 and offer.vcpu >= 2 and offer.memory_gib >= 8
    # A "16 GB" card is told as 15.x or 16 GiB, a "24 GB" one as 22.4: makers count in GB, kits say GiB.
    return offer.gpus >= gpus.count and offer.gpu_memory_gib >= gpus.memory_gib * 0.93


def _words(gpus: Gpu | None) -> str:
    return f"{gpus.count} GPU{'s' if gpus.count > 1 else ''} of {gpus.memory_gib:g} GiB" if gpus else "no GPU"


def _offer(row: dict[str, str]) -> Offer:
    cloud: Cloud = "aws" if row["cloud"] == "aws" else "azure"
    return Offer(
        cloud=cloud,
        size=row["size"],
        vcpu=int(row["vcpu"]),
        memory_gib=float(row["memory_gib"]),
        gpus=int(row["gpus"]),
        gpu_model=row["gpu_model"],
        gpu_memory_gib=float(row["gpu_memory_gib"]),
        usd_hour=float(row["usd_hour"]) if row["usd_hour"] else None,
        price_region=row["price_region"],
        as_of=row["as_of"],
        source=row["source"],
    )
