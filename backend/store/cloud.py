"""How S3, GCS and Azure are reached, and what is meant by what they say. Knows nothing of what is kept there.

Credentials and endpoints come from the environment, as obstore reads it: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_REGION, AWS_ENDPOINT_URL and so on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from obstore.store import ClientConfig

VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
"""The protocols, and the variables that hold their credentials."""

_PREFIXES = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}
# What obstore doesn't take from the environment once it is told of time-outs.
_CLIENT = ("allow_http", "allow_invalid_certificates", "proxy_url", "proxy_ca_certificate")

# What a store says, and what is to be told; the first that matches.
_SAYINGS = (
    (
        r"NoSuchBucket|bucket does not exist|ContainerNotFound|container does not exist",
        "there is no such bucket. Make it first, or correct its name",
    ),
    (
        r"Missing(AccessKeyId|SecretAccessKey|Account)|169\.254\.169\.254|metadata\.google|token request",
        "there are no credentials. Set {variables} in the environment",
    ),
    (
        r"RequestTimeTooSkewed|request time .* too (large|skewed)",
        "this machine's clock is wrong. Set it, by NTP, and try again",
    ),
    (
        r"PermissionDenied|Unauthenticated|AccessDenied|40[13] (Forbidden|Unauthorized)",
        "the credentials are refused. Check {variables}, and that they may list, read, write and delete there",
    ),
    (r"BadScheme", "the endpoint is plain http. Set AWS_ALLOW_HTTP=true if that is meant, or use https"),
    (
        r"kind: (Connect|Timeout|Request)\b",
        "the endpoint doesn't answer. Check the network, and the address in AWS_ENDPOINT_URL if there is one",
    ),
)


def client_options(protocol: str, patience: Mapping[str, str]) -> ClientConfig:
    """obstore's options: `patience`, its time-outs, unless the environment has others; and what it leaves out then."""
    names = (*patience, *_CLIENT)
    told = {name: os.environ.get(f"{_PREFIXES[protocol]}_{name.upper()}") for name in names}
    return cast("ClientConfig", dict(patience) | {name: value for name, value in told.items() if value})


def cause(protocol: str, said: str) -> str | None:
    """What is wrong and what to do, in words, where an error of obstore is one that is known."""
    for pattern, sentence in _SAYINGS:
        if re.search(pattern, said):
            return sentence.format(variables=VARIABLES[protocol])
    return None
