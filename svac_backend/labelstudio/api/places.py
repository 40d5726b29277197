"""Where media may come from, and how fast: connections to a server that a task names, which may be anybody's.

A name is looked up once, every address is checked, and the connection goes to a checked address: a name that leads
elsewhere a moment later (DNS rebinding) gains nothing. The job can be cancelled while it waits for bytes.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpcore
import httpx

from svac_backend.errors import SvacError, split_address
from svac_backend.labelstudio.api.connection import tls

# Seconds that one read may last before the job's end is checked.
_SLICE_S = 0.5
_LOOKUP_S = 10.0
# Seconds over which the least average speed is measured.
WINDOW_S = 30.0
_PORTS = {"http": 80, "https": 443}
# IPv4 addresses written as IPv6 (RFC 6052, 3056): the IPv4 address inside counts.
_NAT64, _6TO4 = ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("2002::/16")


class Refused(SvacError):
    """Media may not be read from there."""


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an address, in lower case.

    Raises:
        SvacError: it is not the address of a web server.
    """
    parts = split_address(url)
    host = (parts.hostname or "").rstrip(".") if parts else ""
    if parts is None or parts.scheme not in _PORTS or not host or parts.port == 0:
        raise SvacError("The media address is not an address.", "Correct the address in the task's data.")
    return parts.scheme, host, parts.port or _PORTS[parts.scheme]


@dataclass(frozen=True)
class Places:
    """The hosts that media may come from.

    Attributes:
        own: addresses of Label Studio; everything there is allowed.
        named: `*` for every public host, `host`, `host:port`, `*.domain`, or `s3://bucket` and the like. Hosts named in
            full may be private.
        lookup: returns the addresses of a host; tests pass their own.
    """

    own: tuple[tuple[str, str, int], ...] = ()
    named: tuple[str, ...] = ("*",)
    lookup: Callable[[str, int], list[str]] = field(default=lambda host, port: _addresses(host, port))

    @classmethod
    def of(cls, named: str, own: Iterable[str]) -> Places:
        """Return the places that a setting and Label Studio's addresses allow.

        Args:
            named: the setting, separated by commas.
            own: addresses of Label Studio.
        """
        return cls(
            own=tuple(origin(url) for url in own),
            named=tuple(name.strip().lower() for name in named.split(",") if name.strip()),
        )

    def check_bucket(self, address: str) -> None:
        """Raise `Refused` unless an address in a cloud, which Label Studio resolves, may be read."""
        buckets = [name.rstrip("/") for name in self.named if "://" in name]
        wanted = address.lower()
        if "*" not in self.named and not any(wanted.startswith(f"{bucket}/") for bucket in buckets):
            raise _refused()

    def addresses(self, url: str) -> list[str]:
        """Return the addresses to connect to for an address of a web server.

        Raises:
            Refused: nothing may be read there.
            OSError: its name cannot be resolved.
        """
        return self.addresses_of(*origin(url))

    def addresses_of(self, scheme: str, host: str, port: int) -> list[str]:
        """Return the addresses as `addresses` does, given the parts of the URL."""
        if (scheme, host, port) in self.own:
            return self.lookup(host, port)
        named = host in self.named or f"{host}:{port}" in self.named
        domains = [name[1:] for name in self.named if name.startswith("*.")]
        if not named and "*" not in self.named and not any(host.endswith(domain) for domain in domains):
            raise _refused()
        found = self.lookup(host, port)
        if not named and not all(map(_is_public, found)):
            raise _refused()
        return found


def _refused() -> Refused:
    return Refused(
        "Media may not come from this host.",
        "Name it in SVAC_MEDIA_HOSTS, e.g. `videos.example.com`; hosts of a private network must be named in full.",
    )


def _is_public(address: str) -> bool:
    found: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        packed = found.packed
        inner = found.ipv4_mapped
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(packed[12:])
        if inner is None and found in _6TO4:
            inner = ipaddress.IPv4Address(packed[2:6])
        found = inner or found
    return found.is_global and not found.is_multicast


