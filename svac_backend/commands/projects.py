"""The Label Studio project that videos are imported to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from svac_backend.commands.local_files import FOLDER, grant
from svac_backend.errors import SvacError
from svac_backend.labelstudio.client import LabelStudioClient
from svac_backend.labelstudio.config import LabelConfig, parse_config

Check = Callable[[LabelConfig], object]


@dataclass(frozen=True)
class Project:
    """A project that may read its folder.

    Attributes:
        xml, config: its labelling config, as text and read.
        model_version: whose predictions its editor shows: a version, a connected model's title, or "" for none.
        folder: where its videos and frames go.
    """

    id: int
    xml: str
    config: LabelConfig
    model_version: str
    folder: Path


def existing_project(client: LabelStudioClient, root: Path, number: int, check: Check) -> Project:
    """Return a project that is there, once `check` has nothing against its config.

    Raises:
        SvacError: it does not exist, `check` raised, or Label Studio does not serve its folder.
    """
    found = client.get_project(number)
    config = parse_config(found.get("label_config") or "")
    check(config)
    folder = grant(client, number, root, str(number))
    return Project(number, found["label_config"], config, found.get("model_version") or "", folder)


def project_of_title(
    client: LabelStudioClient, root: Path, title: str, xml: str, check: Check, *, xml_is_default: bool
) -> Project:
    """Make a project, or return the one of this title that an earlier import made.

    Args:
        client: whose user will own it.
        root: Label Studio's files root.
        title: its title.
        xml: its labelling config; `check` has nothing against it.
        check: as in `existing_project`.
        xml_is_default: the user named no config, so that an earlier import's is as good.

    Raises:
        SvacError: a project of that title is somebody else's, or has another config; or Label Studio refuses.
    """
    same = [int(one["id"]) for one in client.list_projects() if one.get("title") == title]
    ours = [number for number in same if (root / FOLDER / str(number)).is_dir()]
    if ours:
        number = max(ours)
        known = parse_config(client.get_project(number).get("label_config") or "")
        if not xml_is_default and known != parse_config(xml):
            raise SvacError(
                f"The project '{title}' (number {number}) has another labelling config than the one given.",
                f"Give --project {number} to keep its config, or --create another title.",
            )
        return existing_project(client, root, number, check)
    if same:
        raise SvacError(
            f"There is a project '{title}' already (number {max(same)}).",
            f"Give --project {max(same)} to add to it, or --create another title.",
        )
    number = client.create_project(title, xml)
    try:
        return existing_project(client, root, number, check)
    except BaseException:
        # Nothing is in it yet.
        client.delete_project(number)
        with suppress(OSError):
            (root / FOLDER / str(number)).rmdir()
        raise
