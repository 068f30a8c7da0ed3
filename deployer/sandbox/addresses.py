"""Loopback addresses: a block for each sandbox, an address for each thing in it.

Everything in a sandbox lives in 127.0.0.0/8. Each sandbox holds one block of 1024 addresses (127.64.0.0/22 and up);
whoever listens on the block's first address at `LOCK_PORT` owns it. That lock is the kernel's, so it holds between
users too, ends with its process however that ends, and leaves no file behind. The same listener is the control API.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

LOCK_PORT = 8470
_FIRST_BLOCK = int(ipaddress.IPv4Address("127.64.0.0"))
_BLOCK_SIZE = 1024
_BLOCKS = (int(ipaddress.IPv4Address("127.255.0.0")) - _FIRST_BLOCK) // _BLOCK_SIZE
# The first sixteen addresses of a block are the sandbox's own (control, moto, ARM); the rest is for allocation.
_RESERVED = 16


SPACES = ("127.0.0.0/8", "198.18.0.0/15")
"""Addresses that never leave this computer: loopback, and what is set aside for benchmarks (the nspawn driver)."""


class AddressPoolExhausted(Exception):
    """No address is left in the block."""


class NoLoopbackBlock(Exception):
    """This machine has no usable addresses beyond 127.0.0.1 (macOS), or every block is taken."""


class AddressPool:
    """Hands out the addresses of one network. Thread-safe. The first `reserved` stay out.

    Freshly released addresses are handed out last, as a cloud does: a stale endpoint then meets nobody rather than
    a stranger.
    """

    def __init__(self, network: str, reserved: int = 0) -> None:
        self.network = ipaddress.IPv4Network(network)
        if not any(self.network.subnet_of(ipaddress.IPv4Network(space)) for space in SPACES):
            raise ValueError(f"{network} is not within {' or '.join(SPACES)}")
        first = int(self.network.network_address)
        self._free = [str(ipaddress.IPv4Address(first + i)) for i in range(reserved, self.network.num_addresses - 1)]
        self._free.reverse()
        self._owners: dict[str, str] = {}
        self._lock = threading.Lock()

    def allocate(self, owner: str) -> str:
        """A free address, now `owner`'s (any text that says to a reader whose it is)."""
        with self._lock:
            if not self._free:
                raise AddressPoolExhausted(f"all {len(self._owners)} addresses of {self.network} are taken")
            address = self._free.pop()
            self._owners[address] = owner
            return address

    def release(self, address: str) -> None:
        """Gives an address back. Releasing one that is not allocated does nothing."""
        with self._lock:
            if self._owners.pop(address, None) is not None:
                self._free.insert(0, address)

    def owner(self, address: str) -> str | None:
        with self._lock:
            return self._owners.get(address)

    def owned(self) -> dict[str, str]:
        """address -> owner, for all allocated addresses."""
        with self._lock:
            return dict(self._owners)

    def __contains__(self, address: object) -> bool:
        try:
            return ipaddress.IPv4Address(str(address)) in self.network
        except ipaddress.AddressValueError:
            return False


def _candidates(seed: str) -> Iterator[ipaddress.IPv4Network]:
    start = zlib.crc32(seed.encode()) % _BLOCKS
    for i in range(_BLOCKS):
        first = _FIRST_BLOCK + ((start + i) % _BLOCKS) * _BLOCK_SIZE
        yield ipaddress.IPv4Network((first, 22))


@dataclass(frozen=True)
class Block:
    """A sandbox's block: half of it public addresses, half the ones that stand for machines' private addresses."""

    control: str
    holder: socket.socket  # listens at control:LOCK_PORT; closing it gives the block back
    public: AddressPool
    private: AddressPool


def take_block(seed: str) -> Block:
    """Takes a free block, together with the listening socket that holds it.

    The same `seed` (the sandbox's home) gets the same block whenever that is free. Raises `NoLoopbackBlock`.
    """
    for network in _candidates(seed):
        address = str(network[1])
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind((address, LOCK_PORT))
            holder.listen(64)
        except OSError as error:
            holder.close()
            if error.errno == errno.EADDRINUSE:
                continue
            if error.errno == errno.EADDRNOTAVAIL:
                prefix = address.rsplit(".", 1)[0]
                raise NoLoopbackBlock(
                    f"this machine does not answer at {address}: only Linux gives its loopback interface all of"
                    " 127.0.0.0/8. On macOS add the addresses first:"
                    f" for i in $(seq 1 99); do sudo ifconfig lo0 alias {prefix}.$i; done"
                    " (they last until the next reboot), or run the sandbox in a Linux container"
                ) from error
            raise
        public, private = network.subnets(prefixlen_diff=1)
        return Block(address, holder, AddressPool(str(public), _RESERVED), AddressPool(str(private), 1))
    raise NoLoopbackBlock(
        f"none of {_BLOCKS} loopback blocks is free: probably a program listens on port {LOCK_PORT} of all addresses"
        f" (`ss -ltnp sport = :{LOCK_PORT}` shows it); it has to end first"
    )