def _addresses(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


@dataclass
class Pace:
    """Limits how long a download may take and how slow it may be, checked whenever bytes come or fail to come.

    Attributes:
        deadline_s: seconds for the whole download.
        least_bps: least average speed over `WINDOW_S`, in bytes per second.
        check: raises if the job should end.
    """

    deadline_s: float
    least_bps: float
    check: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._begun = self._since = self.clock()
        self._came = 0

    def look(self, came: int = 0) -> None:
        """Count bytes.

        Raises:
            TooSlow: the time is up, or too few bytes came.
            Exception: what `check` raises.
        """
        self.check()
        now = self.clock()
        self._came += came
        if now - self._begun > self.deadline_s:
            raise TooSlow(f"took more than {self.deadline_s:.0f} s", "Raise SVAC_MEDIA_DEADLINE_S.", False)
        if now - self._since >= WINDOW_S:
            if self._came < self.least_bps * (now - self._since):
                speed = f"{self._came / (now - self._since) / 1000:.1f} KB/s"
                raise TooSlow(f"came with {speed} only", "Lower SVAC_MEDIA_LEAST_KBS.", True)
            self._since, self._came = now, 0

    def sleep(self, seconds: float) -> None:
        """Wait, but not beyond the deadline."""
        end = self.clock() + seconds
        while (left := end - self.clock()) > 0:
            self.look()
            time.sleep(min(left, _SLICE_S / 2))

    def within(self, seconds: float, work: Callable[[], Any]) -> Any:
        """Return the result of work that cannot be interrupted, or raise `TimeoutError` after `seconds`."""
        found: list[Any] = []
        failed: list[Exception] = []
        ready = threading.Event()

        def run() -> None:
            try:
                found.append(work())
            except Exception as error:  # noqa: BLE001 (raised below)
                failed.append(error)
            ready.set()

        threading.Thread(target=run, daemon=True).start()
        end = self.clock() + seconds
        while not ready.wait(_SLICE_S / 2):
            self.look()
            if self.clock() > end:
                raise TimeoutError("its name is not found in time")
        if failed:
            raise failed[0]
        return found[0]


class TooSlow(Exception):
    """A download takes too long; args: what happened, what to set, and whether it may pass by itself."""


def media_client(places: Places, pace: Pace, timeout: float) -> httpx.Client:
    """Return an HTTP client that reads only from allowed places, at the pace; it follows no redirect, keeps no cookie.

    If the environment names a proxy, the proxy resolves names: only `check_by_name` remains, and the pace is checked
    only when bytes arrive.
    """
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    options: dict[str, Any] = {"timeout": timeout, "follow_redirects": False, "cookies": no_cookies}
    if has_proxy():
        return httpx.Client(verify=tls(), **options)
    return httpx.Client(transport=_Transport(places, pace), **options)


def has_proxy() -> bool:
    """Return whether the environment names a proxy."""
    return bool(urllib.request.getproxies().keys() & {"http", "https", "all"})


def check_by_name(places: Places, pace: Pace, url: str) -> None:
    """Check an address as its name resolves here; a name that does not is left to the proxy.

    Raises:
        Refused: nothing may be read there.
    """
    try:
        pace.within(_LOOKUP_S, lambda: places.addresses(url))
    except (OSError, UnicodeError):
        if "*" not in places.named:
            raise _refused() from None


class _Transport(httpx.HTTPTransport):
    def __init__(self, places: Places, pace: Pace) -> None:
        super().__init__(verify=tls(), trust_env=False)
        self._pool.close()
        # httpx has no public way to say how connections are made.
        self._pool = httpcore.ConnectionPool(ssl_context=tls(), network_backend=_Network(places, pace))


class _Network(httpcore.NetworkBackend):
    """Connects to checked addresses only."""

    def __init__(self, places: Places, pace: Pace) -> None:
        self._places, self._pace = places, pace
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses: Sequence[str] = self._pace.within(
                min(timeout or _LOOKUP_S, _LOOKUP_S), lambda: self._checked(host, port)
            )
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except (OSError, UnicodeError) as error:  # the latter for labels that are too long
            raise httpcore.ConnectError(str(error)) from error
        end = time.monotonic() + (timeout or _LOOKUP_S)
        while True:
            for address in addresses:
                self._pace.look()
                try:
                    stream = self._sockets.connect_tcp(
                        address, port, timeout=_SLICE_S, socket_options=socket_options
                    )
                except httpcore.ConnectTimeout as error:
                    failure: Exception = error
                except httpcore.ConnectError as error:
                    failure = error
                else:
                    return _Stream(stream, self._pace)
            if isinstance(failure, httpcore.ConnectError) or time.monotonic() > end:
                raise failure

    def _checked(self, host: str, port: int) -> list[str]:
        schemes = [scheme for scheme, name, at in self._places.own if (name, at) == (host, port)]
        return self._places.addresses_of(schemes[0] if schemes else "http", host, port)


class _Stream(httpcore.NetworkStream):
    """Reads in short slices."""

    def __init__(self, inner: httpcore.NetworkStream, pace: Pace) -> None:
        self._inner, self._pace = inner, pace

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _SLICE_S if end is None else min(_SLICE_S, max(end - time.monotonic(), 0.01))
            try:
                found = self._inner.read(max_bytes, timeout=left)
            except httpcore.ReadTimeout:
                self._pace.look()
                if end is not None and time.monotonic() >= end:
                    raise
                continue
            self._pace.look()  # headers can trickle in, too
            return found

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout=_SLICE_S)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        self._pace.look()
        inner = self._inner.start_tls(ssl_context, server_hostname, timeout=2 * _SLICE_S)
        return _Stream(inner, self._pace)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
