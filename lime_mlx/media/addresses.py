"""Where a download may go: to addresses of the Internet, or also to those of this machine and its networks."""

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lime_mlx.errors import MediaError

# Whether private addresses are read. typed: one that the user typed is; a public one never leads to a private one.
Private = Literal["typed", "never", "always"]

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_INTERNET = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether a numeric address belongs to the Internet at large, which no address of a private network does.

    An IPv4 address inside an IPv6 one (mapped, NAT64 of RFC 6052, 6to4 of RFC 3056) is judged itself. Addresses of
    groups (multicast) and those that are reserved are not public.
    """
    plain = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
    if plain.version == 6 and plain not in _INTERNET:
        return False
    return plain.is_global and not plain.is_multicast


def _unwrapped(address: _Address) -> _Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


@dataclass
class Reach:
    """Where one download may go, redirects included.

    private: see `Private`. public: whether it has been at a public address.
    """

    private: Private = "typed"
    public: bool = False

    def judge(self, host: str, addresses: Iterable[str]) -> None:
        """Raise `MediaError` where one of the addresses of a host may not be connected to."""
        public = all(map(is_public, addresses))
        if not public and self.private == "never":
            raise MediaError(f"Cannot read from {host}: it is not on the public Internet; send the file itself.")
        if not public and self.private == "typed" and self.public:
            raise MediaError(
                f"Cannot read from {host}: a public server led to this private address; download the file first and "
                "give its path, or allow this with --allow-private-urls."
            )
        self.public = self.public or public

    def connect(self, host: str, port: int, timeout: float | None) -> socket.socket:
        """A connection to an address of a host that was judged: the name is resolved once. Raises `OSError`, too."""
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self.judge(host, [str(target[0]) for *_, target in resolved])
        problem = OSError(f"{host} has no address")
        for family, kind, protocol, _, target in resolved:
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(timeout)
                connection.connect(target)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection
            except OSError as error:
                connection.close()
                problem = error
        raise problem

    def judge_proxied(self, host: str) -> None:
        """Judge a host that a proxy will resolve, as far as this machine can resolve it."""
        if self.private == "always":
            return
        try:
            resolved = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            self.public = True
        else:
            self.judge(host, [str(target[0]) for *_, target in resolved])
