"""Images of tasks, from honest and hostile places: each control of the resolver is attacked here."""

from __future__ import annotations

import base64
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from backend.errors import (
    AddressRefused,
    FetchError,
    FetchFailed,
    FetchTimeout,
    ImageTooLarge,
    LabelStudioError,
    LabelStudioFailed,
    LabelStudioRateLimited,
    LabelStudioUnauthorized,
    LabelStudioUnreachable,
    LocalFileRefused,
)
from backend.labelstudio.images import ImageResolver

from .site import Answer, Asked, Site, serve

TOKEN = "personal-token-0123456789"
PHOTO = b"\x89PNG photo"
LIMIT = 10_000


class Studio:
    """Label Studio's files: with a right access token, `PHOTO` for what it holds; it sets a session cookie, too."""

    def __init__(self) -> None:
        self.files = {"/data/upload/1/cat.png": Answer(200, PHOTO)}

    def __call__(self, asked: Asked) -> Answer:
        if asked.path == "/api/token/refresh/":
            right = json.loads(asked.body) == {"refresh": TOKEN}
            return Answer(200, b'{"access": "access"}') if right else Answer(401, b"{}")
        if asked.headers.get("Authorization") != "Bearer access":
            return Answer(401, b'{"detail": "Authentication credentials were not provided."}')
        answer = self.files.get(asked.path, Answer(404))
        answer.headers["Set-Cookie"] = "sessionid=opens-a-session; Path=/"
        return answer


@pytest.fixture
def studio() -> Studio:
    return Studio()


@pytest.fixture
def label_studio(studio: Studio) -> Iterator[Site]:
    with serve(studio) as site:
        yield site


@pytest.fixture
def elsewhere() -> Iterator[Site]:
    """Another host, at a private address that is allowed: photos.example, any port."""
    with serve(lambda _: Answer(200, PHOTO)) as site:
        yield site


def resolver(label_studio: Site, tmp_path: Path, **settings: Any) -> ImageResolver:
    defaults: dict[str, Any] = {
        "hosts": ["photos.example"],
        "max_bytes": LIMIT,
        "seconds": 5.0,
        "resolve": lambda host, _: ["127.0.0.1"] if host != "inside.example" else ["10.0.0.1"],
    }
    return ImageResolver(label_studio.url, TOKEN, cache=tmp_path / "cache", **defaults | settings)


@pytest.fixture
def images(label_studio: Site, tmp_path: Path) -> ImageResolver:
    return resolver(label_studio, tmp_path)


def photos(site: Site, path: str = "/cat.png") -> str:
    return f"http://photos.example:{site.port}{path}"


