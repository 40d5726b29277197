"""Every setting of the project, read from the environment (`SVAC_*`) or a `.env` file."""

from __future__ import annotations

import os
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

# Variables read elsewhere, without this class: Label Studio's command, and a font for the generated scenes.
OTHER_VARIABLES = {"SVAC_LABEL_STUDIO_BIN", "SVAC_EMOJI_FONT"}


class Settings(BaseSettings):
    """Settings of the backend; each field is the environment variable `SVAC_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="SVAC_", env_file=".env", extra="ignore")

    # The model
    model: str = Field(
        "svac-tiny",
        description="`svac-tiny` (embedded), a model folder, ours or published, or a hub repository: `owner/name`.",
    )
    model_revision: str | None = Field(
        None,
        description="Branch, tag or commit of the hub repository; pin a commit to keep masks from ever changing.",
    )
    preset: Literal["svac", "sasasa2va", "sa2va", "sa2va-small-images", "sa2va-i", "sa2va-i-12"] | None = (
        Field(
            None,
            description="Run the weights as `svac`, `sasasa2va`, `sa2va`, `sa2va-small-images`, `sa2va-i` or "
            "`sa2va-i-12` (docs/models.md); empty: the model's own preset.",
        )
    )
    generate: bool = Field(
        False,
        description="Generate the language model's answer, as published, instead of forcing the known one; slower.",
    )
    original_sam: Path | None = Field(
        None,
        description="Weights of the original SAM-2.0 (safetensors, or a Sa2VA-i checkpoint), whose mask decoder "
        "propagates; for `sa2va-i` on weights of Sa2VA (Sa2VA-i's own hold it).",
    )
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`, `cuda:1`, `mps`.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="`auto`: bf16 on GPU."
    )
    threads: int = Field(0, ge=0, description="CPU threads of the model; 0 lets torch choose.")
    compile: bool = Field(
        False,
        description="Compile the image encoders with torch.compile, on a GPU; the first video waits for it.",
    )

    # Where things live
    data_dir: Path = Field(
        Path("data"), description="Database, frames, downloaded media, versions of the model."
    )
    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL in place of the database in SVAC_DATA_DIR: `postgresql://user:password@host:5432/name`.",
    )
    storage_url: str | None = Field(
        None,
        description="Where frames, downloads, training runs and versions lie: another folder, or a bucket: "
        "`s3://bucket/prefix`, `gs://`, `az://`; empty: SVAC_DATA_DIR. Credentials are those of the cloud's own tools.",
    )
    storage_cache_gb: float = Field(
        20.0,
        ge=0,
        description="Gigabytes of a bucket's content, the most recently used, kept in SVAC_DATA_DIR as copies; 0: all.",
    )
    min_free_mb: int = Field(
        500,
        ge=0,
        description="Free disk below which `/ready` says that the backend cannot serve, in megabytes.",
    )

    # Who does the work
    engine: Literal["local", "ray"] = Field(
        "local",
        description="`local`: `svac-backend worker` does the jobs; `ray`: it places workers on a Ray cluster, as "
        "`svac-backend cluster start` does.",
    )
    ray_address: str = Field(
        "",
        description="Head of the Ray cluster, `host:6379`, or `auto` for this machine's; empty: start a Ray for "
        "this machine alone.",
    )
    workers_least: int = Field(1, ge=1, description="Workers with a model that Ray always keeps.")
    workers_most: int = Field(
        0,
        ge=0,
        description="Most workers with a model that Ray starts; 0: as many as the cluster has GPUs, or cores, for.",
    )
    workers_reserved: int = Field(
        0, ge=0, description="Additional workers with a model that do only what a person waits for."
    )
    workers_light: int = Field(
        1,
        ge=0,
        description="Workers without a model, for frames, downloads and links; 0: workers with a model do that, too.",
    )
    worker_gpus: float | None = Field(
        None,
        ge=0,
        description="GPUs, or the share of one, that a worker with a model takes; empty: 1 if Ray has any and "
        "SVAC_DEVICE is not `cpu`.",
    )
    worker_cpus: float | None = Field(
        None,
        gt=0,
        description="Cores that a worker with a model takes; empty: 1 beside a GPU, else up to 4.",
    )

    # The web process
    host: str = Field("127.0.0.1", description="Address that `svac-backend serve` listens on.")
    port: int = Field(9090, ge=1, le=65535, description="Port that `svac-backend serve` listens on.")
    server_threads: int = Field(8, ge=1, description="Requests answered at the same time.")
    rate_limit: str = Field("500/second", description="Requests that one address may send; empty: no limit.")
    max_body_mb: int = Field(100, ge=1, description="Largest request body accepted, in megabytes.")
    basic_auth_user: str | None = Field(
        None, description="User that Label Studio must send, together with the password."
    )
    basic_auth_password: SecretStr | None = Field(None, description="Password that Label Studio must send.")
    webhook_token: SecretStr | None = Field(
        None,
        description="Value of `X-Svac-Token` that webhooks must carry; empty: the backend makes one for each project.",
    )
    allow_open: bool = Field(
        False,
        description="Listen beyond this machine without a password; only if something else keeps strangers out.",
    )
    allowed_hosts: str = Field(
        "",
        description="Names, with commas, under which the backend can be reached without a password, `*` for any; "
        "`localhost`, this machine's own name and addresses in digits always work.",
    )
    predict_wait_s: float = Field(
        20.0, ge=0, le=90, description="How long an interactive /predict waits for its job."
    )
    propagate_on_submit: str = Field(
        "",
        description="Projects whose submitted corrections become a new prediction: ids with commas, or `all`.",
    )

    # Label Studio
    label_studio_url: str = Field(
        "http://localhost:8080", description="Where the backend reaches Label Studio."
    )
    label_studio_api_key: SecretStr | None = Field(None, description="Personal access token or legacy token.")
    label_studio_files_root: Path | None = Field(
        None,
        description="Folder that Label Studio serves as local files (LOCAL_FILES_DOCUMENT_ROOT), seen from here.",
    )
    label_studio_timeout_s: float = Field(30.0, gt=0, description="Timeout of one API call.")

    # How frames reach the editor
    frames_via: Literal["auto", "local-files", "store", "backend"] = Field(
        "auto",
        description="How frames reach the editor: `local-files` of Label Studio, signed links of the `store` that "
        "SVAC_STORAGE_URL names, or the `backend`'s own `/media`; `auto`: the first whose setting is there.",
    )
    media_url: str | None = Field(
        None,
        description="Address of the web process in the annotators' browsers, e.g. `https://masks.example.com`.",
    )
    media_origins: str = Field(
        "",
        description="Addresses of Label Studio whose pages may show frames of `/media`, separated by commas; "
        "`*` for any; empty: SVAC_LABEL_STUDIO_URL, and what Label Studio calls itself.",
    )
    media_link_days: float = Field(
        30.0,
        gt=0,
        le=3650,
        description="Days that a link to a frame is valid, at most 7 for a bucket's; the worker renews it halfway.",
    )

    # What is accepted
    max_prompt_chars: int = Field(500, ge=1, description="Longest expression.")
    max_video_side: int = Field(8192, ge=1, description="Largest width or height of a video, in pixels.")
    max_video_mb: int = Field(4096, ge=1, description="Largest video that is downloaded, in megabytes.")
    media_hosts: str = Field(
        "*",
        description="Hosts that media may come from besides Label Studio, separated by commas: `*` for every "
        "public one, `host`, `host:port`, `*.domain`, `s3://bucket`. Those of private networks must be named in full.",
    )
    media_deadline_s: float = Field(3600.0, gt=0, description="Longest time for the download of a video.")
    media_least_kbs: float = Field(
        10.0,
        ge=0,
        description="Downloads slower than this many kilobytes per second, over 30 s, are given up.",
    )
    max_frames: int = Field(20000, ge=1, description="Longest video, in frames.")

    # What is made of masks
    speck_share: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Islands of a mask, and holes in it, that are smaller than this share of it are dropped; 0: none. "
        "A change applies to masks made from then on.",
    )

    # What is sent to the editor
    polygon_tolerance_px: float = Field(
        1.0, ge=0, description="Largest distance of a polygon from its mask's edge."
    )
    polygon_iou_floor: float = Field(
        0.98, gt=0, le=1, description="The tolerance shrinks until this IoU is reached."
    )
    min_area_px: int = Field(16, ge=0, description="Masks smaller than this are not sent.")
    send_every: int = Field(
        1, ge=1, description="Only every k-th frame of a task, and the first of each object, gets regions."
    )
    send_below_score: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Only frames that score lower (jumps count), and the first of each object, get regions; "
        "adds to SVAC_SEND_EVERY.",
    )
    frame_quality: int = Field(90, ge=1, le=100, description="JPEG quality of the editor's frames.")

    # Learning from corrections
    accept_untouched: str = Field(
        "",
        description="Projects in which masks submitted as they came count as checked and right: ids with "
        "commas, or `all`. Elsewhere they count only on frames where a person worked, or as ground truth.",
    )
    finetune_every: int = Field(
        0, ge=0, description="Start a fine-tuning after this many corrected tasks; 0: only on request."
    )
    finetune_min_videos: int = Field(
        8, ge=2, description="Fewest corrected videos for a fine-tuning to start."
    )
    finetune_min_gain: float = Field(
        1.0, description="J&F points that a new version must gain on held-out corrections to be promoted."
    )
    finetune_max_loss: float = Field(
        2.0, ge=0, description="J&F points that a new version may lose on the regression set."
    )
    finetune_steps: int = Field(
        0, ge=0, description="Steps of a fine-tuning; 0: depends on the number of corrections."
    )
    finetune_max_minutes: float = Field(
        0.0, ge=0, description="A training ends after this many minutes; 0: no limit."
    )

    # Faults and growth
    retry_hours: float = Field(
        24.0,
        ge=0,
        description="Hours that a job is tried again while Label Studio or its media are away, with growing pauses "
        "from 5 s to 5 hours; 0: never.",
    )

    keep_jobs_days: float = Field(
        30.0, ge=0, description="Days that jobs are kept after their end; 0: forever."
    )
    keep_events_days: float = Field(
        90.0,
        ge=0,
        description="Days that webhooks are kept once corrections were collected from them; 0: forever.",
    )
    keep_renderings_days: float = Field(
        30.0,
        ge=0,
        description="Days that predictions are kept as regions, which can be made again; 0: forever.",
    )
    keep_deleted_days: float = Field(
        7.0, ge=0, description="Days that predictions of deleted tasks are kept; 0: forever."
    )
    keep_versions_days: float = Field(
        90.0,
        ge=0,
        description="Days that versions that never served, and runs without a version, are kept; 0: forever.",
    )
    keep_media_gb: float = Field(
        50.0,
        ge=0,
        description="Gigabytes of downloaded videos, the last used, that are kept; the others are fetched again "
        "when needed; 0: all.",
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="How much is logged.")
    log_format: Literal["text", "json"] = Field(
        "text",
        description="Format of the log: lines of text, or JSON objects with the ids of jobs and requests.",
    )

    @field_validator(
        "label_studio_files_root",
        "preset",
        "original_sam",
        "database_url",
        "storage_url",
        "worker_gpus",
        "worker_cpus",
        mode="before",
    )
    @classmethod
    def _is_named(cls, value: object) -> object:
        """Treat an empty variable as unset: as a path it would be the current folder."""
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("storage_url")
    @classmethod
    def _is_storage(cls, value: str | None) -> str | None:
        """Accept a folder, or a bucket without credentials, since the address is logged and shown."""
        if value is None or "://" not in value:
            return value and value.strip()
        parts = urlsplit(value.strip())
        if parts.scheme not in ("s3", "gs", "az") or not parts.netloc:
            raise ValueError(
                "must be a folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
            )
        if "@" in parts.netloc or ":" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "must name a bucket and nothing else; credentials belong in the cloud's own variables"
            )
        return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")

    @field_validator("media_url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        """Strip the slash at an address's end; docker compose passes unset variables as empty ones."""
        if value is None or not value.strip():
            return None
        parts = urlsplit(value.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be an address such as https://masks.example.com")
        return value.strip().rstrip("/")

    @model_validator(mode="after")
    def _pin_model(self) -> Self:
        """Move the revision into `model`, as `owner/name@revision`, so that everything uses the same one."""
        if self.model_revision and "@" not in self.model:
            self.model = f"{self.model}@{self.model_revision}"
        return self


def names_project(projects: str, project_id: str) -> bool:
    """Return whether a setting (ids with commas, or `all`) names a project."""
    named = {name.strip().casefold() for name in projects.split(",")} - {""}
    return "all" in named or project_id in named


def unknown_variables() -> dict[str, str]:
    """Return variables that look like settings but are not, each with the setting that may be meant, or ""."""
    known = {f"SVAC_{name}".upper() for name in Settings.model_fields} | OTHER_VARIABLES
    unknown = sorted(name for name in os.environ if name.startswith("SVAC_") and name not in known)
    return {name: "".join(get_close_matches(name, known, n=1)) for name in unknown}


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process, read once."""
    return Settings()
