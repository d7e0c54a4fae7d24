"""From what task data calls an image to its bytes. Knows no pixels: what comes back may be anything.

    /data/upload/..., upload/...          Label Studio's uploads, fetched with the token
    /storage-data/uploaded/?filepath=...  the same, where Label Studio keeps uploads in a bucket
    /data/local-files/?d=...              below the local files root if it is there, else from Label Studio
    s3://, gs://, azure-blob://           Label Studio names a signed address, or passes the bytes on
    /tasks/7/resolve/?fileuri=...         the same, as Label Studio writes it itself
    http://, https://                     fetched from there
    data:image/...;base64,...             decoded

Label Studio below a sub-path writes that before its own: /label-studio/data/upload/... is an upload as well.

Everything else is refused. The token goes to Label Studio's own origin and nowhere else, and there only to paths that
serve files. Copies are kept on disk: an upload never changes in Label Studio; of any other image the server is asked
whether the copy is still good, if it named the image's state (ETag), and no copy is kept if it didn't.
"""

import base64
import binascii
import re
import ssl
import time
from collections.abc import Collection, Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

import httpx

from backend.errors import FetchError, FetchFailed, FetchTimeout, ImageTooLarge, LocalFileRefused
from backend.labelstudio.auth import TokenAuth
from backend.labelstudio.disk_cache import DiskCache
from backend.labelstudio.json_values import is_id
from backend.labelstudio.outbound import DIRECT, Outbound, explain
from backend.labelstudio.responses import check, unreachable
from backend.labelstudio.safe_http import AllowedHosts, GuardedNetwork, GuardedTransport, Resolve, check_public, resolve
from ris_core.files import sha256

Credentials = tuple[str, str]
"""User name and password."""

TIMEOUT = httpx.Timeout(connect=5.0, read=10.0, write=10.0, pool=10.0)
MAX_REDIRECTS = 3
_CLOUD = ("s3", "gs", "azure-blob")
_LOCAL, _UPLOADS = "/data/local-files/", ("/data/upload/", "/storage-data/uploaded/")
# Where Label Studio serves files; what else it has under a token's name is nobody's image.
_SERVED = re.compile(rf"(?:{'|'.join((*_UPLOADS, _LOCAL))}|/(?:tasks|projects)/[0-9]+/(?:resolve|presign)/)")
# The path that LABEL_STUDIO_HOST may have, below which Label Studio writes its files' addresses. Never in a query.
_SUB_PATH = re.compile(rf"^/(?!/)[^?#]*?(?={_SERVED.pattern})")
_CHUNK = 1 << 16
_LONGEST_ETAG = 200
# Not the matter of one image: the token, or how Label Studio is.
_TROUBLE = (401, 429, 502, 503, 504)

# What to do about an image that Label Studio doesn't serve: by path, then status.
_LABEL_STUDIO_ADVICE = {
    (_LOCAL, 403): "It serves no local files until LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true is set for it; "
    "or mount that folder here, and set RIS_LOCAL_FILES_ROOT to it.",
    (_LOCAL, 404): "The file is gone, or no Local Files storage covers its folder in a project that the owner of "
    "RIS_LABEL_STUDIO_TOKEN sees. Add one there, or mount that folder here and set RIS_LOCAL_FILES_ROOT to it.",
    ("/tasks/", 403): "The owner of RIS_LABEL_STUDIO_TOKEN doesn't see this task.",
    ("/tasks/", 404): "No cloud storage of the project covers it, or the file is gone: see its Settings, "
    "Cloud Storage.",
    ("/tasks/", 424): "It can't read the bucket: check the storage's credentials under Settings, Cloud Storage.",
    ("/data/upload/", 403): "The owner of RIS_LABEL_STUDIO_TOKEN doesn't see this task.",
    # Label Studio 1.23.2 fails over an upload that it doesn't know.
    ("/data/upload/", 500): "The upload is gone: import the image again.",
    ("/data/upload/", 404): "The upload is gone: import the image again.",
}
_WEB_ADVICE = {
    401: "Correct the project's task data credentials: that host asks for a user name and a password.",
    429: "That host asks for fewer requests: try again later.",
}


