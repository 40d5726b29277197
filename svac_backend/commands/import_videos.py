"""`svac-backend import`: videos and prompts into a Label Studio project, with frames and predictions.

Everything is checked before anything is changed in Label Studio. A long video is split into tasks of windows, which
overlap; one prediction of the whole video serves them all.
"""

from __future__ import annotations

from pathlib import Path

from svac_backend.commands.configs import check_prompts, prompt_labels, read_config, shipped_config
from svac_backend.commands.importer import Importer
from svac_backend.commands.local_files import files_root
from svac_backend.commands.prelabelling import Prelabeller
from svac_backend.commands.progress import console
from svac_backend.commands.projects import existing_project, project_of_title
from svac_backend.commands.sources import check_video
from svac_backend.commands.windowing import Windowing
from svac_backend.errors import SvacError
from svac_backend.exporting.split import plan_windows
from svac_backend.labelstudio.client import LabelStudioClient
from svac_backend.labelstudio.config import LabelConfig, parse_config
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.training.registry import served_version

# Label Studio's own limits.
SHORTEST_TITLE, LONGEST_TITLE = 3, 50


def run(
    settings: Settings,
    videos: list[Path],
    prompts: list[str],
    *,
    project: int | None,
    create: str | None,
    config: Path | None,
    predict: bool,
    windowing: Windowing | None = None,
) -> None:
    """Import videos; print what was done and the project's address.

    Args:
        settings: Label Studio, its files root, the model.
        videos: the files.
        prompts: what to segment in each of them; empty for what the config's labels say.
        project: id of an existing project.
        create: or title of a project to make; one that an earlier import made is gone on with.
        config: labelling config of a project to make; the shipped one, with the prompts' labels, if None: brush,
            or polygons where a task shows more than 100 frames.
        predict: segment the videos; else only frames and tasks are made.
        windowing: how a long video is split.

    Raises:
        SvacError: something is not as it should be. Either nothing was changed in Label Studio, or the message and
            what was printed say which videos are in.
    """
    check_target(project, create, config)
    windowing = windowing or Windowing()
    plan_windows(1, windowing.size, windowing.overlap, windowing.stride)
    if create is not None and config is None and predict and not prompts:
        raise SvacError("There is no prompt.", 'Say what to segment, for example --prompt "the white dog".')

    def check(found: LabelConfig) -> None:
        check_prompts(prompts, found, settings)

    xml = ""
    if create is not None:
        xml = read_config(config) if config else shipped_config(prompt_labels(prompts))
        check(parse_config(xml))
    version = served_version(settings) if predict else None
    root = files_root(settings)
    with console.status("looking at the videos"):
        sources = [check_video(path, settings) for path in videos]
    if create is not None and config is None:
        xml = shipped_config(prompt_labels(prompts), kind=windowing.config_kind(sources))
    # People who read the task need no list of one.
    prompt = prompts[0] if len(prompts) == 1 else list(prompts) or None
    database = Database(settings.data_dir)
    client = LabelStudioClient.from_settings(settings)
    try:
        with console.status("asking Label Studio"):
            if create is not None:
                target = project_of_title(client, root, create, xml, check, xml_is_default=config is None)
            else:
                target = existing_project(client, root, project or 0, check)
        prelabeller = Prelabeller(settings, client, database, target, version) if version else None
        Importer(settings, client, target, lambda _: prompt, root, windowing, prelabeller).run(sources)
    finally:
        client.close()
        database.close()


def check_target(project: int | None, create: str | None, config: Path | None) -> None:
    """Check where things shall go: one project, an existing or a new one.

    Raises:
        SvacError: none or both are named, the title is none that Label Studio takes, or a project that exists would
            get a config.
    """
    if (project is None) == (create is None):
        raise SvacError(
            "Videos go either into an existing project or into a new one.",
            'Give --project ID or --create "TITLE", one of the two.',
        )
    if create is not None and not SHORTEST_TITLE <= len(create.strip()) <= LONGEST_TITLE:
        raise SvacError(
            f"A project's title has {SHORTEST_TITLE} to {LONGEST_TITLE} characters, "
            f"that of --create has {len(create.strip())}.",
            'Give another one, for example --create "Dogs".',
        )
    if config is not None and create is None:
        raise SvacError(
            "--config belongs to --create: a project that exists has its labelling config.",
            "Leave --config out, or change the config in the project's settings.",
        )