class TestUploads:
    @pytest.mark.parametrize(
        "value", ["/data/upload/1/cat.png", "upload/1/cat.png", "/upload/1/cat.png", "data/upload/1/cat.png"]
    )
    def test_every_spelling(self, images: ImageResolver, value: str) -> None:
        assert images.fetch(value, 1) == PHOTO

    def test_the_full_address(self, images: ImageResolver, label_studio: Site) -> None:
        assert images.fetch(f"{label_studio.url}/data/upload/1/cat.png", 1) == PHOTO

    def test_a_copy_is_kept(self, images: ImageResolver, label_studio: Site, tmp_path: Path) -> None:
        for _ in range(3):
            assert images.fetch("/data/upload/1/cat.png", 1) == PHOTO
        assert label_studio.paths().count("/data/upload/1/cat.png") == 1
        assert resolver(label_studio, tmp_path).fetch("/data/upload/1/cat.png", 1) == PHOTO
        assert label_studio.paths().count("/data/upload/1/cat.png") == 1

    def test_a_copy_belongs_to_its_token(self, images: ImageResolver, label_studio: Site, tmp_path: Path) -> None:
        images.fetch("/data/upload/1/cat.png", 1)
        stranger = ImageResolver(label_studio.url, "another", cache=tmp_path / "cache")
        with pytest.raises(LabelStudioUnauthorized):
            stranger.fetch("/data/upload/1/cat.png", 1)

    def test_a_copy_obeys_a_lower_limit(self, images: ImageResolver, label_studio: Site, tmp_path: Path) -> None:
        images.fetch("/data/upload/1/cat.png", 1)
        with pytest.raises(ImageTooLarge):
            resolver(label_studio, tmp_path, max_bytes=3).fetch("/data/upload/1/cat.png", 1)

    def test_one_that_is_gone(self, images: ImageResolver, studio: Studio) -> None:
        with pytest.raises(FetchFailed, match="404"):
            images.fetch("/data/upload/1/dog.png", 1)
        studio.files["/data/upload/1/dog.png"] = Answer(500)
        with pytest.raises(FetchFailed, match="500"):
            images.fetch("/data/upload/1/dog.png", 1)

    def test_label_studio_is_gone(self, tmp_path: Path) -> None:
        with serve(lambda _: Answer()) as gone:
            images = resolver(gone, tmp_path)
        with pytest.raises(LabelStudioUnreachable, match="RIS_LABEL_STUDIO_URL"):
            images.fetch("/data/upload/1/cat.png", 1)

    def test_uploads_that_lie_in_a_bucket(self, images: ImageResolver, studio: Studio, label_studio: Site) -> None:
        studio.files["/storage-data/uploaded/"] = Answer(200, PHOTO)
        for _ in range(2):
            assert images.fetch("/storage-data/uploaded/?filepath=upload/1/cat.png", 1) == PHOTO
        assert label_studio.asked[-1].target == "/storage-data/uploaded/?filepath=upload/1/cat.png"
        assert label_studio.paths().count("/storage-data/uploaded/") == 1

    def test_label_studio_behind_a_path(self, tmp_path: Path) -> None:
        def prefixed(asked: Asked) -> Answer:
            assert asked.target.startswith("/ls/")
            return Studio()(Asked(asked.method, asked.target.removeprefix("/ls"), asked.headers, asked.body))

        with serve(prefixed) as site:
            images = ImageResolver(f"{site.url}/ls/", TOKEN, cache=tmp_path)
            assert images.fetch("/data/upload/1/cat.png", 1) == PHOTO


class TestOtherNames:
    """Label Studio writes addresses by the name that browsers know it by (LABEL_STUDIO_HOST)."""

    @pytest.mark.parametrize("host", ["http://inside.example", "http://localhost:{port}", "http://photos.example:1"])
    def test_label_studio_is_asked_by_the_name_that_leads_there(
        self, images: ImageResolver, label_studio: Site, host: str
    ) -> None:
        address = host.format(port=label_studio.port)
        assert images.fetch(f"{address}/data/upload/1/cat.png", 1) == PHOTO
        assert label_studio.asked[-1].headers["Authorization"] == "Bearer access"

    def test_another_host_with_such_paths_is_asked_itself(self, images: ImageResolver, elsewhere: Site) -> None:
        elsewhere.answering = lambda _: Answer(200, b"another photo")
        assert images.fetch(photos(elsewhere, "/data/upload/1/cat.png"), 1) == b"another photo"

    def test_what_neither_has_is_the_named_hosts_failure(self, images: ImageResolver, elsewhere: Site) -> None:
        elsewhere.answering = lambda _: Answer(403)
        with pytest.raises(FetchFailed, match=r"photos\.example/data/upload/1/none\.png answered 403"):
            images.fetch(photos(elsewhere, "/data/upload/1/none.png"), 1)

    def test_other_paths_are_not_looked_for_in_label_studio(
        self, images: ImageResolver, elsewhere: Site, label_studio: Site
    ) -> None:
        elsewhere.answering = lambda _: Answer(403)
        with pytest.raises(FetchFailed):
            images.fetch(photos(elsewhere, "/api/projects/"), 1)
        assert label_studio.asked == []


