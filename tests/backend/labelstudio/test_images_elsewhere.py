"""Images from elsewhere, honest and hostile: the web, this machine's files, the task itself; and the limits of all."""

from __future__ import annotations

import base64
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.errors import (
    AddressRefused,
    FetchError,
    FetchFailed,
    FetchTimeout,
    ImageTooLarge,
    LocalFileRefused,
)
from backend.labelstudio.images import ImageResolver

from .image_sources import LIMIT, PHOTO, TOKEN, Studio, photos, resolver
from .site import Answer, Asked, Site, serve


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
