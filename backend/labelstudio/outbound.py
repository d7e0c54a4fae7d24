"""How connections leave this machine: whose certificates are trusted, and through which proxy. Knows no endpoint.

The environment's proxies aren't used: they are often set for other programs, and would come between the parts of a
studio. RIS_PROXY is.
"""

import os
import ssl
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import httpx

from backend.settings import Settings, SettingsError

# Added to the usual authorities; the names are those of OpenSSL and requests.
_AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_HERE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Outbound:
    """ca_file: certificates of authorities that are trusted besides the usual.

    proxy: its URL, None for none. direct: hosts that are reached without it, ".example.org" for all below; this machine
    always is. images: whether images are fetched through it as well.
    """

    ca_file: Path | None = None
    proxy: str | None = None
    direct: tuple[str, ...] = ()
    images: bool = False

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """As the settings say."""
        proxy = settings.proxy.get_secret_value() if settings.proxy else None
        return cls(settings.ca_file, proxy, settings.no_proxy, settings.proxy_images)

    def trust(self) -> ssl.SSLContext:
        """The usual authorities and one's own. Raises SettingsError if a file of those can't be read."""
        named = [(name, path) for name in _AUTHORITIES if (path := os.environ.get(name))]
        return _trust((*named, *([("RIS_CA_FILE", str(self.ca_file))] if self.ca_file else ())))

    def proxy_to(self, host: str) -> str | None:
        """The proxy that leads to a host; None where it is reached directly."""
        host = host.lower().strip("[]")
        is_direct = host in _HERE or any(host == name or host.endswith("." + name.lstrip(".")) for name in self.direct)
        return None if is_direct else self.proxy

    def client(self, url: str, **options: Any) -> httpx.Client:
        """A client for what lies at `url`, with httpx's `options`."""
        proxy, trust = self.proxy_to(httpx.URL(url).host), self.trust()
        way = httpx.Proxy(proxy, ssl_context=trust if proxy.startswith("https") else None) if proxy else None
        return httpx.Client(verify=trust, proxy=way, trust_env=False, **options)


DIRECT = Outbound()


# Loading the usual ones takes tens of milliseconds.
@cache
def _trust(files: tuple[tuple[str, str], ...]) -> ssl.SSLContext:
    context = httpx.create_ssl_context(trust_env=False)
    for name, path in files:
        try:
            context.load_verify_locations(**{"capath" if Path(path).is_dir() else "cafile": path})
        except OSError as error:
            fault = f"{path} isn't one ({error.strerror or error})"
            raise SettingsError(f"{name} should name a file of certificates (PEM): {fault}.") from None
    return context


def explain(error: httpx.RequestError) -> tuple[str, str]:
    """Why a connection failed, in a few words, and what to do about it; "" where nothing is known to do."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            remedy = "If an authority of your own signed it, set RIS_CA_FILE to the certificate of that authority."
            return f"its certificate isn't accepted: {cause.verify_message}", remedy
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ProxyError):
        return f"the proxy says {error}", "Correct RIS_PROXY; hosts in RIS_NO_PROXY are reached without it."
    return ("no answer in time" if isinstance(error, httpx.TimeoutException) else type(error).__name__), ""