class TestToken:
    @pytest.mark.parametrize(
        "path",
        ["/api/projects/", "/data/../api/projects/", "/data/%2e%2e/api/projects/", "/data/upload/..%2f../api/", "/"],
    )
    def test_it_is_sent_only_to_paths_that_serve_files(
        self, images: ImageResolver, label_studio: Site, path: str
    ) -> None:
        for value in (f"{label_studio.url}{path}", f"/data/upload/..{path}"):
            with pytest.raises(FetchFailed):
                images.fetch(value, 1)
        signed = [asked.target for asked in label_studio.asked if "Authorization" in asked.headers]
        assert all(target.startswith("/data/") and ".." not in unquote(target) for target in signed)

    def test_it_is_not_sent_to_another_origin(self, images: ImageResolver, elsewhere: Site) -> None:
        images.fetch(photos(elsewhere, "/data/upload/1/cat.png"), 1, ("user", "word"))
        assert "Authorization" not in elsewhere.asked[0].headers

    def test_it_does_not_follow_a_redirect(
        self, images: ImageResolver, studio: Studio, label_studio: Site, elsewhere: Site
    ) -> None:
        studio.files["/data/upload/1/cat.png"] = Answer(302, b"", {"Location": photos(elsewhere, "/data/x")})
        assert images.fetch("/data/upload/1/cat.png", 1) == PHOTO
        assert label_studio.asked[-1].headers["Authorization"] == "Bearer access"
        assert not {"authorization", "cookie"} & {name.lower() for name in elsewhere.asked[0].headers}

    def test_nor_does_a_session_cookie_go_to_another_port(
        self, studio: Studio, label_studio: Site, elsewhere: Site, tmp_path: Path
    ) -> None:
        images = resolver(label_studio, tmp_path, hosts=["127.0.0.1"])
        studio.files["/data/upload/1/cat.png"] = Answer(302, b"", {"Location": f"{elsewhere.url}/x"})
        assert images.fetch("/data/upload/1/cat.png", 1) == PHOTO
        assert not {"authorization", "cookie"} & {name.lower() for name in elsewhere.asked[0].headers}


class TestCloud:
    @pytest.mark.parametrize("scheme", ["s3", "gs", "azure-blob"])
    def test_label_studio_signs_and_the_storage_serves(
        self, images: ImageResolver, studio: Studio, label_studio: Site, elsewhere: Site, scheme: str
    ) -> None:
        value = f"{scheme}://bucket/fo lder/käse?.png"
        studio.files["/tasks/7/resolve/"] = Answer(303, b"", {"Location": photos(elsewhere, "/signed?signature=x")})
        assert images.fetch(value, 7) == PHOTO
        sent = label_studio.asked[-1].target.split("fileuri=")[1].replace("%3D", "=")
        assert base64.urlsafe_b64decode(sent).decode() == value
        assert "Authorization" not in elsewhere.asked[0].headers

    def test_label_studio_may_pass_the_bytes_on(self, images: ImageResolver, studio: Studio) -> None:
        studio.files["/tasks/7/resolve/"] = Answer(200, PHOTO)
        assert images.fetch("s3://bucket/cat.png", 7) == PHOTO

    def test_copies_are_not_kept(self, images: ImageResolver, studio: Studio) -> None:
        studio.files["/tasks/7/resolve/"] = Answer(200, b"old")
        images.fetch("s3://bucket/cat.png", 7)
        studio.files["/tasks/7/resolve/"] = Answer(200, b"new")
        assert images.fetch("s3://bucket/cat.png", 7) == b"new"

    @pytest.mark.parametrize("path", ["/tasks/7/resolve/?fileuri=eA==", "/tasks/7/presign/?fileuri=eA=="])
    def test_as_label_studio_writes_it(self, images: ImageResolver, studio: Studio, path: str) -> None:
        studio.files[path.partition("?")[0]] = Answer(200, PHOTO)
        assert images.fetch(path, 7) == PHOTO

    def test_other_paths_of_a_task_are_no_image(self, images: ImageResolver, label_studio: Site) -> None:
        with pytest.raises(LocalFileRefused):
            images.fetch("/tasks/7/annotations/", 7)
        assert label_studio.asked == []

    def test_without_a_task(self, images: ImageResolver) -> None:
        with pytest.raises(FetchFailed, match="no id"):
            images.fetch("s3://bucket/cat.png", None)


