"""The backend is restarted while a batch runs that Label Studio asked it for."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
from harness import ROUNDS, Installation, PreLabelling, Tally, installed
from ports import free_port
from served import AUTH, COMMAND
from shelf import PROJECT, XML


@pytest.fixture(scope="module")
def url() -> str:
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def installation(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """With a backend, which does itself what is one task alone."""
    folder = tmp_path_factory.mktemp("installation")
    with installed(folder, port=url.rpartition(":")[2], batch_from=2) as installation:
        installation.cast.commands["backend"] = COMMAND
        yield installation


class Retrieved(PreLabelling):
    """A batch of new tasks, asked for as Label Studio does when somebody retrieves predictions."""

    url: str

    def submit(self) -> str:
        """Ask until somebody answers: of a killed server, a process may still take requests and die of its own."""
        tasks = [{"id": task, "data": {"image": "-", "prompt": "the cat"}} for task in self.tasks]
        body = {"project": f"{PROJECT}.0", "label_config": XML, "params": {}, "tasks": tasks}
        answers: list[httpx.Response] = []

        def asked() -> bool:
            with suppress(httpx.TransportError):
                answers.append(httpx.post(f"{self.url}/predict", json=body, auth=AUTH, timeout=60))
            return bool(answers)

        self.at.until(asked)
        assert answers[0].status_code == 503, answers[0].text
        message = answers[0].json()["message"]
        assert f"{len(tasks)} tasks are being pre-labelled in the background as batch " in message
        return str(message.partition(" as batch ")[2].partition(":")[0])


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGKILL], ids=lambda way: way.name)
def test_a_batch_goes_on_while_the_backend_starts_again(
    installation: Installation, url: str, way: signal.Signals, tally: Tally
) -> None:
    """Whoever asks again is told of the same batch."""
    for _ in range(ROUNDS):
        done = Retrieved(installation)
        done.url = url
        done.begin()
        installation.cast.kill("backend", way)
        again = done.submit()
        assert again == done.batch or done.has_ended()
        tally(f"backend restarted: {way.name}", done.name, done.finish())
