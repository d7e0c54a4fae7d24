"""From what task data calls an image to its bytes. Knows no pixels: what comes back may be anything.

    /data/upload/..., upload/...        Label Studio's uploads, fetched with the token; kept in the cache
    /data/local-files/?d=...            from the local files root if there is one, else from Label Studio
    s3://, gs://, azure-blob://         Label Studio names a signed address, or passes the bytes on
    http://, https://                   fetched from there
    data:image/...;base64,...           decoded

Everything else is refused. The token goes to Label Studio's own origin and nowhere else, and there only to paths that
serve files. Uploads never change in Label Studio, so they may be cached; other images may change, and are not.
"""

from __future__ import annotations

import base64
import binascii
import ssl
import time
from collections.abc import Collection, Generator
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import httpx

from backend.errors import FetchFailed, FetchTimeout, ImageTooLarge, LocalFileRefused
from backend.labelstudio.access import TokenAuth
from backend.labelstudio.answers import unreachable
from backend.labelstudio.cache import DiskCache
from backend.labelstudio.guard import AllowedHosts, GuardedNetwork, GuardedTransport, Resolve, resolve, trust
from ris_core.files import sha256

Credentials = tuple[str, str]

TIMEOUT = httpx.Timeout(connect=5.0, read=10.0, write=10.0, pool=10.0)
MAX_REDIRECTS = 3
_CLOUD = ("s3", "gs", "azure-blob")
_CHUNK = 1 << 16