class TestCopies:
    """Of images that may change: the server is asked whether the copy is still good."""

    @staticmethod
    def serving(etag: str, content: bytes) -> Callable[[Asked], Answer]:
        def answer(asked: Asked) -> Answer:
            same = asked.headers.get("If-None-Match") == etag
            return Answer(304, b"", {"ETag": etag}) if same else Answer(200, content, {"ETag": etag})

        return answer

    def test_a_copy_that_is_still_good_is_used(self, images: ImageResolver, elsewhere: Site) -> None:
        elsewhere.answering = self.serving('W/"1"', PHOTO)
        assert [images.fetch(photos(elsewhere), 1) for _ in range(2)] == [PHOTO, PHOTO]
        assert [asked.headers.get("If-None-Match") for asked in elsewhere.asked] == [None, 'W/"1"']

    def test_one_that_has_changed_is_replaced(self, images: ImageResolver, elsewhere: Site) -> None:
        for version in (b"1", b"2\n2", b"3"):
            elsewhere.answering = self.serving(f'"{version[:1].decode()}"', version)
            assert [images.fetch(photos(elsewhere), 1) for _ in range(2)] == [version, version]

    def test_label_studio_and_buckets_are_asked_too(
        self, images: ImageResolver, studio: Studio, elsewhere: Site
    ) -> None:
        elsewhere.answering = self.serving('"1"', PHOTO)
        for signature in "ab":
            location = photos(elsewhere, f"/signed?signature={signature}")
            studio.files["/tasks/7/resolve/"] = Answer(303, b"", {"Location": location})
            assert images.fetch("s3://bucket/cat.png", 7) == PHOTO
        assert elsewhere.asked[-1].headers["If-None-Match"] == '"1"'

    def test_a_copy_obeys_a_lower_limit(
        self, images: ImageResolver, elsewhere: Site, label_studio: Site, tmp_path: Path
    ) -> None:
        elsewhere.answering = self.serving('"1"', PHOTO)
        images.fetch(photos(elsewhere), 1)
        with pytest.raises(ImageTooLarge):
            resolver(label_studio, tmp_path, max_bytes=3).fetch(photos(elsewhere), 1)

    @pytest.mark.parametrize("etag", ["", "é", "x" * 10_000])
    def test_nothing_is_kept_without_a_state_that_can_be_named(
        self, images: ImageResolver, elsewhere: Site, etag: str
    ) -> None:
        elsewhere.answering = lambda _: Answer(200, PHOTO, {"ETag": etag} if etag else {})
        for _ in range(2):
            assert images.fetch(photos(elsewhere), 1) == PHOTO
        assert "If-None-Match" not in elsewhere.asked[-1].headers

    def test_an_answer_of_not_modified_that_nobody_asked_for(self, images: ImageResolver, elsewhere: Site) -> None:
        elsewhere.answering = lambda _: Answer(304)
        with pytest.raises(FetchFailed, match="304"):
            images.fetch(photos(elsewhere), 1)


