"""The way out: authorities of one's own, and a proxy, for Label Studio's client and for images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backend import services
from backend.errors import AddressRefused, FetchFailed, LabelStudioUnreachable
from backend.labelstudio.auth import login_for_token
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.images import ImageResolver
from backend.labelstudio.outbound import Outbound
from backend.settings import Settings, SettingsError, load

from .image_sources import PHOTO, TOKEN, Studio, resolver
from .site import Answer, Asked, Site, serve

CERTIFICATE = Path(__file__).with_name("here.test.pem")
WHOAMI = "/api/current-user/whoami"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Settings:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RIS_HOME", str(tmp_path))
    monkeypatch.setenv("RIS_LABEL_STUDIO_TOKEN", TOKEN)
    return load()


def studio_files() -> Studio:
    studio = Studio()
    studio.files[WHOAMI] = Answer(200, b'{"id": 1}')
    return studio


class TestCertificates:
    @pytest.fixture
    def secure(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        """Label Studio behind a certificate that signs itself."""
        with serve(studio_files(), certificate=CERTIFICATE) as site:
            url = site.url.replace("http:", "https:")
            monkeypatch.setenv("RIS_LABEL_STUDIO_URL", url)
            yield url

    def test_one_that_nobody_knows_is_called_a_certificate(self, secure: str) -> None:
        sentence = r"its certificate isn't accepted: self.signed certificate.*RIS_CA_FILE"
        with LabelStudio.from_settings(load()) as client, pytest.raises(LabelStudioUnreachable, match=sentence):
            client.whoami()
        with pytest.raises(LabelStudioUnreachable, match=sentence):
            login_for_token(secure, "a@example.com", "x")
        with pytest.raises(LabelStudioUnreachable, match=sentence):
            services.image_resolver(load()).fetch("/data/upload/1/cat.png", 1)

    def test_an_image_hosts_is_called_one_too(self, secure: str, label_studio: Site, tmp_path: Path) -> None:
        images = ImageResolver(label_studio.url, TOKEN, cache=tmp_path, hosts=["127.0.0.1"])
        with pytest.raises(FetchFailed, match=r"its certificate isn't accepted.*RIS_CA_FILE"):
            images.fetch(f"{secure}/cat.png", 1)

    @pytest.mark.parametrize("name", ["RIS_CA_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
    def test_an_authority_of_ones_own_is_trusted(self, secure: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv(name, str(CERTIFICATE))
        with LabelStudio.from_settings(load()) as client:
            assert client.whoami() == {"id": 1}
        assert services.image_resolver(load()).fetch("/data/upload/1/cat.png", 1) == PHOTO

    @pytest.mark.parametrize("content", [None, "no certificate"])
    def test_a_file_that_is_none_is_named(
        self, secure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
    ) -> None:
        file = tmp_path / "authorities.pem"
        if content:
            file.write_text(content)
        monkeypatch.setenv("RIS_CA_FILE", str(file))
        with pytest.raises(SettingsError, match=r"RIS_CA_FILE should name a file of certificates .PEM.: .*pem isn't"):
            LabelStudio.from_settings(load())


class TestProxy:
    """Which host a request is for, a proxy reads in the request's first line."""

    @pytest.fixture
    def proxy(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
        studio = studio_files()

        def forward(asked: Asked) -> Answer:
            host, _, path = asked.target.removeprefix("http://").partition("/")
            if host == "photos.example":
                return Answer(200, b"a photo")
            return studio(Asked(asked.method, f"/{path}", asked.headers, asked.body))

        with serve(forward) as site:
            monkeypatch.setenv("RIS_PROXY", site.url)
            monkeypatch.setenv("RIS_LABEL_STUDIO_URL", "http://studio.example")
            yield site

    def test_label_studio_and_its_images_are_reached_through_it(self, proxy: Site) -> None:
        with LabelStudio.from_settings(load()) as client:
            assert client.whoami() == {"id": 1}
        assert services.image_resolver(load()).fetch("/data/upload/1/cat.png", 1) == PHOTO
        assert {asked.headers["Host"] for asked in proxy.asked} == {"studio.example"}
        with pytest.raises(LabelStudioUnreachable):
            login_for_token("http://studio.invalid", "a@example.com", "x")

    @pytest.mark.parametrize("direct", ["studio.example", "example", ".example, other"])
    def test_hosts_that_are_reached_directly(self, proxy: Site, monkeypatch: pytest.MonkeyPatch, direct: str) -> None:
        monkeypatch.setenv("RIS_NO_PROXY", direct)
        assert Outbound.from_settings(load()).proxy_to("studio.example") is None
        assert Outbound.from_settings(load()).proxy_to("studio.example.org") == proxy.url
        assert all(Outbound(proxy=proxy.url).proxy_to(here) is None for here in ("localhost", "127.0.0.1", "[::1]"))

    def test_images_elsewhere_are_not_fetched_through_it_unless_that_is_said(
        self, proxy: Site, label_studio: Site, tmp_path: Path
    ) -> None:
        images = resolver(label_studio, tmp_path, outbound=Outbound(None, proxy.url))
        with pytest.raises(FetchFailed, match="RIS_PROXY_IMAGES"):
            images.fetch("http://photos.example:1/cat.png", 1)
        assert proxy.asked == []

    def test_images_through_it_are_still_guarded(self, proxy: Site, label_studio: Site, tmp_path: Path) -> None:
        inside = {"inside.example": ["10.0.0.1"], "both.example": ["203.0.114.1", "127.0.0.1"]}

        def resolve(host: str, _: int) -> list[str]:
            if host == "photos.example":
                raise OSError("only the proxy knows it")
            return inside.get(host, [host])

        outbound = Outbound(None, proxy.url, images=True)
        images = resolver(label_studio, tmp_path, hosts=[], resolve=resolve, outbound=outbound)
        assert images.fetch("http://photos.example/cat.png", 1) == b"a photo"
        assert len(proxy.asked) == 1
        for host in ("inside.example", "both.example", "169.254.169.254", "127.0.0.1:1", "[::1]:1"):
            with pytest.raises(AddressRefused, match="RIS_IMAGE_HOSTS"):
                images.fetch(f"http://{host}/cat.png", 1)
        with pytest.raises(AddressRefused):
            images.fetch(f"{proxy.url}/cat.png", 1)
        assert len(proxy.asked) == 1

    def test_a_redirect_inside_is_refused_behind_it_too(self, proxy: Site, label_studio: Site, tmp_path: Path) -> None:
        proxy.answering = lambda _: Answer(302, b"", {"Location": "http://169.254.169.254/latest/"})
        outbound = Outbound(None, proxy.url, images=True)
        images = resolver(label_studio, tmp_path, hosts=[], resolve=lambda host, _: [host], outbound=outbound)
        with pytest.raises(AddressRefused):
            images.fetch("http://203.0.114.1/cat.png", 1)
        assert len(proxy.asked) == 1

    def test_hosts_that_may_lie_inside_are_reached_directly(
        self, proxy: Site, label_studio: Site, elsewhere: Site, tmp_path: Path
    ) -> None:
        outbound = Outbound(None, proxy.url, images=True)
        images = resolver(label_studio, tmp_path, outbound=outbound)
        assert images.fetch(f"http://photos.example:{elsewhere.port}/cat.png", 1) == PHOTO
        assert proxy.asked == []

    def test_its_login_is_sent_to_it_and_never_shown(self, proxy: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RIS_PROXY", proxy.url.replace("//", "//me:s%40cret@"))
        settings = load()
        with LabelStudio.from_settings(settings) as client:
            client.whoami()
        assert proxy.asked[0].headers["Proxy-Authorization"].startswith("Basic ")
        assert "s%40cret" not in repr(settings)
        assert {"s%40cret", "s@cret"} <= set(settings.secrets())

    def test_a_proxy_that_refuses_says_so(self, proxy: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RIS_LABEL_STUDIO_URL", "https://studio.example")
        with (
            LabelStudio.from_settings(load()) as client,
            pytest.raises(LabelStudioUnreachable, match=r"the proxy says 501.*Correct RIS_PROXY"),
        ):
            client.whoami()

    def test_a_proxy_over_tls(self, proxy: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve(proxy.answering, certificate=CERTIFICATE) as secure:
            monkeypatch.setenv("RIS_PROXY", secure.url.replace("http:", "https:"))
            monkeypatch.setenv("RIS_CA_FILE", str(CERTIFICATE))
            with LabelStudio.from_settings(load()) as client:
                assert client.whoami() == {"id": 1}
            assert services.image_resolver(load()).fetch("/data/upload/1/cat.png", 1) == PHOTO
            assert proxy.asked == []
