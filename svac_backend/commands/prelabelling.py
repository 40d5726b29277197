"""Predictions of imported videos: made, kept where `/predict` looks for them, attached to their tasks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from svac_backend.commands.projects import Project
from svac_backend.commands.sources import SourceVideo
from svac_backend.errors import SvacError
from svac_backend.jobs.payloads import PrelabelPayload, label_studio_name
from svac_backend.jobs.rendering import config_key, render, task_score
from svac_backend.labelstudio.client import LabelStudioClient
from svac_backend.labelstudio.results import to_prediction
from svac_backend.labelstudio.tasks import task_prompts
from svac_backend.labelstudio.windows import Window
from svac_backend.settings import Settings
from svac_backend.store.connections import ConnectionStore
from svac_backend.store.database import Database
from svac_backend.store.predictions import Prediction, PredictionStore
from svac_backend.video.source import VideoSource

if TYPE_CHECKING:
    from svac_backend.svac.model import Svac


class Prelabeller:
    """Segments videos for one project; the `Filler` of an import.

    Args:
        settings: the model, limits, what is sent to the editor.
        client: of a user who may change the project.
        database: that of the web process.
        project: whose tasks.
        version: of the model.
    """

    def __init__(
        self,
        settings: Settings,
        client: LabelStudioClient,
        database: Database,
        project: Project,
        version: str,
    ) -> None:
        self.settings = settings
        self.client = client
        self.project = project
        self.version = version
        self._shown = project.model_version
        self._predictions = PredictionStore(database)
        self._connections = ConnectionStore(database)

    @cached_property
    def model(self) -> Svac:
        """The model as it serves; loaded when the first video needs it.

        Raises:
            SvacError: it cannot be loaded, or another version was promoted since the command began.
        """
        # Here, since it imports torch: a mistake in the command is told without waiting for that.
        from svac_backend.jobs.model_owner import load_served

        model, version = load_served(self.settings)
        if version != self.version:
            raise SvacError(
                f"The model was {self.version} when this command began, and is {version} now.",
                "Run the same command again.",
            )
        return model

    def has_filled(self, task: int) -> bool:
        """Tell whether a task has a prediction of this model."""
        return any(p.get("model_version") == self.version for p in self.client.list_predictions(task))

    def predict(
        self,
        source: SourceVideo,
        video: VideoSource,
        data: dict[str, Any],
        url: str,
        progress: Callable[[float], None],
    ) -> Prediction:
        """Segment what a task asks for on its whole video, or take it from the cache.

        Args:
            source: the user's file.
            video: its copy.
            data: the task's data.
            url: the video's address in it.
            progress: called with 0..1.

        Raises:
            SvacError: the model, the video or the prompt is not as it should be.
        """
        payload = self._payload(data, url)
        key = payload.cache_key(self.version)
        prediction = self._predictions.get(key)
        if prediction is None:
            prediction = self._segment(video, payload, key, progress)
            # At once: if Label Studio fails now, the next run need not segment again.
            self._predictions.put(prediction)
        return prediction

    def results(self, prediction: Prediction, window: Window | None) -> list[dict[str, Any]]:
        """Return the regions that show a prediction in a task of the project.

        Raises:
            SvacError: the project's config can't show them.
        """
        return render(prediction, self.project.xml, self.settings, window=window)

    def attach(
        self, task: int, prediction: Prediction, results: list[dict[str, Any]], window: Window | None
    ) -> None:
        """Send a prediction to its task, have the editor show it, and have `/predict` answer with it at once."""
        score = task_score(prediction.tracks, prediction.frame_count, window)
        self.client.create_prediction(task, to_prediction(results, self.version, score))
        shown_as = config_key(self.project.xml, self.settings, window)
        self._predictions.put_rendering(prediction.key, shown_as, results)
        if not self._shown:
            # Without a version the editor shows no prediction. Label Studio takes only one that it has seen.
            self.client.set_model_version(self.project.id, self.version)
            self._shown = self.version

    def shown_instead(self) -> str | None:
        """Return the other version whose predictions the editor shows first, or None when it shows ours."""
        if self._shown in ("", self.version):
            return None
        # The title of a connected model stands for whatever that model answers.
        live = {str(backend.get("title")) for backend in self.client.list_ml_backends(self.project.id)}
        return None if self._shown in live else self._shown

    def _segment(
        self, video: VideoSource, payload: PrelabelPayload, key: str, progress: Callable[[float], None]
    ) -> Prediction:
        from svac_backend.pipeline import prelabel

        tracks = prelabel(self.model, video, payload.prompts, progress=lambda done, _: progress(done))
        return payload.prediction(key, self.version, tracks, video.info)

    def _payload(self, data: dict[str, Any], url: str) -> PrelabelPayload:
        """What the web process makes of the task, so that it looks under the same key in the cache."""
        connection = self._connections.get(str(self.project.id))
        limit = self.settings.max_prompt_chars
        return PrelabelPayload(
            project_id=str(self.project.id),
            task_id="",
            task_data=data,
            prompts=tuple(task_prompts(data, self.project.config, max_chars=limit)),
            label_config=self.project.xml,
            hostname=label_studio_name(self.settings, connection),
            video_url=url,
            push=True,
        )