class TestCauses:
    """Each cause has an error that names what to change."""

    @pytest.mark.parametrize(
        ("value", "status", "words"),
        [
            ("/data/local-files/?d=a.png", 403, "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true"),
            ("/data/local-files/?d=a.png", 404, "Local Files storage"),
            ("/data/upload/1/a.png", 403, "RIS_LABEL_STUDIO_TOKEN"),
            ("/data/upload/1/a.png", 404, "import the image again"),
            ("/data/upload/1/a.png", 500, "import the image again"),
            ("s3://bucket/a.png", 403, "RIS_LABEL_STUDIO_TOKEN"),
            ("s3://bucket/a.png", 404, "Cloud Storage"),
            ("s3://bucket/a.png", 424, "credentials"),
            ("s3://bucket/a.png", 418, "RIS_LABEL_STUDIO_TOKEN"),
        ],
    )
    def test_of_label_studio(self, images: ImageResolver, studio: Studio, value: str, status: int, words: str) -> None:
        paths = ("/data/local-files/", "/data/upload/1/a.png", "/tasks/7/resolve/")
        studio.files = {path: Answer(status) for path in paths}
        with pytest.raises(FetchFailed, match=words):
            images.fetch(value, 7)

    @pytest.mark.parametrize(
        ("status", "words"),
        [(401, "task data credentials"), (404, "task's data"), (429, "fewer"), (403, "browser"), (503, "later")],
    )
    def test_of_another_host(self, images: ImageResolver, elsewhere: Site, status: int, words: str) -> None:
        elsewhere.answering = lambda _: Answer(status)
        with pytest.raises(FetchFailed, match=words):
            images.fetch(photos(elsewhere), 1)

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (401, LabelStudioUnauthorized),
            (429, LabelStudioRateLimited),
            (502, LabelStudioFailed),
            (503, LabelStudioFailed),
            (504, LabelStudioFailed),
        ],
    )
    def test_label_studios_own_trouble_is_not_an_images(
        self, images: ImageResolver, studio: Studio, status: int, kind: type[LabelStudioError]
    ) -> None:
        studio.files["/data/upload/1/cat.png"] = Answer(status)
        with pytest.raises(kind):
            images.fetch("/data/upload/1/cat.png", 1)

    def test_label_studio_breaks_off(self, images: ImageResolver, studio: Studio) -> None:
        studio.files["/tasks/7/resolve/"] = Answer(200, b"part", {"Content-Length": "100"})
        with pytest.raises(FetchFailed, match="RESOLVER_PROXY_TIMEOUT"):
            images.fetch("s3://bucket/a.png", 7)

    def test_label_studio_drips(self, studio: Studio, label_studio: Site, tmp_path: Path) -> None:
        def drip() -> Iterator[bytes]:
            while True:
                time.sleep(0.05)
                yield b"x"

        studio.files["/tasks/7/resolve/"] = Answer(200, drip())
        with pytest.raises(FetchTimeout):
            resolver(label_studio, tmp_path, seconds=0.4).fetch("s3://bucket/a.png", 7)


