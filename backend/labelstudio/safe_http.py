"""Connections to addresses that strangers name: only public ones, or hosts allowed by name. Knows no images.

Task data can name any URL, and an internal service must not be reached through it (CVE-2023-47116, CVE-2022-36551).
A name is resolved once, every address it has is checked, and the socket is opened to a checked address; nothing in
between can change its mind. TLS and the Host header still see the name.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

import httpcore
import httpx

from backend.errors import AddressRefused

Resolve = Callable[[str, int], Collection[str]]
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# All of IPv6 that is given out for public use, so that no special range has to be listed.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_ALLOW = "If images may be fetched there, add it to RIS_IMAGE_HOSTS."
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the system's order. Raises OSError or UnicodeError if it has none."""
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in infos))


def is_public(address: str) -> bool:
    """Whether an address, and any IPv4 address hidden in it, belongs to the public internet."""
    ip = ipaddress.ip_address(address)
    hidden = _hidden(ip)
    if isinstance(ip, ipaddress.IPv6Address) and ip not in _GLOBAL_UNICAST and not hidden:
        return False
    return all(one.is_global and not one.is_multicast for one in (ip, *hidden))


def _hidden(ip: _Address) -> list[_Address]:
    """IPv4 addresses that an IPv6 address stands for: mapped, 6to4, Teredo and NAT64."""
    if isinstance(ip, ipaddress.IPv4Address):
        return []
    hidden: list[_Address] = [ipv4 for ipv4 in (ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())) if ipv4]
    if ip in _NAT64:
        hidden.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return hidden


def check_public(host: str, port: int, resolve: Resolve) -> None:
    """Raise AddressRefused if the host, as it is known here, has an address that isn't public.

    For what a proxy will connect to, which resolves names itself: where this machine can't, only the proxy can tell.
    """
    with suppress(OSError, UnicodeError):
        if not all(map(is_public, resolve(host, port))):
            raise AddressRefused(f"{host}:{port} isn't a public address. {_ALLOW}")


class AllowedHosts:
    """Hosts that may be at private addresses: "host", or "host:port" for one port alone."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._entries = frozenset(_key(entry) for entry in entries)

    def allow(self, host: str, port: int) -> bool:
        """Whether connections to a host and port may go to any address."""
        return _key(host) in self._entries or _key(f"{host}:{port}") in self._entries


def _key(entry: str) -> str:
    return entry.strip().lower().replace("[", "").replace("]", "")


class GuardedNetwork(httpcore.NetworkBackend):
    """Opens connections, each step of which must end before `deadline` (time.monotonic()).

    sockets: what opens a connection to an address, once it is checked.
    """

    def __init__(
        self, allowed: AllowedHosts, resolve: Resolve, deadline: float, sockets: httpcore.NetworkBackend | None = None
    ) -> None:
        self._allowed, self._resolve, self._deadline = allowed, resolve, deadline
        self._sockets = sockets or httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to the first address of the host that takes one.

        Raises AddressRefused if one of its addresses isn't public and the host isn't allowed; httpcore's ConnectError
        or TimeoutException if it has no address, none takes one, or time is up.
        """
        failure: httpcore.NetworkError | httpcore.TimeoutException | None = None
        for address in self._addresses(host, port):
            try:
                stream = self._sockets.connect_tcp(address, port, self.left(timeout), local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _PunctualStream(stream, self.left)
        raise failure or httpcore.ConnectError(f"{host} has no address")

    def left(self, timeout: float | None) -> float:
        """`timeout`, or the seconds until the deadline if those are fewer. Raises ReadTimeout if none are left."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the deadline has passed")
        return left if timeout is None else min(left, timeout)

    def _addresses(self, host: str, port: int) -> Collection[str]:
        try:
            addresses = self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error
        if not self._allowed.allow(host, port) and not all(map(is_public, addresses)):
            raise AddressRefused(f"{host}:{port} isn't a public address. {_ALLOW}")
        return addresses


class _PunctualStream(httpcore.NetworkStream):
    """A connection that keeps to a deadline, however steadily the other side drips."""

    def __init__(self, stream: httpcore.NetworkStream, left: Callable[[float | None], float]) -> None:
        self._stream, self._left = stream, left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._left(timeout))
        return _PunctualStream(stream, self._left)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


class GuardedTransport(httpx.HTTPTransport):
    """httpx over a guarded network.

    proxy: what the network leads to, None for the host itself. A proxy resolves names itself: see `check_public`.
    """

    def __init__(self, network: GuardedNetwork, ssl_context: ssl.SSLContext, proxy: str | None = None) -> None:
        super().__init__(verify=ssl_context, trust_env=False)
        # httpx has no argument for it; tests/backend/labelstudio/test_safe_http.py fails if this stops working.
        self._pool = httpcore.ConnectionPool(ssl_context=ssl_context, network_backend=network)
        if proxy:
            way = httpx.Proxy(proxy)
            self._pool = httpcore.HTTPProxy(
                str(way.url),
                way.raw_auth,
                ssl_context=ssl_context,
                proxy_ssl_context=ssl_context if way.url.scheme == "https" else None,
                network_backend=network,
            )
