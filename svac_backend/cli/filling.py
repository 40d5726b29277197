"""What an import draws in a project's tasks: the model's predictions; `import_masks` draws a data set's masks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

from svac_backend.cli.inputs import (
    SourceVideo,
)
from svac_backend.cli.projects import Project
from svac_backend.cli.terminal import Progress
from svac_backend.errors import SvacError
from svac_backend.jobs.payloads import PrelabelPayload
from svac_backend.jobs.rendering import config_key, render, task_score
from svac_backend.labelstudio.api.access import label_studio_name
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.regions.region import Region
from svac_backend.labelstudio.regions.written import to_prediction
from svac_backend.labelstudio.tasks import (
    Window,
    task_prompts,
    video_url,
)
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.events import ConnectionStore
from svac_backend.store.predictions import Prediction, PredictionStore
from svac_backend.store.tasks import PredictedTask, TaskStore
from svac_backend.video.source import VideoSource

if TYPE_CHECKING:
    from svac_backend.svac.model import Svac


class Filler(ABC):
    """Draws in the tasks of a project.

    Args:
        settings: how masks are drawn.
        client: a client whose user may change the project.
        project: the project.
        version: the model version of what it draws.
    """

    def __init__(self, settings: Settings, client: LabelStudioClient, project: Project, version: str) -> None:
        self.settings = settings
        self.client = client
        self.project = project
        self.version = version
        self._shown = project.model_version

    def has_filled(self, task: int) -> bool:
        """Return whether a task already has what this draws."""
        return any(p.get("model_version") == self.version for p in self.client.list_predictions(task))

    @abstractmethod
    def predict(
        self, source: SourceVideo, video: VideoSource, data: dict[str, Any], progress: Progress
    ) -> Prediction:
        """Return what to draw on a whole video.

        Args:
            source: the user's file.
            video: its copy.
            data: the data of one of its tasks.
            progress: called with 0..1.

        Raises:
            SvacError: the model, the video or the prompt cannot be used.
        """

    def results(self, prediction: Prediction, window: Window | None) -> list[Region]:
        """Return the regions of one task; None shows all frames.

        Raises:
            SvacError: the project's config cannot show them.
        """
        return render(prediction, self.project.xml, self.settings, window=window)

    @abstractmethod
    def attach(self, task: int, prediction: Prediction, results: list[Region], window: Window | None) -> None:
        """Put the regions into a task."""

    def shown_instead(self) -> str | None:
        """Return the other version whose predictions the editor shows first, or None if it shows these."""
        return None if self._shown in ("", self.version) else self._shown

    def _show(self, *, others: bool = True) -> None:
        """Make the editor show the version's predictions, unless it shows others and `others` lets them stay."""
        if not self._shown or not (others or self._shown == self.version):
            # Label Studio accepts only a version that it has seen.
            self.client.set_model_version(self.project.id, self.version)
            self._shown = self.version


class Prelabeller(Filler):
    """Segments videos for one project; `version` is the model's, `database` the web process's."""

    def __init__(
        self,
        settings: Settings,
        client: LabelStudioClient,
        database: Database,
        project: Project,
        version: str,
    ) -> None:
        super().__init__(settings, client, project, version)
        self._predictions = PredictionStore(database)
        self._tasks = TaskStore(database)
        self._connections = ConnectionStore(database)

    @cached_property
    def model(self) -> Svac:
        """The model as it serves, loaded when the first video needs it.

        Raises:
            SvacError: it cannot be loaded, or another version was promoted since the command began.
        """
        # Imported here, since it imports torch: a mistake in the command is reported without that wait.
        from svac_backend.jobs.worker import load_served

        model, version = load_served(self.settings)
        if version != self.version:
            raise SvacError(
                f"The model was {self.version} when this command began, and is {version} now.",
                "Run the same command again.",
            )
        return model

    def predict(
        self, source: SourceVideo, video: VideoSource, data: dict[str, Any], progress: Progress
    ) -> Prediction:
        """Segment what a task asks for, or take it from the cache; see `Filler.predict`."""
        payload = self._payload(data)
        key = payload.cache_key(self.version)
        prediction = self._predictions.get(key)
        if prediction is None:
            from svac_backend.pipeline import prelabel

            tracks = prelabel(
                self.model,
                video,
                payload.prompts,
                labels=self.project.config.mask_control().labels,
                specks=self.settings.speck_share,
                progress=lambda done, _: progress(done),
            )
            prediction = payload.prediction(key, self.version, tracks, video.info)
            # Stored at once: if Label Studio fails now, the next run need not segment again.
            self._predictions.put(prediction)
        return prediction

    def attach(self, task: int, prediction: Prediction, results: list[Region], window: Window | None) -> None:
        """Send a prediction to its task, make the editor show it, and let `/predict` answer with it at once."""
        score = task_score(prediction.tracks, prediction.frame_count, window)
        self.client.create_prediction(task, to_prediction(results, self.version, score))
        shown_as = config_key(self.project.xml, self.settings, window)
        self._predictions.put_rendering(prediction.key, shown_as, results)
        given = PredictedTask(str(self.project.id), str(task), prediction.key, self.version, score)
        self._tasks.put([given])
        if not self._shown and self._live:
            # The model's title, so that a promotion shows: a version's name would stand for that version alone.
            self.client.set_model_version(self.project.id, self._live[0])
            self._shown = self._live[0]
        self._show()

    @cached_property
    def _live(self) -> list[str]:
        """Return the titles of the connected models; each stands for whatever that model answers."""
        return [str(backend.get("title")) for backend in self.client.list_ml_backends(self.project.id)]

    def shown_instead(self) -> str | None:
        """See `Filler.shown_instead`."""
        return None if self._shown in self._live else super().shown_instead()

    def _payload(self, data: dict[str, Any]) -> PrelabelPayload:
        """Return the same payload that the web process makes for the task, so that both use the same cache key."""
        connection = self._connections.get(str(self.project.id))
        limit = self.settings.max_prompt_chars
        return PrelabelPayload(
            project_id=str(self.project.id),
            task_id="",
            task_data=data,
            prompts=tuple(task_prompts(data, self.project.config, max_chars=limit)),
            label_config=self.project.xml,
            hostname=label_studio_name(self.settings, connection),
            video_url=video_url(data, self.project.config),
            push=True,
        )
