"""What Label Studio may call: nothing private but the backend, checked against Label Studio's own list."""

from __future__ import annotations

import ast
import ipaddress
from pathlib import Path

import pytest

from backend.local.services import banned_subnets, label_studio_environment

IO = "lib/python3*/site-packages/label_studio/core/utils/io.py"


def banned(address: str, opening: str = "127.0.0.1/32") -> bool:
    networks = [ipaddress.ip_network(subnet) for subnet in banned_subnets(opening)]
    return any(ipaddress.ip_address(address) in network for network in networks)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.0", "127.0.0.2", "127.255.255.255", "0.0.0.0", "10.1.2.3", "169.254.169.254", "172.30.77.10"),
        *("192.168.1.1", "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00::1"),
        *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "2002:7f00:1::", "2001::1", "ff02::1"),
    ],
)
def test_private_addresses_are_refused(address: str) -> None:
    assert banned(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "8.8.8.8", "2606:4700::1111", "2a00:1450::1"])
def test_the_backend_and_the_public_internet_are_not(address: str) -> None:
    assert not banned(address)


def test_the_opening_is_exactly_one_network() -> None:
    assert not banned("172.30.77.10", "172.30.77.10/32")
    assert banned("172.30.77.9", "172.30.77.10/32")
    assert banned("172.30.77.11", "172.30.77.10/32")
    assert banned("127.0.0.1", "172.30.77.10/32")


def test_it_covers_all_that_label_studio_refuses_by_default() -> None:
    files = list(Path(__file__).parents[3].joinpath(".venv-label-studio").glob(IO))
    if not files:
        pytest.skip("Label Studio isn't installed in .venv-label-studio")
    theirs = next(
        ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(files[0].read_text()))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "default_banned_subnets"
    )
    assert len(theirs) > 20
    for network in map(ipaddress.ip_network, theirs):
        for address in (network[0], network[network.num_addresses // 2], network[-1]):
            assert banned(str(address)), network


def test_nothing_is_reported_to_anybody() -> None:
    environment = label_studio_environment("/data", "127.0.0.1/32")
    assert environment["LABEL_STUDIO_COLLECT_ANALYTICS"] == "false"
    assert environment["LABEL_STUDIO_SENTRY_DSN"] == environment["LABEL_STUDIO_FRONTEND_SENTRY_DSN"] == ""
