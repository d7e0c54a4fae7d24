"""The five services of the studio: the command of each, and what Label Studio needs in its environment.

The one place for that: `ris up` runs them as processes, docker-compose.yml as containers, and a test holds
the two equal. Knows nothing of processes or containers.

`python -m backend.local.services ADDRESS` prints what Label Studio has to be given where the backend is at another one.
"""

import ipaddress
import sys
from itertools import chain

VALKEY, LABEL_STUDIO, BACKEND = "valkey", "label-studio", "backend"
# Two workers: learning takes minutes, and nothing else shall wait for it.
WORKER, TRAINER = "worker", "trainer"

# What is not on the public internet. Of IPv6 that is all but 2000::/3, and a few parts of that.
_NOT_PUBLIC_4 = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
    *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
)
_NOT_PUBLIC_6 = ("::/3", "2001::/23", "2001:db8::/32", "2002::/16", "4000::/2", "8000::/1")


def commands(bind: str, label_studio_port: int) -> dict[str, tuple[str, ...]]:
    """Command of each service, in the order of start.

    `bind` is the address that Valkey and Label Studio listen on; the backend takes RIS_HOST and RIS_PORT.
    """
    address = ("--internal-host", bind, "--port", str(label_studio_port))
    return {
        VALKEY: ("python", "-m", "backend.local.valkey", "--bind", bind),
        LABEL_STUDIO: ("label-studio", "start", "--no-browser", *address),
        BACKEND: ("gunicorn", "-c", "python:backend.web.gunicorn_conf", "backend.web.wsgi:app"),
        WORKER: ("ris", "worker", "--only", "batches"),
        TRAINER: ("ris", "worker", "--only", "training"),
    }


def label_studio_environment(data: str, backend: str) -> dict[str, str]:
    """Environment of Label Studio, login aside; `data` is its folder, `backend` the backend's IPv4 network.

    Label Studio 1.23.2 refuses ML backends on private addresses. Its list of those gives way to one that is
    as strict, with a single opening: the backend's network.
    """
    return {
        "LABEL_STUDIO_BASE_DATA_DIR": data,
        "LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS": "false",
        "LABEL_STUDIO_USER_ADDITIONAL_BANNED_SUBNETS": ",".join(banned_subnets(backend)),
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "false",
        # Nothing leaves the machine: no analytics, no crash reports, no look for updates.
        "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
        "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
        "LABEL_STUDIO_SENTRY_DSN": "",
        "LABEL_STUDIO_FRONTEND_SENTRY_DSN": "",
    }


def banned_subnets(opening: str) -> list[str]:
    """All networks that are not public, less the IPv4 network `opening`, which lies within one of them."""
    return [*chain.from_iterable(_less(network, opening) for network in _NOT_PUBLIC_4), *_NOT_PUBLIC_6]


def _less(network: str, opening: str) -> list[str]:
    whole, hole = ipaddress.IPv4Network(network), ipaddress.IPv4Network(opening)
    return [str(part) for part in sorted(whole.address_exclude(hole))] if hole.subnet_of(whole) else [network]


if __name__ == "__main__":
    print(",".join(banned_subnets(f"{ipaddress.IPv4Address(sys.argv[1])}/32")))
