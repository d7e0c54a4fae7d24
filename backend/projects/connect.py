"""Join Label Studio and the backend: a token, a project with sample photos, the ML backend and its webhook.

Each step looks before it acts, so that it can be repeated, or go on where it was interrupted. Each project has an
address of its own, `<backend>/projects/<id>`, since Label Studio doesn't always say which project it asks for; one
that was connected at another address is moved there. Knows Label Studio's API; knows no processes.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dotenv import set_key

from backend.errors import LabelStudioUnauthorized, StartError
from backend.home import project_env_file
from backend.labelstudio.auth import login_for_token
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import Defaults, parse
from backend.labelstudio.outbound import Outbound
from backend.labelstudio.responses import Json
from backend.labelstudio.webhooks import SECRET_HEADER
from backend.settings import Settings

PROJECT = "Referring segmentation"
BACKEND = "RIS"

# Written once all sample photos are in: those that a person deletes later stay deleted.
_DESCRIPTION = "Type what you are looking for, and accept or correct the mask. The model learns from it."

# The prompt, key points and rectangles are smart: what is drawn by hand, with the brush, is nobody's question to the
# model. Key point and rectangle have no labels: a tag's label would have to be chosen anew for each click, while a mask
# that was clicked can be given its label by one key. What was typed stands in small print, a few lines high, so that
# the photo stays in sight; below it ris_answer says what came of it.
LABEL_CONFIG = """\
<View>
  <Style>
    .ris-said .ant-form-item { margin-bottom: 4px; }
    .ris-said [data-testid=textarea-regions] { display: flex; flex-wrap: wrap; gap: 4px; margin: 0 !important;
                                               max-height: 56px; overflow-y: auto; }
    .ris-said .lsf-row { margin: 0; }
    .ris-said [data-testid=htx-textbox-content] { min-height: 0; padding: 0 8px; }
    .ris-said [data-testid=htx-textbox-actions] button { height: 18px; width: 18px; min-width: 0; padding: 0; }
    .ris-hint * { font-size: 12px !important; font-weight: 400 !important; margin: 0 !important; }
    .ris-answer form, .ris-answer [data-testid=htx-textbox-actions] { display: none; }
  </Style>
  <Header size="6" value="Type what is there and press Enter. Once: switch on Auto-Annotation and Auto-Accept below."/>
  <View className="ris-hint">
    <Header size="6" value="Or point: take Auto-Detect (M), last of the tools beside the photo, and click or drag a box.
      Inside a mask, Ctrl + click: this, too; Ctrl + Alt + click: not this."/>
  </View>
  <View className="ris-said">
    <TextArea name="prompt" toName="image" smart="true" smartOnly="true" editable="true" rows="1"
              placeholder="What are you looking for, e.g. the person on the left"/>
  </View>
  <View className="ris-said ris-answer">
    <TextArea name="ris_answer" toName="image" smart="false" maxSubmissions="1"/>
  </View>
  <BrushLabels name="brush" toName="image" smart="false">
    <Label value="person" background="#e6194b"/>
    <Label value="cat" background="#f58231"/>
    <Label value="cup" background="#ffe119"/>
    <Label value="rocket" background="#3cb44b"/>
    <Label value="building" background="#42d4f4"/>
    <Label value="flower" background="#f032e6"/>
    <Label value="sky" background="#4363d8"/>
    <Label value="other" background="#a9a9a9"/>
  </BrushLabels>
  <KeyPoint name="point" toName="image" smart="true" smartOnly="true"/>
  <Rectangle name="box" toName="image" smart="true" smartOnly="true"/>
  <Choices name="absent" toName="image" choice="multiple" showInline="true">
    <Choice value="Not in this picture"/>
  </Choices>
  <Image name="image" value="$image" zoom="true" zoomControl="true" brightnessControl="true"/>