class _Body(NamedTuple):
    data: bytes
    etag: str
    is_unchanged: bool = False


class ImageResolver:
    """Fetches the images of tasks. Safe for threads.

    label_studio_url, token: Label Studio's address and a personal access token.
    cache: folder of the copies, at most `cache_bytes`.
    hosts: "host" or "host:port", where images may be fetched though the address isn't public.
    local_files_root: folder where /data/local-files/ is looked for first; None asks Label Studio alone.
    max_bytes: of one image. seconds: for all of one fetch. outbound: the way to Label Studio, and to others if it says
    so for images.
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
        outbound: Outbound = DIRECT,
    ) -> None:
        self._label_studio = httpx.URL(label_studio_url.rstrip("/"))
        self._auth = TokenAuth(label_studio_url, token)
        # Another token may see other images: its owner must not be served from this one's copies.
        self._scope = sha256(token.encode())
        self._cache = DiskCache(cache, cache_bytes)
        self._allowed = AllowedHosts([*hosts, f"{self._label_studio.host}:{_port(self._label_studio)}"])
        self._local_files_root = local_files_root
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._resolve = resolve
        self._outbound = outbound
        self._ssl_context = ssl_context or outbound.trust()

    def fetch(self, value: str, task_id: int | None, credentials: Credentials | None = None) -> bytes:
        """The bytes of the image that task data calls `value`; images in a bucket are fetched by the task's id.

        A host that asks for it gets `credentials`, the project's. Raises FetchError if the image can't be had, and
        LabelStudioError if Label Studio can't be reached or refuses the token.
        """
        value = value.strip()
        scheme = value.partition(":")[0].lower()
        if scheme == "data":
            return self._decode(value)
        if scheme in ("http", "https"):
            return self._from_web(_url(value), credentials)
        if scheme in _CLOUD:
            return self._revalidated(self._cloud_url(value, task_id))
        if path := _served_path(f"/{value.removeprefix('/')}"):
            return self._from_label_studio(path)
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
        if not is_id(task_id):
            raise FetchFailed(
                f"{_short(value)} can be fetched for a task alone, and this one has no id that is a number."
            )
        fileuri = base64.urlsafe_b64encode(value.encode()).decode()
        return _url(f"{self._label_studio}/tasks/{task_id}/resolve/?fileuri={quote(fileuri)}")

    def _from_web(self, url: httpx.URL, credentials: Credentials | None) -> bytes:
        path = _served_path(self._path(url))
        if path and self._is_label_studio(url):
            return self._from_label_studio(path)
        try:
            return self._revalidated(url, credentials)
        except FetchError:
            # Label Studio writes addresses by the name that browsers know it by, which may lead nowhere from here.
            if path:
                with suppress(FetchError):
                    return self._from_label_studio(path)
            raise

    def _from_label_studio(self, path: str) -> bytes:
        if path.startswith(_LOCAL) and (data := self._local_file(path)) is not None:
            return data
        url = _url(f"{self._label_studio}{path}")
        return self._upload(url) if path.startswith(_UPLOADS) else self._revalidated(url)

    def _upload(self, url: httpx.URL) -> bytes:
        key = f"{self._scope} {url}"
        data = self._cache.get(key)
        if data is None or len(data) > self._max_bytes:
            data = self._download(url).data
            self._cache.put(key, data)
        return data

    def _revalidated(self, url: httpx.URL, credentials: Credentials | None = None) -> bytes:
        """An image that may change: the copy if the server calls it good, else what it sends."""
        key = f"{self._scope} etag {url}"
        etag, _, copy = (self._cache.get(key) or b"").partition(b"\n")
        body = self._download(url, credentials, etag.decode() if len(copy) <= self._max_bytes else "")
        if body.is_unchanged:
            return copy
        if body.etag:
            self._cache.put(key, b"\n".join((body.etag.encode(), body.data)))
        return body.data

    def _local_file(self, path: str) -> bytes | None:
        """A local file below the root; None if it isn't there, or there is no root."""
        if self._local_files_root is None:
            return None
        name = parse_qs(urlsplit(path).query).get("d", [""])[0]
        root = self._local_files_root.resolve()
        try:
            path_here = (root / name).resolve()
            if not path_here.is_relative_to(root):
                raise LocalFileRefused(f"{_short(name)} isn't below RIS_LOCAL_FILES_ROOT.")
            if not path_here.is_file():
                return None
            with path_here.open("rb") as file:
                data = file.read(self._max_bytes + 1)
        # A name may hold a NUL, or lead through a circle of links.
        except (OSError, ValueError, RuntimeError):
            return None
        self._check_size(len(data), _short(name))
        return data

    def _download(self, url: httpx.URL, credentials: Credentials | None = None, etag: str = "") -> _Body:
        """What an address leads to, unless that is still in the state that `etag` names."""
        deadline = time.monotonic() + self._seconds
        origin = _origin(url)
        for _ in range(MAX_REDIRECTS + 1):
            auth = self._auth_for(url, credentials if _origin(url) == origin else None)
            answer = self._get(url, auth, deadline, etag)
            if not isinstance(answer, httpx.URL):
                return answer
            url = answer
        raise FetchFailed(f"{_shown(url)} is more than {MAX_REDIRECTS} redirects away. Use its final address.")

    def _auth_for(self, url: httpx.URL, credentials: Credentials | None) -> httpx.Auth | None:
        if not self._is_label_studio(url):
            return _WhenAsked(*credentials) if credentials else None
        path = unquote(self._path(url).partition("?")[0])
        return self._auth if _SERVED.match(path) and ".." not in path else None

    def _get(self, url: httpx.URL, auth: httpx.Auth | None, deadline: float, etag: str) -> _Body | httpx.URL:
        """One request: the body, or where it is said to be."""
        transport = self._transport(url, deadline)
        headers = {"Accept-Encoding": "identity"} | ({"If-None-Match": etag} if etag else {})
        answered = False
        # A client for each hop: cookies know no ports, and Label Studio sets one that opens a session.
        with httpx.Client(transport=transport, timeout=TIMEOUT, trust_env=False) as http:
            try:
                with http.stream("GET", url, auth=auth, headers=headers) as response:
                    answered = True
                    if response.next_request is not None:
                        return _url(str(response.next_request.url))
                    if etag and response.status_code == httpx.codes.NOT_MODIFIED:
                        return _Body(b"", etag, is_unchanged=True)
                    if auth is self._auth and response.status_code in _TROUBLE:
                        check(response)
                    return self._body(response)
            except httpx.RequestError as error:
                raise self._failure(url, error, answered) from error

    def _transport(self, url: httpx.URL, deadline: float) -> GuardedTransport:
        allowed, proxy = self._allowed, self._proxy_to(url)
        if proxy:
            if not self._is_label_studio(url):
                check_public(url.host, _port(url), self._resolve)
            allowed = AllowedHosts([f"{httpx.URL(proxy).host}:{_port(httpx.URL(proxy))}"])
        return GuardedTransport(GuardedNetwork(allowed, self._resolve, deadline), self._ssl_context, proxy)

    def _proxy_to(self, url: httpx.URL) -> str | None:
        """Label Studio is reached as its client reaches it; hosts that may lie inside are reached directly."""
        is_proxied = self._outbound.images and not self._allowed.allow(url.host, _port(url))
        return self._outbound.proxy_to(url.host) if is_proxied or self._is_label_studio(url) else None

    def _body(self, response: httpx.Response) -> _Body:
        url = response.url
        if not response.is_success:
            raise FetchFailed(f"{_shown(url)} answered {response.status_code}. {self._advice(response)}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise FetchFailed(f"{_shown(url)} is sent compressed, which images need not be. Change that server.")
        announced = response.headers.get("Content-Length", "")
        self._check_size(int(announced) if announced.isdecimal() else 0, _shown(url))
        body = bytearray()
        for chunk in response.iter_raw(_CHUNK):
            body += chunk
            self._check_size(len(body), _shown(url))
        etag = response.headers.get("ETag", "")
        is_sane = len(etag) <= _LONGEST_ETAG and etag.isascii() and etag.isprintable()
        return _Body(bytes(body), etag if is_sane else "")

    def _advice(self, response: httpx.Response) -> str:
        if not self._is_label_studio(response.url):
            if response.is_server_error:
                return "That host is in trouble: try again later."
            otherwise = "Open it in a browser: it may be misspelt, expired or private. Correct the task's data."
            return _WEB_ADVICE.get(response.status_code, otherwise)
        path = self._path(response.url)
        for (start, status), advice in _LABEL_STUDIO_ADVICE.items():
            if path.startswith(start) and response.status_code == status:
                return advice
        return "Open the task in Label Studio: if the image shows, check whose RIS_LABEL_STUDIO_TOKEN it is."

    def _check_size(self, size: int, name: str) -> None:
        if size > self._max_bytes:
            raise ImageTooLarge(f"{name} is larger than {self._max_bytes} bytes: raise RIS_MAX_IMAGE_BYTES.")

    def _failure(self, url: httpx.URL, error: httpx.RequestError, answered: bool) -> Exception:
        is_label_studio = self._is_label_studio(url)
        if is_label_studio and not answered:
            return unreachable(str(self._label_studio), error)
        if isinstance(error, httpx.TimeoutException):
            return FetchTimeout(f"{_shown(url)} took too long: {self._seconds:g} s is the most. Try again later.")
        # Label Studio passes the bytes of a bucket on for so long, and then stops in mid-file.
        broken = "Label Studio broke off: have that storage use pre-signed URLs, or raise its RESOLVER_PROXY_TIMEOUT."
        reason, remedy = explain(error)
        if self._outbound.proxy and not self._outbound.images:
            remedy = remedy or "If only the proxy leads there, set RIS_PROXY_IMAGES=true."
        advice = broken if is_label_studio else remedy or "Open it in a browser."
        return FetchFailed(f"{_shown(url)} can't be fetched ({reason}). {advice}")

    def _is_label_studio(self, url: httpx.URL) -> bool:
        return _origin(url) == _origin(self._label_studio)

    def _path(self, url: httpx.URL) -> str:
        """Path and query of an address, less the path that Label Studio itself lies under."""
        return url.raw_path.decode().removeprefix(self._label_studio.path.rstrip("/"))


class _WhenAsked(httpx.Auth):
    """User name and password, sent only once the host has answered 401."""

    def __init__(self, username: str, password: str) -> None:
        self._basic = httpx.BasicAuth(username, password)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            yield from self._basic.auth_flow(request)


def project_credentials(project: Mapping[str, Any]) -> Credentials | None:
    """The login for the hosts of a project's images, as Label Studio's API describes the project; None without one."""
    login = project.get("task_data_login")
    return (str(login), str(project.get("task_data_password") or "")) if login else None


def _served_path(path: str) -> str | None:
    """Path and query of a file as Label Studio serves it; None if it serves none there."""
    for short, full in (("/upload/", "/data/upload/"), ("/data/local-files?", "/data/local-files/?")):
        if path.startswith(short):
            path = full + path.removeprefix(short)
    path = path if _SERVED.match(path) else _SUB_PATH.sub("", path, count=1)
    return path if _SERVED.match(path) else None


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
