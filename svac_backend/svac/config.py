"""Configuration of a model: its architecture and how it is run. Free of torch.

The presets follow `sa2va` (Sa2VA, published code), `sa2va-small-images` (Sa2VA with the image sizes that its Qwen-VL
versions were trained on; the same for others), `sa2va-i` (Sa2VA-i's inference, on its own weights or on Sa2VA's, with 5
key frames as evaluated), `sa2va-i-12` (with 12, as in its authors' demos; any number is `frames_per_clip`),
`sasasa2va` (SaSaSa2VA, published code) and `svac` (the paper "SVAC": ASTC and CSA, sections 3.2 to 3.4, and its README;
N, m and the grid are not published).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from svac_backend.errors import SvacError

Sampling = Literal["first", "linspace", "uniform", "uniform_plus", "wrap_around", "wrap_around_plus"]


# What Sa2VA's authors show Qwen-VL of a frame, and what they trained it on where there are several frames.
_SHOWN_PIXELS, _TRAINED_PIXELS = (512 * 28 * 28, 2048 * 28 * 28), (128 * 28 * 28, 512 * 28 * 28)


@dataclass(frozen=True)
class VisionConfig:
    """InternViT. Sizes in pixels. A family with another vision tower has a subclass of this (`Family.vision`)."""

    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    image_size: int = 448
    patch_size: int = 14
    qkv_bias: bool = True
    qk_normalization: bool = False
    norm_type: Literal["layer_norm", "rms_norm"] = "layer_norm"
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6


@dataclass(frozen=True)
class QwenVision(VisionConfig):
    """The vision tower of Qwen2.5-VL or Qwen3-VL, with its merger. `image_size` says nothing: images keep their shape.

    Attributes:
        kind: which of the two.
        merge: patches a side of one visual token.
        out_hidden_size: width of the language model.
        window_size, fullatt_block_indexes: Qwen2.5-VL's: pixels a side of what a block attends to, and the blocks that
            attend to the whole image.
        num_position_embeddings, deepstack_visual_indexes: Qwen3-VL's: places of the learned positions, and the blocks
            whose output goes to the first layers of the language model.
    """

    kind: Literal["qwen2_5_vl", "qwen3_vl"] = "qwen3_vl"
    merge: int = 2
    out_hidden_size: int = 3584
    window_size: int = 112
    fullatt_block_indexes: tuple[int, ...] = ()
    num_position_embeddings: int = 2304
    deepstack_visual_indexes: tuple[int, ...] = ()


@dataclass(frozen=True)
class LanguageConfig:
    """The language model.

    Attributes:
        architecture: `qwen2`, `llama` (InternLM2), or what a family's own `Mllm` builds.
        head_dim: where it does not follow from the width; None: hidden_size / num_attention_heads.
    """

    architecture: str = "qwen2"
    hidden_size: int = 2048
    num_hidden_layers: int = 36
    num_attention_heads: int = 16
    num_key_value_heads: int = 2
    intermediate_size: int = 11008
    vocab_size: int = 151679
    max_position_embeddings: int = 32768
    rope_theta: float = 1_000_000.0
    rope_scaling: dict[str, Any] | None = None
    rms_norm_eps: float = 1e-6
    hidden_act: str = "silu"
    tie_word_embeddings: bool = False
    head_dim: int | None = None


@dataclass(frozen=True)
class SamConfig:
    """SAM-2.0 (no `no_obj_embed_spatial`, no temporal projection of object pointers). The defaults are Hiera-L.

    Attributes:
        trunk: what looks at the pixels, before the FPN: SAM-2's own Hiera, whose sizes are below, or MobileNetV2.
        original_decoder: whether the original SAM-2's mask decoder is there beside the one that is tuned to [SEG]s, to
            propagate with (`sam.original_mask_decoder`; Sa2VA-i).
        match_dim: channels of the features by which a frame's cells are matched with those of remembered frames,
            beside memory attention (`FeatureMatching`); 0: SAM-2's memory attention alone.
        seg_dim: channels of the cells that a [SEG] is compared with (`SegMatching`), which says where to draw; 0: the
            mask decoder is given the [SEG] itself.
        quality: how masks are scored: the weights of `sam/quality.py`, 4 rows of 7; none: by existence times predicted
            IoU.
    """

    image_size: int = 1024
    trunk: Literal["hiera", "mobilenet_v2"] = "hiera"
    original_decoder: bool = False
    match_dim: int = 0
    seg_dim: int = 0
    embed_dim: int = 144
    num_heads: int = 2
    stages: tuple[int, ...] = (2, 6, 36, 4)
    global_att_blocks: tuple[int, ...] = (23, 33, 43)
    window_spec: tuple[int, ...] = (8, 4, 16, 8)
    window_pos_embed_bkg_spatial_size: tuple[int, int] = (7, 7)
    d_model: int = 256
    memory_dim: int = 64
    memory_layers: int = 4
    num_maskmem: int = 7
    quality: tuple[tuple[float, ...], ...] = ()

    @property
    def backbone_channels(self) -> list[int]:
        """Channels of the four stages, coarsest first."""
        if self.trunk == "mobilenet_v2":
            return [320, 96, 32, 24]
        return [self.embed_dim * 2**i for i in (3, 2, 1, 0)]


@dataclass(frozen=True)
class MethodConfig:
    """How frames become images, images become [SEG] tokens and tokens become masks.

    Attributes:
        num_clips: N; the answer holds one [SEG] per clip (CSA).
        frames_per_clip: m; the MLLM sees N x m frames.
        astc: True: a clip is its anchor frame and one composite of the others; False: every frame is an image.
        grid: rows and columns of the composite; rows x columns >= m - 1.
        sampling: which frames the MLLM sees and which clip a frame belongs to (`clips.plan`).
        propagation: `none` decodes each frame alone with its clip's [SEG]; `memory` decodes the frames that the
            MLLM saw and propagates to the rest with SAM-2's memory (Sa2VA); `anchor` decodes the frames that the MLLM
            saw, the key frames, without memory, gives their masks to the original SAM-2's memory and returns what comes
            back of them and of the rest (Sa2VA-i).
        no_object_masking: empty mask where SAM-2's object score is not positive; with `anchor` on tracked frames only.
        template: chat template, one of the family's.
        question, answer: text with `{exp}`; `answer` is `clips` ("Clip_1 [SEG], ...") or `repeat` ("[SEG][SEG].").
        answer_prefix: text before the first [SEG].
        generate: False forces the answer above (one prefill, the same [SEG] states); True lets the language model
            write its answer token by token.
        max_answer_tokens: where a generated answer is cut.
        image_pixels: fewest and most pixels of an image that keeps its shape (Qwen-VL); others have a fixed size.
    """

    num_clips: int = 10
    frames_per_clip: int = 10
    astc: bool = True
    grid: tuple[int, int] = (3, 3)
    sampling: Sampling = "uniform"
    propagation: Literal["none", "memory", "anchor"] = "none"
    no_object_masking: bool = True
    template: str = "phi3_chat"
    question: str = "Please segment {exp}."
    answer: Literal["clips", "repeat"] = "repeat"
    answer_prefix: str = "It is "
    generate: bool = False
    max_answer_tokens: int = 512
    image_pixels: tuple[int, int] = _TRAINED_PIXELS

    def __post_init__(self) -> None:
        if self.num_clips < 1 or self.frames_per_clip < 1:
            raise SvacError(
                "A model needs at least one clip of one frame.", "Set num_clips and frames_per_clip >= 1."
            )
        if self.astc and self.grid[0] * self.grid[1] < self.frames_per_clip - 1:
            raise SvacError(
                f"A grid of {self.grid[0]}x{self.grid[1]} can't hold {self.frames_per_clip - 1} frames.",
                "Enlarge the grid or lower frames_per_clip.",
            )

    @property
    def seg_masking(self) -> bool:
        """Whether what a [SEG] decodes is empty where the object score is not positive; key frames never are."""
        return self.no_object_masking and self.propagation != "anchor"

    @property
    def images_per_clip(self) -> int:
        """Images that the MLLM sees for one clip."""
        if not self.astc:
            return self.frames_per_clip
        return 1 if self.frames_per_clip == 1 else 2


_SA2VA_I = MethodConfig(
    num_clips=1,
    frames_per_clip=5,
    astc=False,
    sampling="linspace",
    propagation="anchor",
    answer_prefix="Sure, it is ",
    image_pixels=_SHOWN_PIXELS,
)

PRESETS: dict[str, MethodConfig] = {
    "svac": MethodConfig(),
    "sasasa2va": MethodConfig(answer="clips", answer_prefix="Sure, it is "),
    "sa2va": MethodConfig(
        num_clips=1,
        frames_per_clip=5,
        astc=False,
        sampling="first",
        propagation="memory",
        no_object_masking=False,
        answer_prefix="Sure, it is ",
        image_pixels=_SHOWN_PIXELS,
    ),
    "sa2va-i": _SA2VA_I,
    "sa2va-i-12": replace(_SA2VA_I, frames_per_clip=12),
}


PRESETS["sa2va-small-images"] = replace(PRESETS["sa2va"], image_pixels=_TRAINED_PIXELS)


@dataclass(frozen=True)
class SvacConfig:
    """Everything that is needed to build a model; stored as `config.json` beside the weights.

    Attributes:
        family: which of `families.registry` the model is of; `svac` is ours.
        preset: whose published code the method follows.
        vision, language, sam: the parts; [SEG] prompts `sam`.
        hints: of a SAM-2 of its own for what a person shows on frames (masks, clicks, boxes) and its way through the
            video; None: `sam` does that, too. With `seg_dim` it takes [SEG]s as well, of a language model of its own:
            what it is surer of than `sam` on the anchor frames is what it draws.
        absent_below: where two SAM-2s take [SEG]s: an object that none of them is so sure of (existence times predicted
            IoU, 0..1, in the mean of the anchor frames) is not there, and nothing is drawn of it.
        method: how it is run.
        downsample_ratio, ps_version: of the pixel shuffle between vision tower and language model.
    """

    preset: str = "svac"
    vision: VisionConfig = field(default_factory=VisionConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    sam: SamConfig = field(default_factory=SamConfig)
    hints: SamConfig | None = None
    absent_below: float = 0.0
    method: MethodConfig = field(default_factory=MethodConfig)
    downsample_ratio: float = 0.5
    ps_version: Literal["v1", "v2"] = "v2"
    family: str = "svac"

    @property
    def tokens_per_image(self) -> int:
        """Visual tokens of one image after pixel shuffle."""
        side = int(self.vision.image_size // self.vision.patch_size * self.downsample_ratio)
        return side * side

    def with_preset(self, preset: str) -> SvacConfig:
        """Return this architecture run the way of another preset.

        Raises:
            SvacError: there is no such preset.
        """
        if preset not in PRESETS:
            raise SvacError(f"There is no preset {preset!r}.", f"Choose one of {', '.join(PRESETS)}.")
        return replace(self, preset=preset, method=replace(PRESETS[preset], template=self.method.template))

    def save(self, path: Path) -> None:
        """Write `config.json`."""
        path.write_text(json.dumps({"format": "svac-backend", **asdict(self)}, indent=2) + "\n")

    @classmethod
    def load(cls, path: Path, vision: type[VisionConfig] = VisionConfig) -> SvacConfig:
        """Read what `save` wrote; unknown fields are refused.

        Args:
            path: of config.json.
            vision: the family's `Family.vision`.

        Raises:
            SvacError: not a configuration of ours.
        """
        try:
            data = json.loads(path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise SvacError(
                f"{path} can't be read as a model configuration ({error}).", "Download the model again."
            ) from error
        if not isinstance(data, dict) or data.pop("format", None) != "svac-backend":
            raise SvacError(
                f"{path} is not a configuration of this project.", "Point SVAC_MODEL at a svac-backend model."
            )
        parts: dict[str, type] = {
            "vision": vision,
            "language": LanguageConfig,
            "sam": SamConfig,
            "method": MethodConfig,
        }
        if data.get("hints") is not None:
            parts["hints"] = SamConfig
        try:
            for name, part in parts.items():
                data[name] = part(**{key: _tuple(value) for key, value in data.get(name, {}).items()})
            return cls(**data)
        except TypeError as error:
            raise SvacError(
                f"{path} has a field this version does not know ({error}).", "Update svac-backend."
            ) from error


def _tuple(value: Any) -> Any:
    """JSON has no tuples; our frozen configurations have no lists."""
    return tuple(_tuple(one) for one in value) if isinstance(value, list) else value


def whitelisted(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `data` that are fields of the dataclass `kind`."""
    names = {f.name for f in fields(kind)}
    return {key: value for key, value in data.items() if key in names}