class ImageResolver:
    """Fetches the images of tasks. Safe for threads.

    label_studio_url, token: Label Studio's address and a personal access token.
    cache: folder of the copies of uploads, at most `cache_bytes`.
    hosts: "host" or "host:port", where images may be fetched though the address isn't public.
    local_files_root: folder that /data/local-files/ reads from; None asks Label Studio instead.
    max_bytes: of one image. seconds: for all of one fetch.
    """

    def __init__(
        self,
        label_studio_url: str,
        token: str,
        *,
        cache: Path,
        cache_bytes: int = 1 << 30,
        hosts: Collection[str] = (),
        local_files_root: Path | None = None,
        max_bytes: int = 50 << 20,
        seconds: float = 30.0,
        resolve: Resolve = resolve,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._label_studio = httpx.URL(label_studio_url.rstrip("/"))
        self._auth = TokenAuth(label_studio_url, token)
        # Another token may see other uploads: its owner must not be served from this one's copies.
        self._scope = sha256(token.encode())
        self._cache = DiskCache(cache, cache_bytes)
        self._allowed = AllowedHosts([*hosts, f"{self._label_studio.host}:{_port(self._label_studio)}"])
        self._local_files_root = local_files_root
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._resolve = resolve
        self._ssl_context = ssl_context or trust()

    def fetch(self, value: str, task_id: int | None, credentials: Credentials | None = None) -> bytes:
        """The bytes of the image that task data calls `value`.

        `credentials` are the project's user name and password for image hosts; a host gets them if it asks.
        Raises FetchError, or LabelStudioError if Label Studio can't be reached or refuses the token.
        """
        scheme = value.partition(":")[0].lower()
        path = f"/{value.lstrip('/')}"
        if scheme == "data":
            return self._decode(value)
        if scheme in ("http", "https"):
            return self._download(_url(value), credentials)
        if scheme in _CLOUD:
            return self._download(self._cloud_url(value, task_id))
        if path.startswith(("/data/upload/", "/upload/")):
            return self._upload(path)
        if path.startswith("/data/local-files/"):
            return self._local_file(path)
        raise LocalFileRefused(
            f"{_short(value)} is neither a web address nor a file of Label Studio. Files of this machine are read "
            "only as /data/local-files/?d=..., below RIS_LOCAL_FILES_ROOT."
        )

    def _decode(self, value: str) -> bytes:
        kind, comma, content = value.partition(",")
        if not (kind.lower().startswith("data:image/") and kind.lower().endswith(";base64") and comma):
            raise FetchFailed(f"{_short(kind)} isn't an image: write data:image/...;base64,...")
        self._check_size(len(content) * 3 // 4 - 2, "The image in the task's data")
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            raise FetchFailed("The image in the task's data isn't valid base64. Import it again.") from None

    def _cloud_url(self, value: str, task_id: int | None) -> httpx.URL:
        if task_id is None:
            raise FetchFailed(f"{_short(value)} can be fetched for a task alone, and this one has no id.")
        fileuri = base64.urlsafe_b64encode(value.encode()).decode()
        return _url(f"{self._label_studio}/tasks/{int(task_id)}/resolve/?fileuri={quote(fileuri)}")

    def _upload(self, path: str) -> bytes:
        url = _url(f"{self._label_studio}/data/{path.removeprefix('/data').lstrip('/')}")
        key = f"{self._scope} {url}"
        data = self._cache.get(key)
        if data is None or len(data) > self._max_bytes:
            data = self._download(url)
            self._cache.put(key, data)
        return data

    def _local_file(self, path: str) -> bytes:
        if self._local_files_root is None:
            return self._download(_url(f"{self._label_studio}{path}"))
        name = parse_qs(urlsplit(path).query).get("d", [""])[0]
        root = self._local_files_root.resolve()
        try:
            file = (root / name).resolve()
            if not file.is_relative_to(root):
                raise LocalFileRefused(f"{_short(name)} isn't below RIS_LOCAL_FILES_ROOT.")
            return self._read(file, name)
        # A name may hold a NUL, or lead through a circle of links.
        except (OSError, ValueError, RuntimeError):
            raise FetchFailed(f"There is no file {_short(name)} to read below RIS_LOCAL_FILES_ROOT.") from None

    def _read(self, path: Path, name: str) -> bytes:
        if not path.is_file():
            raise FileNotFoundError(path)
        with path.open("rb") as file:
            data = file.read(self._max_bytes + 1)
        self._check_size(len(data), _short(name))
        return data

    def _download(self, url: httpx.URL, credentials: Credentials | None = None) -> bytes:
        network = GuardedNetwork(self._allowed, self._resolve, time.monotonic() + self._seconds)
        origin = _origin(url)
        for _ in range(MAX_REDIRECTS + 1):
            auth = self._auth_for(url, credentials if _origin(url) == origin else None)
            answer = self._get(url, auth, network)
            if isinstance(answer, bytes):
                return answer
            url = answer
        raise FetchFailed(f"{_shown(url)} is more than {MAX_REDIRECTS} redirects away. Use its final address.")

    def _auth_for(self, url: httpx.URL, credentials: Credentials | None) -> httpx.Auth | None:
        if _origin(url) != _origin(self._label_studio):
            return _WhenAsked(*credentials) if credentials else None
        path = unquote(url.path).removeprefix(self._label_studio.path.rstrip("/"))
        return self._auth if path.startswith(("/data/", "/tasks/")) and ".." not in path else None

    def _get(self, url: httpx.URL, auth: httpx.Auth | None, network: GuardedNetwork) -> bytes | httpx.URL:
        """One request: the body, or where it is said to be."""
        transport = GuardedTransport(network, self._ssl_context)
        # A client for each hop: cookies know no ports, and Label Studio sets one that opens a session.
        with httpx.Client(transport=transport, timeout=TIMEOUT, trust_env=False) as http:
            try:
                with http.stream("GET", url, auth=auth, headers={"Accept-Encoding": "identity"}) as response:
                    if response.next_request is not None:
                        return _url(str(response.next_request.url))
                    return self._body(response)
            except httpx.RequestError as error:
                raise self._failure(url, error) from error

    def _body(self, response: httpx.Response) -> bytes:
        url = response.url
        if not response.is_success:
            raise FetchFailed(f"{_shown(url)} answered {response.status_code}. {self._hint(url)}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise FetchFailed(f"{_shown(url)} is sent compressed, which images need not be. Change that server.")
        announced = response.headers.get("Content-Length", "")
        self._check_size(int(announced) if announced.isdecimal() else 0, _shown(url))
        body = bytearray()
        for chunk in response.iter_raw(_CHUNK):
            body += chunk
            self._check_size(len(body), _shown(url))
        return bytes(body)

    def _hint(self, url: httpx.URL) -> str:
        if _origin(url) == _origin(self._label_studio):
            return "Open the task in Label Studio: if the image shows, check whose RIS_LABEL_STUDIO_TOKEN it is."
        return "Open it in a browser; a private one needs the project's task data credentials."

    def _check_size(self, size: int, name: str) -> None:
        if size > self._max_bytes:
            raise ImageTooLarge(f"{name} is larger than {self._max_bytes} bytes: raise RIS_MAX_IMAGE_BYTES.")

    def _failure(self, url: httpx.URL, error: httpx.RequestError) -> Exception:
        if _origin(url) == _origin(self._label_studio):
            return unreachable(str(self._label_studio), error)
        if isinstance(error, httpx.TimeoutException):
            return FetchTimeout(f"{_shown(url)} took too long: {self._seconds:g} s is the most. Try again later.")
        return FetchFailed(f"{_shown(url)} can't be fetched ({type(error).__name__}). Open it in a browser.")


class _WhenAsked(httpx.Auth):
    """User name and password, sent only once the host has answered 401."""

    def __init__(self, username: str, password: str) -> None:
        self._basic = httpx.BasicAuth(username, password)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            yield from self._basic.auth_flow(request)


def _url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise FetchFailed(f"The image's address isn't valid ({error}). Correct the task's data.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise FetchFailed(f"{_shown(url)} isn't a web address. Correct the task's data.")
    return url


def _port(url: httpx.URL) -> int:
    return url.port or {"http": 80, "https": 443}[url.scheme]


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, _port(url)


def _shown(url: httpx.URL) -> str:
    """An address for messages: without user name, password or signature."""
    return _short(f"{url.scheme}://{url.host}{url.path}")


def _short(text: str) -> str:
    printable = "".join(letter if letter.isprintable() else "?" for letter in text[:120])
    return printable if len(text) <= 120 else f"{printable}..."
