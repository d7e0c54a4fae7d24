"""The guard against addresses that lie inside, behind names, redirects, wrappers and changing resolvers."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpcore
import httpx
import pytest

from backend.errors import AddressRefused
from backend.labelstudio.outbound import DIRECT
from backend.labelstudio.safe_http import (
    AllowedHosts,
    GuardedNetwork,
    GuardedTransport,
    Resolve,
    is_public,
    resolve,
)

from .site import Answer, serve

CERTIFICATE = Path(__file__).with_name("photos.test.pem")


def get(url: str, allowed: AllowedHosts, resolve: Resolve, context: ssl.SSLContext | None = None) -> httpx.Response:
    network = GuardedNetwork(allowed, resolve, time.monotonic() + 5)
    transport = GuardedTransport(network, context or DIRECT.trust())
    with httpx.Client(transport=transport) as http:
        return http.get(url)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "ff02::1", "::127.0.0.1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1"),
        *("2002:7f00:1::", "2002:a9fe:a9fe::", "2001:0:7f00:1::"),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "LOCALHOST", "127.1", "2130706433", "0x7f000001", "0"),
        *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "169.254.169.254", "user:word@127.0.0.1"),
    ],
)
def test_every_spelling_of_an_inside_address_is_refused(host: str) -> None:
    with serve(lambda _: Answer(200, b"secret")) as site:
        with pytest.raises(AddressRefused, match="RIS_IMAGE_HOSTS") as caught:
            get(f"http://{host}:{site.port}/", AllowedHosts([]), resolve)
        assert site.asked == []
        assert "word" not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost.", "0177.0.0.1", "127。0。0。1", "①②⑦.0.0.1", "localhost%00.example"])
def test_spellings_that_systems_disagree_about_reach_nothing(host: str) -> None:
    with serve(lambda _: Answer(200, b"secret")) as site:
        with pytest.raises((AddressRefused, httpx.ConnectError, httpx.InvalidURL)):
            get(f"http://{host}:{site.port}/", AllowedHosts([]), resolve)
        assert site.asked == []


def test_one_inside_address_among_public_ones_is_enough() -> None:
    with pytest.raises(AddressRefused):
        get("http://mixed.example/", AllowedHosts([]), lambda *_: ["93.184.215.14", "10.0.0.1"])


def test_the_checked_address_is_the_one_that_is_used() -> None:
    answers = iter([["192.0.2.1"], ["127.0.0.1"]])
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    connected: list[str] = []

    class Sockets(httpcore.SyncBackend):
        def connect_tcp(self, host: str, *_: object) -> httpcore.NetworkStream:
            connected.append(host)
            raise httpcore.ConnectError("nobody is there")

    network = GuardedNetwork(AllowedHosts(["rebinding.example"]), rebinding, time.monotonic() + 5, Sockets())
    with pytest.raises(httpcore.ConnectError):
        network.connect_tcp("rebinding.example", 80)
    assert (asked, connected) == (["rebinding.example"], ["192.0.2.1"])


def test_a_name_that_is_rebound_between_requests_is_refused() -> None:
    with serve(lambda _: Answer(200, b"secret")) as site:
        with pytest.raises(AddressRefused):
            get(f"http://rebound.example:{site.port}/", AllowedHosts([]), lambda *_: ["127.0.0.1"])
        assert site.asked == []


@pytest.mark.parametrize(
    ("entry", "allowed"),
    [
        ("photos.example", True),
        (" Photos.Example ", True),
        ("photos.example:{port}", True),
        ("photos.example:1", False),
        ("example", False),
        ("other.example", False),
        ("", False),
    ],
)
def test_allowed_hosts(entry: str, allowed: bool) -> None:
    with serve(lambda _: Answer(200, b"photo")) as site:
        hosts = AllowedHosts([entry.format(port=site.port)])
        if allowed:
            answer = get(f"http://photos.example:{site.port}/a", hosts, lambda *_: ["127.0.0.1"])
            assert answer.content == b"photo"
            assert site.asked[0].headers["Host"] == f"photos.example:{site.port}"
        else:
            with pytest.raises(AddressRefused):
                get(f"http://photos.example:{site.port}/a", hosts, lambda *_: ["127.0.0.1"])


def test_allowed_ipv6_hosts() -> None:
    assert AllowedHosts(["[::1]:8080"]).allow("::1", 8080)
    assert not AllowedHosts(["[::1]:8080"]).allow("::1", 8081)


def test_the_next_address_is_tried_when_one_is_dead() -> None:
    with serve(lambda _: Answer(200, b"photo")) as site:
        # Nothing listens on the first: loopback answers at once.
        answer = get(
            f"http://photos.example:{site.port}/",
            AllowedHosts(["photos.example"]),
            lambda *_: ["127.0.0.2", "127.0.0.1"],
        )
    assert answer.content == b"photo"


@pytest.mark.parametrize("failure", [OSError("no such host"), UnicodeError("label too long")])
def test_a_name_that_cannot_be_resolved(failure: Exception) -> None:
    def fail(*_: object) -> list[str]:
        raise failure

    with pytest.raises(httpx.ConnectError):
        get("http://nowhere.example/", AllowedHosts([]), fail)
    with pytest.raises(httpx.ConnectError):
        get("http://nowhere.example/", AllowedHosts([]), lambda *_: [])


@pytest.fixture
def secure_port() -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.headers["Host"].encode())

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def test_tls_is_checked_against_the_name_not_the_address(secure_port: int) -> None:
    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    hosts = AllowedHosts(["photos.test", "other.test"])
    answer = get(f"https://photos.test:{secure_port}/", hosts, lambda *_: ["127.0.0.1"], trusting)
    assert answer.text == f"photos.test:{secure_port}"
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        get(f"https://other.test:{secure_port}/", hosts, lambda *_: ["127.0.0.1"], trusting)


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda _: Answer(200, b"proxied")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        with pytest.raises(AddressRefused):
            get("http://inside.example/", AllowedHosts([]), lambda *_: ["10.0.0.1"])
        assert proxy.asked == []