class TestWeb:
    def test_an_image_is_fetched(self, images: ImageResolver, elsewhere: Site) -> None:
        assert images.fetch(photos(elsewhere, "/a b/ü.png?size=1"), None) == PHOTO
        assert elsewhere.asked[0].target == "/a%20b/%C3%BC.png?size=1"

    @pytest.mark.parametrize(
        "location", ["http://localhost:{port}/", "http://127.0.0.1:{port}/", "http://inside.example/"]
    )
    def test_a_redirect_inside_is_refused(
        self, images: ImageResolver, elsewhere: Site, label_studio: Site, location: str
    ) -> None:
        with serve(lambda _: Answer(200, b"secret")) as inside:
            redirect = Answer(302, b"", {"Location": location.format(port=inside.port)})
            elsewhere.answering = lambda _: redirect
            with pytest.raises(AddressRefused, match="RIS_IMAGE_HOSTS"):
                images.fetch(photos(elsewhere), 1)
            assert inside.asked == []

    @pytest.mark.parametrize(
        "url", ["http://169.254.169.254/latest/meta-data/", "http://[::ffff:127.0.0.1]/", "http://localhost/"]
    )
    def test_an_inside_address_is_refused(self, label_studio: Site, tmp_path: Path, url: str) -> None:
        images = ImageResolver(label_studio.url, TOKEN, cache=tmp_path)
        with pytest.raises(AddressRefused, match="RIS_IMAGE_HOSTS"):
            images.fetch(url, 1)

    def test_a_resolver_that_changes_its_mind_is_refused_at_the_redirect(
        self, label_studio: Site, elsewhere: Site, tmp_path: Path
    ) -> None:
        # A first answer that is allowed by name, then another name at an inside address.
        elsewhere.answering = lambda _: Answer(302, b"", {"Location": f"http://rebound.example:{elsewhere.port}/again"})
        with pytest.raises(AddressRefused):
            resolver(label_studio, tmp_path).fetch(photos(elsewhere), 1)
        assert elsewhere.paths() == ["/cat.png"]

    @pytest.mark.parametrize(
        "location", ["file:///etc/passwd", "ftp://photos.example/", "gopher://x/", "http://[bad", "http:///x"]
    )
    def test_a_redirect_to_another_scheme_is_refused(
        self, images: ImageResolver, elsewhere: Site, location: str
    ) -> None:
        elsewhere.answering = lambda _: Answer(302, b"", {"Location": location})
        with pytest.raises(FetchError):
            images.fetch(photos(elsewhere), 1)

    @pytest.mark.parametrize(("redirects", "fine"), [(3, True), (4, False)])
    def test_redirects_end(self, images: ImageResolver, elsewhere: Site, redirects: int, fine: bool) -> None:
        def hop(asked: Asked) -> Answer:
            left = int(asked.path[1:])
            return Answer(302, b"", {"Location": f"/{left - 1}"}) if left else Answer(200, PHOTO)

        elsewhere.answering = hop
        if fine:
            assert images.fetch(photos(elsewhere, f"/{redirects}"), 1) == PHOTO
        else:
            with pytest.raises(FetchFailed, match="more than 3 redirects"):
                images.fetch(photos(elsewhere, f"/{redirects}"), 1)
        assert len(elsewhere.asked) == 4

    def test_credentials_are_sent_to_who_asks_for_them(self, images: ImageResolver, elsewhere: Site) -> None:
        basic = "Basic " + base64.b64encode(b"user:word").decode()
        elsewhere.answering = lambda asked: Answer(200 if asked.headers.get("Authorization") == basic else 401, PHOTO)
        assert images.fetch(photos(elsewhere), 1, ("user", "word")) == PHOTO
        assert [asked.headers.get("Authorization") for asked in elsewhere.asked] == [None, basic]
        with pytest.raises(FetchFailed, match="401"):
            images.fetch(photos(elsewhere), 1)

    def test_credentials_stay_at_their_origin(self, images: ImageResolver, elsewhere: Site, label_studio: Site) -> None:
        with serve(lambda _: Answer(401)) as thief:
            elsewhere.answering = lambda _: Answer(302, b"", {"Location": photos(thief)})
            with pytest.raises(FetchFailed, match="401"):
                images.fetch(photos(elsewhere), 1, ("user", "word"))
            assert [asked.headers.get("Authorization") for asked in thief.asked] == [None]
        with pytest.raises(FetchFailed):
            images.fetch(f"{label_studio.url}/private.png", 1, ("user", "word"))
        assert label_studio.asked[-1].headers.get("Authorization") is None

    @pytest.mark.parametrize(
        "value", ["http://", "http://photos.example:99999/", "http://[bad/", "https://", "http://a\0b/", "http://\x7f/"]
    )
    def test_what_is_no_address(self, images: ImageResolver, value: str) -> None:
        with pytest.raises(FetchError):
            images.fetch(value, 1)

    def test_messages_hide_what_is_secret_in_an_address(self, images: ImageResolver, elsewhere: Site) -> None:
        elsewhere.answering = lambda _: Answer(403)
        with pytest.raises(FetchFailed, match="403") as caught:
            images.fetch(f"http://user:password@photos.example:{elsewhere.port}/a.png?signature=abc", 1)
        assert not [secret for secret in ("user", "password", "signature", "abc") if secret in str(caught.value)]