</View>
"""

Photos = Callable[[], Iterable[tuple[str, bytes]]]


@dataclass(frozen=True)
class Connection:
    """What is connected, with Label Studio's numbers, and what was done for it now.

    url: the project's address here. made: whether the project is new. moved_from: where the backend was registered
    before; None if nowhere, or here already. photos: how many were added. prompts: where they are typed, as a sentence.
    """

    project: int
    title: str
    url: str
    backend: int
    webhook: int
    made: bool = False
    registered: bool = False
    moved_from: str | None = None
    photos: int = 0
    prompts: str = ""


def sign_in(settings: Settings) -> str:
    """A personal access token that Label Studio accepts: the one of the settings, else a new one.

    A new one revokes the login's old one. Raises LabelStudioUnauthorized if the login's password is wrong.
    """
    if settings.label_studio_token:
        with suppress(LabelStudioUnauthorized), LabelStudio.from_settings(settings) as client:
            client.whoami()
            return settings.secret("label_studio_token")
    password, outbound = settings.secret("label_studio_password"), Outbound.from_settings(settings)
    return login_for_token(settings.label_studio_url, settings.label_studio_email, password, True, outbound)


def connect(settings: Settings, photos: Photos, label_config: str = LABEL_CONFIG) -> Connection:
    """Make sure of the sample project, its photos, the backend and its webhook, and check that they work together.

    Raises StartError if Label Studio says that it can't talk to the backend, and LabelStudioError.
    """
    with LabelStudio.from_settings(settings) as client:
        project, made = _project(client, PROJECT, label_config)
        added = _import_photos(client, project, photos)
        connection = connect_backend(client, project["id"], settings)
    return replace(connection, made=made, photos=added)


def connect_titled(
    client: LabelStudio, title: str, label_config: str, settings: Settings, prompt_box: str | None = None
) -> Connection:
    """Connect the project of that title, which is made if there is none; one that is there keeps its interface.

    Raises ConfigError if the labelling interface can't carry masks, and what `connect_backend` raises.
    """
    parse(label_config, Defaults(prompt_box=prompt_box or ""))
    project, made = _project(client, title, label_config)
    return replace(connect_backend(client, project["id"], settings, prompt_box), made=made)


def connect_backend(client: LabelStudio, project: int, settings: Settings, prompt_box: str | None = None) -> Connection:
    """Connect the backend to a project that is there; `prompt_box` is the TextArea for prompts from now on.

    Raises ConfigError if its labelling interface can't carry masks, StartError if Label Studio can't talk to the
    backend, and LabelStudioError if it refuses something else, or has no such project.
    """
    shown = client.project(project)
    defaults = Defaults.of(settings.of_project(project))
    defaults = replace(defaults, prompt_box=defaults.prompt_box if prompt_box is None else prompt_box)
    config = parse(str(shown.get("label_config") or "<View/>"), defaults)
    if prompt_box is not None:
        set_key(_made(project_env_file(settings.home, project)), "RIS_PROMPT_BOX", prompt_box, quote_mode="never")
    url = project_url(settings, project)
    login = settings.username, settings.secret("password")
    ours = [row for row in client.ml_backends(project) if _is_ours(row, settings, project)]
    if ours:
        # Always: its password can't be read back, so nobody knows whether it is still the right one.
        backend = client.update_ml_backend(ours[0]["id"], url, ours[0]["title"], *login)
    else:
        backend = client.create_ml_backend(project, url, BACKEND, *login)
    # The shared address too: a move may have been interrupted before its webhook was deleted.
    stale = [_webhook_of(address) for address in (backend_url(settings), *(row["url"] for row in ours))]
    webhook = _webhook(client, project, _webhook_of(url), stale, settings)
    _verify(client, project, backend["id"], webhook)
    before = str(ours[0]["url"]).rstrip("/") if ours else None
    moved_from = before if before != url else None
    return Connection(
        project,
        shown["title"],
        url,
        int(backend["id"]),
        webhook,
        registered=not ours,
        moved_from=moved_from,
        prompts=config.prompt_place,
    )


def _made(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    return file


def backend_url(settings: Settings) -> str:
    """The backend, as Label Studio reaches it."""
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104 - compared, not bound
    return (settings.backend_url or f"http://{host}:{settings.port}").rstrip("/")


def project_url(settings: Settings, project: int) -> str:
    """The address of one project at the backend, as Label Studio reaches it."""
    return f"{backend_url(settings)}/projects/{project}"


def _is_ours(row: Json, settings: Settings, project: int) -> bool:
    """Whether a backend of the project is this one: by its title, or registered by hand at an address of ours."""
    ours = backend_url(settings), project_url(settings, project)
    return row["title"] == BACKEND or str(row["url"]).rstrip("/") in ours


def _project(client: LabelStudio, title: str, label_config: str) -> tuple[Json, bool]:
    for project in client.projects():
        if project["title"] == title:
            return project, False
    return client.create_project(title, label_config), True


def _webhook_of(url: str) -> str:
    """The webhook that Label Studio makes for a backend."""
    return f"{url.rstrip('/')}/webhook"


def _import_photos(client: LabelStudio, project: Json, photos: Photos) -> int:
    if project.get("description"):
        return 0
    present = [str(task["data"].get("image", "")) for task in client.tasks(project["id"])]
    # Label Studio puts a random prefix before the name of an uploaded file.
    missing = {name: data for name, data in photos() if not any(image.endswith(f"-{name}") for image in present)}
    for name, data in missing.items():
        client.upload(project["id"], name, data)
    client.update_project(project["id"], description=_DESCRIPTION)
    return len(missing)


def _webhook(client: LabelStudio, project: int, url: str, stale: list[str], settings: Settings) -> int:
    rows = client.webhooks(project)
    for row in rows:
        # The backend has moved to another address: nothing listens at the old one.
        if row["url"] in stale and row["url"] != url:
            client.delete_webhook(row["id"])
    present = [row for row in rows if row["url"] == url]
    webhook = int((present[0] if present else client.create_webhook(project, url))["id"])
    client.update_webhook(webhook, {SECRET_HEADER: settings.secret("webhook_secret")})
    return webhook


def _verify(client: LabelStudio, project: int, backend: int, webhook: int) -> None:
    row = next(row for row in client.ml_backends(project) if row["id"] == backend)
    if row["state"] != "CO":
        why = f"({row['readable_state']}): {row['error_message']}"
        raise StartError(f"Label Studio can't talk to the backend at {row['url']} {why}. Look into the backend's log.")
    headers = next(row["headers"] for row in client.webhooks(project) if row["id"] == webhook)
    if SECRET_HEADER not in headers:
        raise StartError(
            f"Label Studio did not keep the secret header of webhook {webhook}: start again, or add "
            f"{SECRET_HEADER} under the project's Settings, Webhooks."
        )
