"""Images that Label Studio itself serves: uploads, buckets, copies of them, and what went wrong."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from backend.errors import (
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

from .image_sources import PHOTO, TOKEN, Studio, photos, resolver
from .site import Answer, Asked, Site, serve


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
            assert images.fetch("/ls/data/upload/1/cat.png", 1) == PHOTO
            assert images.fetch(f"{site.url}/ls/data/upload/1/cat.png", 1) == PHOTO


class TestSubPath:
    """With a path in LABEL_STUDIO_HOST, Label Studio writes it before each file's; past the proxy there is none."""

    @pytest.mark.parametrize(
        "value",
        [
            "/label-studio/data/upload/1/cat.png",
            "label-studio/data/upload/1/cat.png",
            " /a/b/data/upload/1/cat.png\r\n",
            "http://inside.example/label-studio/data/upload/1/cat.png",
        ],
    )
    def test_an_upload(self, images: ImageResolver, value: str) -> None:
        assert images.fetch(value, 1) == PHOTO

    def test_local_files_and_uploads_in_a_bucket(self, images: ImageResolver, studio: Studio) -> None:
        studio.files |= {"/data/local-files/": Answer(200, b"local"), "/storage-data/uploaded/": Answer(200, b"bucket")}
        assert images.fetch("/label-studio/data/local-files/?d=a/data/upload/b.png", 1) == b"local"
        assert images.fetch("http://inside.example/ls/data/local-files/?d=a.png", 1) == b"local"
        assert images.fetch("/label-studio/storage-data/uploaded/?filepath=upload/1/cat.png", 1) == b"bucket"

    @pytest.mark.parametrize(
        "value", ["/etc/passwd?/data/upload/1/cat.png", "/api/users#/data/upload/1/cat.png", "/x/data/uploads/1"]
    )
    def test_what_isnt_served_stays_refused(self, images: ImageResolver, value: str) -> None:
        with pytest.raises(LocalFileRefused):
            images.fetch(value, 1)


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