class TestLimits:
    def test_an_announced_size_is_refused_unread(self, images: ImageResolver, elsewhere: Site) -> None:
        elsewhere.answering = lambda _: Answer(200, b"x", {"Content-Length": str(10**12)})
        with pytest.raises(ImageTooLarge, match="RIS_MAX_IMAGE_BYTES"):
            images.fetch(photos(elsewhere), 1)

    @pytest.mark.parametrize("length", ["-5", "1e3", "many", "0x10"])
    def test_a_senseless_size_is_an_error(self, images: ImageResolver, elsewhere: Site, length: str) -> None:
        elsewhere.answering = lambda _: Answer(200, PHOTO, {"Content-Length": length})
        with pytest.raises(FetchFailed):
            images.fetch(photos(elsewhere), 1)

    @pytest.mark.parametrize(("size", "fine"), [(LIMIT, True), (LIMIT + 1, False)])
    def test_the_limit_is_exact(self, images: ImageResolver, elsewhere: Site, size: int, fine: bool) -> None:
        elsewhere.answering = lambda _: Answer(200, iter([bytes(size)]))
        if fine:
            assert len(images.fetch(photos(elsewhere), 1)) == size
        else:
            with pytest.raises(ImageTooLarge):
                images.fetch(photos(elsewhere), 1)

    def test_an_endless_body_is_cut(self, images: ImageResolver, elsewhere: Site) -> None:
        sent = itertools.count()
        elsewhere.answering = lambda _: Answer(200, (bytes(4096) for _ in sent))
        with pytest.raises(ImageTooLarge):
            images.fetch(photos(elsewhere), 1)
        assert next(sent) < 10_000

    @pytest.mark.parametrize("place", ["headers", "body"])
    def test_a_slow_drip_meets_the_deadline(
        self, label_studio: Site, elsewhere: Site, tmp_path: Path, place: str
    ) -> None:
        def drip() -> Iterator[bytes]:
            while True:
                time.sleep(0.05)
                yield b"x"

        def answer(asked: Asked) -> Answer:
            return Answer(200, drip()) if asked.path == "/body" else Answer(102, drip())

        elsewhere.answering = answer
        start = time.perf_counter()
        with pytest.raises(FetchTimeout, match=r"0\.4 s"):
            resolver(label_studio, tmp_path, seconds=0.4).fetch(photos(elsewhere, f"/{place}"), 1)
        assert 0.3 < time.perf_counter() - start < 2

    def test_the_deadline_covers_all_redirects(self, label_studio: Site, elsewhere: Site, tmp_path: Path) -> None:
        def slow(_: Asked) -> Answer:
            time.sleep(0.3)
            return Answer(302, b"", {"Location": "/next"})

        elsewhere.answering = slow
        with pytest.raises(FetchTimeout):
            resolver(label_studio, tmp_path, seconds=0.5).fetch(photos(elsewhere), 1)

    def test_a_compressed_body_is_not_expanded(self, images: ImageResolver, elsewhere: Site) -> None:
        elsewhere.answering = lambda _: Answer(200, b"\x1f\x8b bomb", {"Content-Encoding": "gzip"})
        with pytest.raises(FetchFailed, match="compressed"):
            images.fetch(photos(elsewhere), 1)
        assert elsewhere.asked[0].headers["Accept-Encoding"] == "identity"

    def test_a_broken_connection(self, images: ImageResolver, elsewhere: Site) -> None:
        for broken in (Answer(reset=True), Answer(200, b"part", {"Content-Length": "100"})):
            elsewhere.answering = lambda _, broken=broken: broken
            with pytest.raises(FetchFailed, match="can't be fetched"):
                images.fetch(photos(elsewhere), 1)


