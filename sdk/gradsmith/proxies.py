"""Which proxy, if any, stands between this program and the server.

httpx reads the proxy variables too, and builds a connection for each of them: one that it cannot use ends the program,
also where the server's address would never go through it, and calls to this machine go to the proxy unless NO_PROXY
says otherwise. The server's one address is known here, so one decision is enough.
"""

from __future__ import annotations

import ipaddress
import os
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx

from gradsmith.errors import MissingDependency

T = TypeVar("T", httpx.HTTPTransport, httpx.AsyncHTTPTransport)

_FORMS = "http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT"
_PORTS = {"http": 80, "https": 443}


def transport_for(base_url: str, make: type[T]) -> T:
    """Connections to `base_url`, through the proxy that the environment names for it, if it names one.

    make: the kind of httpx's connections

    Raises ValueError when that proxy's variable cannot be read, MissingDependency when a SOCKS proxy lacks its package.
    """
    proxies = getproxies()
    parts = urlsplit(base_url)
    name = parts.scheme if proxies.get(parts.scheme) else "all"
    url = (proxies.get(name) or "").strip()
    host = parts.hostname or ""
    if not url or is_this_machine(host) or is_excepted(host, parts.port or _PORTS[parts.scheme], proxies.get("no", "")):
        return make()
    variable = _variable(name)
    try:
        return make(proxy=httpx.Proxy(url if "://" in url else f"http://{url}"))
    except ImportError as error:
        raise MissingDependency(
            f"{variable} names a SOCKS proxy, which needs a package: pip install 'httpx[socks]'. "
            f"Or add {host} to NO_PROXY, if it is reached without the proxy"
        ) from error
    except (ValueError, httpx.InvalidURL):  # their words would show the password
        raise ValueError(
            f"{variable} is set to {_without_password(url)!r}, which is no proxy's address. Its forms are {_FORMS}. "
            f"Correct it, or add {host} to NO_PROXY, if it is reached without a proxy"
        ) from None


def is_this_machine(host: str) -> bool:
    """Whether `host` is a loopback address or name: a proxy would look for it on its own machine."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, section 6.3
        return True
    address = _address(name)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and (address.is_loopback or address.is_unspecified)


def is_excepted(host: str, port: int, no_proxy: str) -> bool:
    """Whether NO_PROXY excepts `host`. Its entries, by comma or blank: `*`, a name (and all below it), an address (an
    IPv6 one in brackets or without), a network such as 10.0.0.0/8; a name or an address may have a port behind it.
    An entry that is none of these excepts nothing."""
    name = host.rstrip(".").lower()
    address = _address(name)
    for entry in no_proxy.replace(",", " ").lower().split():
        if entry == "*":
            return True
        wanted, separator, wanted_port = entry.rpartition(":")
        if not separator or not wanted_port.isdigit() or (":" in wanted and not wanted.endswith("]")):
            wanted, wanted_port = entry, ""  # without a port: a name, a network, or an IPv6 address by itself
        if wanted_port and int(wanted_port) != port:
            continue
        wanted = wanted.replace("[", "").replace("]", "")
        if address is not None:
            try:
                if address in ipaddress.ip_network(wanted, strict=False):
                    return True
            except ValueError:
                continue
        else:
            wanted = wanted.removeprefix("*").strip(".")
            if wanted and (name == wanted or name.endswith(f".{wanted}")):
                return True
    return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _variable(name: str) -> str:
    """The variable as it is spelled in the environment; elsewhere than there, the system's settings name the proxy."""
    spellings = (f"{name}_proxy", f"{name.upper()}_PROXY")
    return next((spelled for spelled in spellings if os.environ.get(spelled)), f"the system's {name} proxy")


def _without_password(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
