"""Checks hosts, origins and client addresses of requests.

A page of another site can make a visitor's browser send requests here: across origins, or by
letting its own host name resolve to this machine (DNS rebinding). The `Origin` header reveals the
first, the `Host` header the second.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

ALLOWED_HOSTS, ALLOWED_ORIGINS = "EARTHVLM_ALLOWED_HOSTS", "EARTHVLM_ALLOWED_ORIGINS"
TRUSTED_PROXY = "EARTHVLM_TRUSTED_PROXY"
HUB_ORIGIN = "https://huggingface.co"  # shows a Space in a frame
SPACE_HOSTS = ".hf.space"
STATE_CHANGING = frozenset(("POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
# Gradio's MCP endpoint calls this app like a client, with its caller's headers. This header holds
# the caller's address; the key keeps others from forging it.
CALLER_HEADER = b"x-earthvlm-caller"
_CALLER_KEY = secrets.token_hex(16)


@dataclass(frozen=True)
class Access:
    """The allowed hosts and origins, in addition to this machine's own.

    trusts_proxy: whether a proxy adds the visitor's address as X-Forwarded-For's last entry.
    """

    hosts: frozenset[str] = frozenset()
    host_endings: tuple[str, ...] = ()
    origins: frozenset[str] = frozenset()
    trusts_proxy: bool = False

    @classmethod
    def from_environment(cls) -> Access:
        """Read the variables above, and those that a Space sets itself."""
        on_space = bool(os.environ.get("SPACE_ID"))
        hosts = {*_list(ALLOWED_HOSTS), *_list("SPACE_HOST")}
        hosts |= {_name_of(os.environ.get("GRADIO_SERVER_NAME", ""))} - {""}
        origins = set(_list(ALLOWED_ORIGINS)) | ({HUB_ORIGIN} if on_space else set())
        trusts = on_space or os.environ.get(TRUSTED_PROXY, "") not in ("", "0")
        endings = (SPACE_HOSTS,) if on_space else ()
        return cls(frozenset(hosts), endings, frozenset(origins), trusts)

    def refuse_host(self, hosts: list[bytes]) -> str:
        """Return why a request's host name is refused, "" where it is not."""
        if len(hosts) != 1:
            return "A request needs exactly one Host header."
        name = _name_of(hosts[0].decode("latin-1"))
        if _is_own_name(name) or name in self.hosts or name.endswith(self.host_endings or ("\n",)):
            return ""
        return (
            f"This app is not served under the name {name[:80]!r}. If it should be, start it with "
            f"{ALLOWED_HOSTS}={name[:80]} (several names are separated by commas)."
        )

    def allows_origin(self, origin: str, host: str) -> bool:
        """Return whether pages of this origin may call the app and read its answers.

        The scheme may differ from the app's, because a proxy that ends TLS hides it.
        """
        if origin in self.origins:
            return True
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()

    def find_address(self, host: str, headers: dict[bytes, list[bytes]]) -> str:
        """Return the address that a request comes from. host: of its connection."""
        for value in headers.get(CALLER_HEADER, []):
            key, _, address = value.decode("latin-1").partition(" ")
            if secrets.compare_digest(key, _CALLER_KEY):
                return address
        if self.trusts_proxy and (told := headers.get(b"x-forwarded-for")):
            return told[-1].decode("latin-1").rsplit(",", 1)[-1].strip() or host
        return host


def name_caller(address: str) -> tuple[bytes, bytes]:
    """Return the header that names the caller of a call that the app makes to itself."""
    return CALLER_HEADER, f"{_CALLER_KEY} {address}".encode("latin-1")


def _list(variable: str) -> list[str]:
    values = os.environ.get(variable, "").split(",")
    return [value.strip().lower().rstrip("/") for value in values if value.strip()]


def _name_of(host: str) -> str:
    """Return a host without its port, in lower case: "::1" of "[::1]:7860"."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower() if host.count(":") < 2 else host.lower()


def _is_own_name(name: str) -> bool:
    """Return whether nobody else can own a name: localhost, and numeric addresses."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