class TestLocalFiles:
    @pytest.fixture
    def local(self, label_studio: Site, tmp_path: Path) -> ImageResolver:
        root = tmp_path / "root"
        (root / "sub folder").mkdir(parents=True)
        (root / "sub folder" / "cat.png").write_bytes(PHOTO)
        (root / "large").write_bytes(bytes(LIMIT + 1))
        (root / "inner").symlink_to(root / "sub folder")
        (root / "circle").symlink_to(root / "circle")
        (tmp_path / "secret").write_bytes(b"secret")
        (tmp_path / "root-too").mkdir()
        (tmp_path / "root-too" / "secret").write_bytes(b"secret")
        (root / "link").symlink_to(tmp_path / "secret")
        (root / "up").symlink_to("..")
        os.mkfifo(root / "pipe")
        return resolver(label_studio, tmp_path, local_files_root=root)

    @pytest.mark.parametrize(
        "name", ["sub folder/cat.png", "sub%20folder/cat.png", "inner/cat.png", "inner/../inner/cat.png"]
    )
    def test_a_file_below_the_root(self, local: ImageResolver, name: str) -> None:
        assert local.fetch(f"/data/local-files/?d={name}", 1) == PHOTO

    @pytest.mark.parametrize(
        "name",
        [
            *("../secret", "sub folder/../../secret", "%2e%2e/secret", "..%2fsecret", "../root-too/secret"),
            *("link", "up/secret", "inner/../../secret", "/etc/hostname", "//etc/hostname", "..", "up", "~/secret/.."),
        ],
    )
    def test_nothing_outside_the_root(self, local: ImageResolver, tmp_path: Path, name: str) -> None:
        with pytest.raises(FetchError) as caught:
            local.fetch(f"/data/local-files/?d={name}", 1)
        assert "RIS_LOCAL_FILES_ROOT" in str(caught.value)
        assert str(tmp_path) not in str(caught.value)

    @pytest.mark.parametrize("prefix", ["/data/local-files?d=", "data/local-files/?d=", "{url}/data/local-files/?d="])
    def test_every_spelling(self, local: ImageResolver, label_studio: Site, prefix: str) -> None:
        assert local.fetch(prefix.format(url=label_studio.url) + "sub folder/cat.png", 1) == PHOTO
        assert label_studio.asked == []

    def test_what_is_not_below_the_root_is_asked_for(
        self, local: ImageResolver, studio: Studio, label_studio: Site
    ) -> None:
        studio.files["/data/local-files/"] = Answer(200, b"from Label Studio")
        assert local.fetch("/data/local-files/?d=other/dog.png", 1) == b"from Label Studio"
        assert label_studio.asked[-1].target == "/data/local-files/?d=other/dog.png"
        assert label_studio.asked[-1].headers["Authorization"] == "Bearer access"

    def test_but_nothing_outside_the_root(self, local: ImageResolver, label_studio: Site) -> None:
        with pytest.raises(LocalFileRefused):
            local.fetch("/data/local-files/?d=../secret", 1)
        assert label_studio.asked == []

    def test_outside_files_can_not_be_told_from_missing_ones(self, local: ImageResolver, tmp_path: Path) -> None:
        with pytest.raises(LocalFileRefused):
            local.fetch("/data/local-files/?d=../secret", 1)
        with pytest.raises(LocalFileRefused):
            local.fetch("/data/local-files/?d=../there-is-none", 1)

    @pytest.mark.parametrize("name", ["", ".", "sub folder", "none.png", "cat%00.png", "circle", "pipe", "x" * 5000])
    def test_what_is_no_file(self, local: ImageResolver, name: str) -> None:
        with pytest.raises(FetchFailed, match="RIS_LOCAL_FILES_ROOT"):
            local.fetch(f"/data/local-files/?d={name}", 1)

    def test_the_limit_holds(self, local: ImageResolver) -> None:
        with pytest.raises(ImageTooLarge):
            local.fetch("/data/local-files/?d=large", 1)

    def test_without_a_root_label_studio_is_asked(
        self, images: ImageResolver, studio: Studio, label_studio: Site
    ) -> None:
        with pytest.raises(FetchFailed, match="404"):
            images.fetch("/data/local-files/?d=etc/hostname", 1)
        assert label_studio.asked[-1].target == "/data/local-files/?d=etc/hostname"

    @pytest.mark.parametrize(
        "value",
        [
            *("file:///etc/passwd", "FILE:///etc/passwd", "/etc/passwd", "etc/passwd", "../cat.png", "cat.png", ""),
            *("//evil.example/data/upload/x", "ftp://x/y", "javascript:1", "/proc/self/environ", "\0", "C:\\cat.png"),
        ],
    )
    def test_paths_of_this_machine_are_refused(self, local: ImageResolver, label_studio: Site, value: str) -> None:
        with pytest.raises(LocalFileRefused, match="RIS_LOCAL_FILES_ROOT"):
            local.fetch(value, 1)
        assert label_studio.asked == []


class TestData:
    def test_it_is_decoded(self, images: ImageResolver) -> None:
        assert images.fetch("data:image/png;base64," + base64.b64encode(PHOTO).decode(), 1) == PHOTO
        exact = base64.b64encode(bytes(LIMIT)).decode()
        assert len(images.fetch(f"DATA:IMAGE/PNG;BASE64,{exact}", 1)) == LIMIT

    @pytest.mark.parametrize(
        "value",
        [
            "data:",
            "data:image/png;base64",
            "data:text/html;base64,AAAA",
            "data:image/svg+xml,<svg/>",
            "data:image/png;base64,A*",
            "data:image/png;base64,ü",
        ],
    )
    def test_what_is_no_image(self, images: ImageResolver, value: str) -> None:
        with pytest.raises(FetchFailed):
            images.fetch(value, 1)

    def test_the_limit_holds(self, images: ImageResolver) -> None:
        with pytest.raises(ImageTooLarge, match="task's data"):
            images.fetch("data:image/png;base64," + base64.b64encode(bytes(LIMIT + 3)).decode(), 1)
