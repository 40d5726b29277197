"""The Label Studio project that an import goes to, and the folder of files that it may read.

Label Studio serves that folder as local files; this module checks that it exists and that Label Studio serves it.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from rich.markup import escape

from svac_backend.cli.doctor.backend import basic_auth
from svac_backend.cli.inputs import read_config, shipped_config
from svac_backend.cli.terminal import console
from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.api.connection import plain_http_client
from svac_backend.labelstudio.api.errors import ApiRefusal
from svac_backend.labelstudio.config import LabelConfig, parse_config
from svac_backend.labelstudio.tasks import NAME_KEY, PROMPT_KEY, WINDOW_KEY, local_files_url
from svac_backend.settings import Settings

# Label Studio's own limits.
SHORTEST_TITLE, LONGEST_TITLE = 3, 50
# Below the root; Label Studio lets a project read only sub-folders, never the root itself.
FOLDER = "svac"

ENABLE = (
    "Start Label Studio with LOCAL_FILES_SERVING_ENABLED=true and LOCAL_FILES_DOCUMENT_ROOT set to the folder "
    "that is SVAC_LABEL_STUDIO_FILES_ROOT here."
)
_SAME_PATH = (
    "Set SVAC_LABEL_STUDIO_FILES_ROOT to Label Studio's LOCAL_FILES_DOCUMENT_ROOT; if it runs in a container, "
    "mount that folder under the same path on both sides."
)


Check = Callable[[LabelConfig], object]


@dataclass(frozen=True)
class Project:
    """A project that may read its folder.

    Attributes:
        xml, config: its labelling config, as text and parsed.
        model_version: whose predictions its editor shows: a version, a connected model's title, or "" for none.
        folder: where its videos and frames go.
        is_new: whether it was just made.
        connected: whether the backend is connected to it; None if nobody asked for that.
    """

    id: int
    xml: str
    config: LabelConfig
    model_version: str
    folder: Path
    is_new: bool = False
    connected: bool | None = None


@dataclass(frozen=True)
class Destination:
    """The project that an import goes to: an existing one, or one to make.

        Attributes:
            project: id of an existing project.
            create: instead, the title of a project to make; if an earlier import made it, it is used again.
            config: file of its labelling config; None: a shipped one.
            backend_url: how Label Studio reaches the backend, to connect it to a new project; None: do not connect it.

    Raises:
        SvacError: none or both are given, Label Studio does not accept the title, or a config is given for an existing
            project.
    """

    project: int | None = None
    create: str | None = None
    config: Path | None = None
    backend_url: str | None = None

    def __post_init__(self) -> None:
        if (self.project is None) == (self.create is None):
            raise SvacError(
                "Videos go either into an existing project or into a new one.",
                'Give --project ID or --create "TITLE", one of the two.',
            )
        if self.create is not None and not SHORTEST_TITLE <= len(self.create.strip()) <= LONGEST_TITLE:
            raise SvacError(
                f"A project's title has {SHORTEST_TITLE} to {LONGEST_TITLE} characters, "
                f"that of --create has {len(self.create.strip())}.",
                'Give another one, for example --create "Dogs".',
            )
        if self.config is not None and self.create is None:
            raise SvacError(
                "--config goes with --create: an existing project has its own labelling config.",
                "Leave --config out, or change the config in the project's settings.",
            )

    def read_config(self) -> LabelConfig | None:
        """Return the config that the user named, or None. Raises `SvacError` as `new_config`."""
        return parse_config(read_config(self.config)) if self.config else None

    def new_config(self, labels: Sequence[str], check: Check, *, kind: str = "brush") -> str:
        """Return the labelling config of a project to make; "" for an existing one.

        Args:
            labels: labels to add to a shipped config's own.
            check: raises if a config cannot be used.
            kind: kind of the shipped config, see `shipped_config`.

        Raises:
            SvacError: the file can't be read or is not a labelling config, or `check` raised.
        """
        if self.create is None:
            return ""
        xml = read_config(self.config) if self.config else shipped_config(labels, kind=kind)
        check(parse_config(xml))
        return xml

    def open(
        self, settings: Settings, client: LabelStudioClient, root: Path, xml: str, check: Check
    ) -> Project:
        """Return the project, made if needed, with a config that passes `check`.

        Args:
            settings: basic auth of the backend.
            client: a client whose user may change the project.
            root: Label Studio's files root.
            xml: what `new_config` returned.
            check: raises if a config cannot be used.

        Raises:
            SvacError: it does not exist, `check` raised, or Label Studio does not serve its folder. With a title:
                another project has it already, or the project that an earlier import made has another config.
        """
        if self.create is None:
            return _existing(client, root, self.project or 0, check)
        project = self._created(client, root, xml, check)
        if project.is_new:
            arrange(client, project.id, project.config)
        if self.backend_url is not None:
            return connect(settings, client, project, self.backend_url)
        return project

    def _created(self, client: LabelStudioClient, root: Path, xml: str, check: Check) -> Project:
        same = [int(one["id"]) for one in client.list_projects() if one.get("title") == self.create]
        ours = [number for number in same if (root / FOLDER / str(number)).is_dir()]
        if ours:
            number = max(ours)
            known = parse_config(client.get_project(number).get("label_config") or "")
            if self.config is not None and known != parse_config(xml):
                raise SvacError(
                    f"The project '{self.create}' (number {number}) has another labelling config than the one given.",
                    f"Give --project {number} to keep its config, or --create another title.",
                )
            return _existing(client, root, number, check)
        if same:
            raise SvacError(
                f"There is a project '{self.create}' already (number {max(same)}).",
                f"Give --project {max(same)} to add to it, or --create another title.",
            )
        number = client.create_project(str(self.create), xml)
        try:
            return replace(_existing(client, root, number, check), is_new=True)
        except BaseException:
            # Nothing is in it yet.
            client.delete_project(number)
            with suppress(OSError):
                (root / FOLDER / str(number)).rmdir()
            raise


# The columns that people see at first: in the list of tasks, and beside an open task.
_LISTED = (
    "id",
    f"data.{NAME_KEY}",
    f"data.{PROMPT_KEY}",
    "predictions_score",
    "total_annotations",
    "annotators",
)
_BESIDE = ("id", f"data.{NAME_KEY}", "predictions_score", "total_annotations")
TITLE = "SVAC"


def arrange(client: LabelStudioClient, project: int, config: LabelConfig) -> None:
    """Give a new project's Data Manager a tab that lists the least certain tasks first and shows no raw JSON.

    Raises:
        SvacError: Label Studio refuses.
    """
    keys = [config.frames.key if config.frames else "frames", WINDOW_KEY]
    keys += [config.video.key, config.video.fps_key or "fps"] if config.video else ["video", "fps"]
    columns = {*client.list_columns(project), *(f"tasks:data.{key}" for key in keys)}
    hidden = [sorted(columns - {f"tasks:{name}" for name in shown}) for shown in (_LISTED, _BESIDE)]
    client.create_tab(
        project,
        "Worst first",
        hidden=hidden[0],
        compact=hidden[1],
        ordering="tasks:predictions_score",
    )


def connect(settings: Settings, client: LabelStudioClient, project: Project, url: str) -> Project:
    """Connect the backend and its webhook to a project; if that fails, say so and let the import go on.

    Args:
        settings: have the user and password that Label Studio must send.
        client: a client whose user may change the project.
        project: the project to connect.
        url: how Label Studio reaches the backend.

    Returns:
        The project, with `connected` set.
    """
    try:
        client.connect_ml_backend(project.id, url, title=TITLE, basic_auth=basic_auth(settings))
    except SvacError as error:
        console.print(f"[yellow]The model is not connected to project {project.id}.[/] {escape(str(error))}")
        console.print("Then run: svac-backend doctor; or connect it in the project's Settings > Model.")
        return replace(project, connected=False)
    shown = client.get_project(project.id).get("model_version") or ""
    return replace(project, connected=True, model_version=shown)


def _existing(client: LabelStudioClient, root: Path, number: int, check: Check) -> Project:
    found = client.get_project(number)
    config = parse_config(found.get("label_config") or "")
    check(config)
    folder = grant(client, number, root, str(number))
    return Project(number, found["label_config"], config, found.get("model_version") or "", folder)


def files_root(settings: Settings) -> Path:
    """Return the absolute folder, after checking that files can be written there.

    Raises:
        SvacError: it is not set, is not a folder, or cannot be written.
    """
    root = settings.label_studio_files_root
    if root is None:
        raise SvacError(
            "SVAC_LABEL_STUDIO_FILES_ROOT is not set, so there is no place for the frames.",
            "Set it to the folder that is Label Studio's LOCAL_FILES_DOCUMENT_ROOT.",
        )
    # Symbolic links are not resolved, since Label Studio compares paths as they are written.
    root = Path(os.path.abspath(root))  # noqa: PTH100 - Path.absolute keeps `..`
    if not root.is_dir():
        raise SvacError(
            f"SVAC_LABEL_STUDIO_FILES_ROOT is {root}, which is not a folder.",
            "Make it, and start Label Studio with LOCAL_FILES_DOCUMENT_ROOT set to it.",
        )
    try:
        (root / FOLDER).mkdir(exist_ok=True)
        writable = os.access(root / FOLDER, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise SvacError(
            f"{root / FOLDER} cannot be written.",
            "Give this user the right to write there; Label Studio only needs to read it.",
        )
    return root


def grant(client: LabelStudioClient, project: int, root: Path, name: str) -> Path:
    """Let a project read our folder below the root, and check that Label Studio serves a file from it.

    Args:
        client: a client whose user may change the project.
        root: as `files_root` returns it.
        name: name of the folder, which is returned; made if absent.

    Raises:
        SvacError: Label Studio refuses, or does not serve the file; the hint names the setting.
    """
    folder = root / FOLDER / name
    probe = folder / f".probe-{secrets.token_hex(4)}.txt"
    content = secrets.token_hex(16)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text(content)
    except OSError as error:
        raise SvacError(
            f"{folder} cannot be written: {error.strerror}.", "Give this user the right to write there."
        ) from error
    try:
        try:
            client.allow_local_files(project, str(folder))
        except ApiRefusal as error:
            raise _refused(error, folder) from error
        _check_served(client, probe, root, content)
    finally:
        with suppress(FileNotFoundError):
            probe.unlink()
    return folder


def _refused(error: ApiRefusal, folder: Path) -> SvacError:
    """Return an error that names the setting behind Label Studio's refusal to serve a folder."""
    text = error.message
    if "LOCAL_FILES_SERVING_ENABLED" in text:
        return SvacError("Label Studio does not serve local files.", ENABLE)
    other = re.search(r'LOCAL_FILES_DOCUMENT_ROOT="([^"]*)"', text)
    if other is not None:
        message = f"Label Studio serves files below {other[1]}, but {folder} is not below it."
        return SvacError(message, _SAME_PATH)
    if "does not exist" in text:
        return SvacError(f"Label Studio does not see the folder {folder}.", _SAME_PATH)
    return error


def _check_served(client: LabelStudioClient, file: Path, root: Path, content: str) -> None:
    url = client.url + local_files_url(file, root)
    try:
        with plain_http_client(client.timeout) as http:
            answer = http.get(url, headers=client.authorization())
    except httpx.TransportError as error:
        raise SvacError(
            f"Label Studio's local files cannot be read ({error}).", "Check Label Studio's log."
        ) from error
    if answer.status_code == 200 and answer.text == content:
        return
    if answer.status_code == 403:
        raise SvacError("Label Studio does not serve local files (403).", ENABLE)
    if answer.status_code == 404:
        raise SvacError(f"Label Studio does not find {file.parent} below its own root (404).", _SAME_PATH)
    raise SvacError(
        f"Label Studio does not serve files of {file.parent} (status {answer.status_code}).",
        "Check that Label Studio's user may read that folder, and see Label Studio's log.",
    )
