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

# Read where they are needed, without this class: Label Studio's command, and a font of the made scenes.
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
        description="Branch, tag or commit of the hub repository; pin a commit so that masks never change.",
    )
    preset: Literal["svac", "sasasa2va", "sa2va", "sa2va-small-images", "sa2va-i", "sa2va-i-12"] | None = (
        Field(
            None,
            description="Run the weights the way of `svac`, `sasasa2va`, `sa2va`, `sa2va-small-images`, `sa2va-i` or "
            "`sa2va-i-12` (docs/models.md); empty: the model's own way.",
        )
    )
    generate: bool = Field(
        False,
        description="Let the language model write its answer, as published, instead of forcing the known one; slower.",
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
        description="Gigabytes of a bucket's content that stay in SVAC_DATA_DIR as copies, those used last; 0: all.",
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
        description="Head of the Ray cluster, `host:6379`, or `auto` for the one of this machine; empty: a Ray of its "
        "own, on this machine alone.",
    )
    workers_least: int = Field(1, ge=1, description="Workers with a model that Ray always keeps.")
    workers_most: int = Field(
        0,
        ge=0,
        description="Workers with a model that Ray starts at most; 0: as many as the cluster has GPUs, or cores, for.",
    )
    workers_reserved: int = Field(
        0, ge=0, description="Workers with a model, beside these, that do only what a person waits for."
    )
    workers_light: int = Field(
        1,
        ge=0,
        description="Workers without a model, for frames, downloads and links; 0: those with a model do that, too.",
    )
    worker_gpus: float | None = Field(
        None,
        ge=0,
        description="GPUs, or the share of one, that a worker with a model takes; empty: 1 where Ray has any and "
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
    rate_limit: str = Field(
        "500/second", description="Requests that one caller, by address, may send; empty: no limit."
    )
    max_body_mb: int = Field(100, ge=1, description="Largest request body accepted, in megabytes.")
    basic_auth_user: str | None = Field(
        None, description="User that Label Studio must send; with the password."
    )
    basic_auth_password: SecretStr | None = Field(None, description="Password that Label Studio must send.")
    webhook_token: SecretStr | None = Field(
        None,
        description="Value of `X-Svac-Token` that webhooks must carry; empty: the backend makes one for each project.",
    )
    allow_open: bool = Field(
        False,
        description="Listen beyond this machine without a password; only where something else keeps strangers out.",
    )
    allowed_hosts: str = Field(
        "",
        description="Names under which callers reach the backend without a password, with commas between them; "
        "`localhost`, this machine's own name, and addresses in digits always, `*` for any.",
    )
    predict_wait_s: float = Field(
        20.0, ge=0, le=90, description="How long an interactive /predict waits for its job."
    )
    propagate_on_submit: str = Field(
        "",
        description="Projects whose submitted corrections make a new prediction: ids with commas, or `all`.",
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
        "SVAC_STORAGE_URL names, or the `backend`'s own `/media`; `auto`: the first for which the setting is there.",
    )
    media_url: str | None = Field(
        None,
        description="Address of the web process in the annotators' browsers, e.g. `https://masks.example.com`.",
    )
    media_origins: str = Field(
        "",
        description="Addresses of Label Studio whose pages may show frames of `/media`, with commas between them; "
        "`*` for any; empty: SVAC_LABEL_STUDIO_URL, and what Label Studio calls itself.",
    )
    media_link_days: float = Field(
        30.0,
        gt=0,
        le=3650,
        description="Days that a link to a frame lives, a store's 7 at most; the worker renews it at half of that.",
    )

    # What is accepted
    max_prompt_chars: int = Field(500, ge=1, description="Longest expression.")
    max_video_side: int = Field(8192, ge=1, description="Largest width or height of a video, in pixels.")
    max_video_mb: int = Field(4096, ge=1, description="Largest video that is downloaded, in megabytes.")
    media_hosts: str = Field(
        "*",
        description="Hosts that media may come from besides Label Studio, with commas between them: `*` for every "
        "public one, `host`, `host:port`, `*.domain`, `s3://bucket`. Those of private networks must be named in full.",
    )
    media_deadline_s: float = Field(3600.0, gt=0, description="Longest time for the download of a video.")
    media_least_kbs: float = Field(
        10.0, ge=0, description="Downloads that bring fewer kilobytes a second, over 30 s, are given up."
    )
    max_frames: int = Field(20000, ge=1, description="Longest video, in frames.")

    # What is made of masks
    speck_share: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Islands of a mask, and holes in it, that are smaller than this share of it are dropped; 0: none. "
        "It counts for masks that are made from then on.",
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
        1, ge=1, description="Only every k-th frame of a task gets regions, and the first of each object."
    )
    send_below_score: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Only frames that score below, jumps counted, get regions, and the first of each object; "
        "adds to SVAC_SEND_EVERY.",
    )
    frame_quality: int = Field(90, ge=1, le=100, description="JPEG quality of the editor's frames.")

    # Learning from corrections
    accept_untouched: str = Field(
        "",
        description="Projects in which masks that were submitted as they came count as looked at and right: ids with "
        "commas, or `all`. Elsewhere they are learned only where a person was at work, or as ground truth.",
    )
    finetune_every: int = Field(
        0, ge=0, description="Fine-tune by itself after so many corrected tasks; 0: only when asked."
    )
    finetune_min_videos: int = Field(
        8, ge=2, description="Corrected videos without which no fine-tuning starts."
    )
    finetune_min_gain: float = Field(
        1.0, description="J&F points that a new version must gain on held-out corrections to be promoted."
    )
    finetune_max_loss: float = Field(
        2.0, ge=0, description="J&F points that a new version may lose on the regression set."
    )
    finetune_steps: int = Field(
        0, ge=0, description="Steps of a fine-tuning; 0: by the number of corrections."
    )
    finetune_max_minutes: float = Field(
        0.0, ge=0, description="Training ends after so many minutes; 0: no limit."
    )

    # Faults and growth
    retry_hours: float = Field(
        24.0,
        ge=0,
        description="How long a job is tried again when Label Studio or its media are away, with growing pauses "
        "from 5 s to 5 hours; 0: never.",
    )

    keep_jobs_days: float = Field(
        30.0, ge=0, description="Days that jobs are kept after their end; 0: for good."
    )
    keep_events_days: float = Field(
        90.0,
        ge=0,
        description="Days that webhooks are kept once corrections were collected from them; 0: for good.",
    )
    keep_renderings_days: float = Field(
        30.0,
        ge=0,
        description="Days that predictions are kept as regions, which can be made again; 0: for good.",
    )
    keep_deleted_days: float = Field(
        7.0, ge=0, description="Days that predictions of deleted tasks are kept; 0: for good."
    )
    keep_versions_days: float = Field(
        90.0,
        ge=0,
        description="Days that versions which never served are kept, and runs without one; 0: for good.",
    )
    keep_media_gb: float = Field(
        50.0,
        ge=0,
        description="Gigabytes of downloaded videos that are kept, those used last; the others are fetched again "
        "when they are needed; 0: all.",
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="How much is logged.")
    log_format: Literal["text", "json"] = Field(
        "text", description="How: lines to read, or JSON objects with the ids of jobs and requests."
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
        """Take an empty variable as none: as a path it would be the current folder."""
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("storage_url")
    @classmethod
    def _is_storage(cls, value: str | None) -> str | None:
        """Take a folder, or a bucket without credentials: an address is logged and shown."""
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
        """Take an address without a slash at its end; docker compose passes a variable that is not set as empty."""
        if value is None or not value.strip():
            return None
        parts = urlsplit(value.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be an address such as https://masks.example.com")
        return value.strip().rstrip("/")

    @model_validator(mode="after")
    def _pin_model(self) -> Self:
        """Let `model` name the revision, too: `owner/name@revision`, so that all who ask for it mean the same."""
        if self.model_revision and "@" not in self.model:
            self.model = f"{self.model}@{self.model_revision}"
        return self


def names_project(projects: str, project_id: str) -> bool:
    """Tell whether a project is among those that a setting names: ids with commas, or `all`."""
    named = {name.strip().casefold() for name in projects.split(",")} - {""}
    return "all" in named or project_id in named


def unknown_variables() -> dict[str, str]:
    """Return the variables that look like settings and are none, each with the one that may be meant, or ""."""
    known = {f"SVAC_{name}".upper() for name in Settings.model_fields} | OTHER_VARIABLES
    unknown = sorted(name for name in os.environ if name.startswith("SVAC_") and name not in known)
    return {name: "".join(get_close_matches(name, known, n=1)) for name in unknown}


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process, read once."""
    return Settings()
