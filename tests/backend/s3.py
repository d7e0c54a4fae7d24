"""A real S3 server for tests, moto's, in an environment of its own; and a plain HTTP client of it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree

import httpx
import pytest
from ports import free_port

SERVER = Path(__file__).parents[2] / ".venv-moto" / "bin" / "moto_server"
_SECONDS = 60
# moto wants to know who asks, and believes it.
_SOMEBODY = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=somebody/20261121/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
}
_XML = "{http://s3.amazonaws.com/doc/2006-03-01/}"


@dataclass(frozen=True)
class S3:
    """environment: what a process needs to be let in."""

    url: str
    client: httpx.Client

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "secret-of-somebody",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
        }

    def make_bucket(self, name: str) -> str:
        self.client.put(f"/{name}").raise_for_status()
        return name

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self.client.put(f"/{bucket}/{quote(key)}", content=data).raise_for_status()

    def get(self, bucket: str, key: str) -> bytes | None:
        answer = self.client.get(f"/{bucket}/{quote(key)}")
        return None if answer.status_code == 404 else answer.raise_for_status().content

    def times(self, bucket: str) -> Mapping[str, str]:
        """Key -> when it was written, in seconds."""
        answer = self.client.get(f"/{bucket}", params={"list-type": "2", "encoding-type": "url"})
        entries = ElementTree.fromstring(answer.raise_for_status().content)
        assert entries.findtext(f"{_XML}IsTruncated") == "false"
        return {
            unquote_plus(entry.findtext(f"{_XML}Key", "")): entry.findtext(f"{_XML}LastModified", "")
            for entry in entries.iter(f"{_XML}Contents")
        }

    def contents(self, bucket: str) -> dict[str, bytes]:
        """Key -> content."""
        return {key: data for key in self.times(bucket) if (data := self.get(bucket, key)) is not None}


@contextmanager
def serving(**environment: str) -> Iterator[S3]:
    if not SERVER.exists():
        pytest.fail(f"There is no {SERVER}: run make .venv-moto/.installed", pytrace=False)
    port = free_port()
    process = subprocess.Popen(
        [SERVER, "-H", "127.0.0.1", "-p", str(port)],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, headers=_SOMEBODY) as client:
            _wait(client, process)
            yield S3(url, client)
    finally:
        process.kill()
        process.wait()


def _wait(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _SECONDS
    while True:
        try:
            client.get("/moto-api/data.json").raise_for_status()
        except httpx.HTTPError:
            assert process.poll() is None, "moto's server ended by itself."
            assert time.monotonic() < end, "moto's server doesn't answer."
            time.sleep(0.05)
        else:
            return
