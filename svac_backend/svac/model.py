"""Svac: the model as its users see it. Streams over a video; memory does not grow with its length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from svac_backend.errors import SvacError
from svac_backend.masks.tracks import FrameMasks
from svac_backend.svac import checkpoints, preprocess
from svac_backend.svac.astc import clip_images
from svac_backend.svac.clips import ClipPlan, plan
from svac_backend.svac.config import SvacConfig
from svac_backend.svac.grounding import (
    FrameFeatures,
    build_sam,
    decode,
    encode_frames,
    masks_at_size,
    without_memory,
)
from svac_backend.svac.memory import MemoryTracker
from svac_backend.svac.mllm import Mllm
from svac_backend.svac.prompts import PromptBuilder
from svac_backend.svac.weights import locate
from svac_backend.video.reader import VideoSource

Progress = Callable[[float, str], None]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Svac(nn.Module):
    """SVAC, SaSaSa2VA or Sa2VA, as its configuration says.

    Args:
        config: architecture and method.
        tokenizer_file: `tokenizer.json` that belongs to the weights.
    """

    def __init__(self, config: SvacConfig, tokenizer_file: Path) -> None:
        super().__init__()
        self.config = config
        self.prompts = PromptBuilder(tokenizer_file, config.method, config.tokens_per_image)
        self.tokenizer_file = tokenizer_file
        self.mllm = Mllm(config)
        self.sam = build_sam(config.sam)

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, *, device: str = "auto", dtype: str = "auto"
    ) -> Svac:
        """Load an embedded model by name, or a folder in our format or in the published layout.

        Args:
            name_or_folder: `svac-tiny` or a folder with config.json, tokenizer.json and safetensors.
            device: `auto` takes the first GPU, else the CPU.
            dtype: `auto` is bfloat16 on a GPU and float32 on the CPU.

        Raises:
            SvacError: nothing is there, it is damaged, or the device is not.
        """
        folder = locate(str(name_or_folder))
        published = checkpoints.published_config(folder)
        config = published or SvacConfig.load(folder / "config.json")
        target = pick_device(device)
        kind = _DTYPES.get(dtype) or (torch.bfloat16 if target.type == "cuda" else torch.float32)
        model = cls(config, folder / "tokenizer.json")
        state = checkpoints.read_folder(folder)
        checkpoints.load_into(model, checkpoints.convert_all(state.items(), config) if published else state)
        return model.to(target, kind).eval()

    def save_pretrained(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write config.json, tokenizer.json and model.safetensors into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder / "config.json")
        if self.tokenizer_file.resolve() != (folder / "tokenizer.json").resolve():
            (folder / "tokenizer.json").write_bytes(self.tokenizer_file.read_bytes())
        state = self.state_dict()
        if self.config.language.tie_word_embeddings:
            state.pop("mllm.language_model.lm_head.weight")
        checkpoints.write(folder / "model.safetensors", state, dtype)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.sam.no_mem_embed.device

    @torch.inference_mode()
    def seg_embeddings(self, video: VideoSource, clips: ClipPlan, expressions: Sequence[str]) -> Tensor:
        """Return one embedding per expression and clip, f32 [E, N, d_model]; CSA."""
        method, size = self.config.method, self.config.vision.image_size
        images = [
            preprocess.resize(image, size)
            for frames in _clips_of_frames(video, clips)
            for image in clip_images(frames, method.grid, compress=method.astc)
        ]
        visual = self.mllm.visual_tokens(preprocess.mllm_pixels(np.stack(images)))
        prompts = [self.prompts.build(text, len(images), clips.num_clips) for text in expressions]
        return self.mllm.seg_embeddings(visual, prompts, self.prompts.context_id)

    @torch.inference_mode()
    def segment(
        self,
        video: VideoSource,
        expressions: Sequence[str],
        *,
        window: int = 16,
        progress: Progress | None = None,
    ) -> Iterator[FrameMasks]:
        """Segment what each expression names on every frame, in order.

        Args:
            video: where the frames come from.
            expressions: referring expressions, one object group each.
            window: frames that are held and encoded at a time.
            progress: called with a fraction 0..1 and a message.

        Raises:
            SvacError: no expression, an empty one, or a video without frames.
        """
        if not expressions:
            raise SvacError(
                "There is no expression to segment.", "Describe at least one object in a few words."
            )
        clips = plan(len(video), self.config.method)
        if progress:
            progress(0.0, "reading the clips")
        embeddings = self.seg_embeddings(video, clips, expressions)
        clips_of: dict[int, list[int]] = {}
        for frame, clip in clips.decode:
            clips_of.setdefault(frame, []).append(clip)
        memory = None
        if clips.propagated is not None:
            memory = MemoryTracker(
                self.sam, len(expressions), len(video), no_object_masking=self.config.method.no_object_masking
            )
        for start, frames in video.windows(window):
            small = preprocess.resize_all(list(frames), self.config.sam.image_size)
            features = encode_frames(self.sam, preprocess.sam_pixels(small))
            size = (frames.shape[1], frames.shape[2])
            yield from self._decode_window(start, size, features, embeddings, clips_of, memory)
            if progress:
                done = start + len(frames)
                progress(done / len(video), f"frame {done} of {len(video)}")

    def _decode_window(
        self,
        start: int,
        size: tuple[int, int],
        features: FrameFeatures,
        embeddings: Tensor,
        clips_of: dict[int, list[int]],
        memory: MemoryTracker | None,
    ) -> Iterator[FrameMasks]:
        """Decode frames x expressions of one window in one batch, or one by one where memory carries the masks."""
        count, expressions = len(features.low), len(embeddings)
        conditioned = [i for i in range(start, start + count) if i in clips_of]
        results: dict[int, tuple[Tensor, Tensor]] = {}
        if conditioned:
            pairs = [(i, e, clip) for i in conditioned for e in range(expressions) for clip in clips_of[i]]
            where = torch.tensor([i - start for i, _, _ in pairs], device=self.device)
            chosen = features.take(where)
            language = torch.stack([embeddings[e, clip] for _, e, clip in pairs]).to(chosen.low.dtype)
            out = decode(
                self.sam,
                without_memory(self.sam, chosen),
                chosen.high,
                language,
                no_object_masking=self.config.method.no_object_masking,
            )
            score = out.existence.sigmoid() * out.iou
            for i in conditioned:
                rows = torch.tensor([k for k, pair in enumerate(pairs) if pair[0] == i], device=self.device)
                logits = out.logits[rows].view(expressions, -1, *out.logits.shape[1:]).mean(1)
                results[i] = (logits, score[rows].view(expressions, -1).mean(1))
                if memory is not None:
                    one = features.take(torch.tensor([i - start], device=self.device))
                    memory.condition(i, one, out.logits[rows], out.existence[rows], out.token[rows])
        for i in range(start, start + count):
            if i not in results:
                if memory is None:
                    raise SvacError(
                        f"Frame {i} is in no clip.", "Use sampling 'uniform' or propagation 'memory'."
                    )
                results[i] = memory.track(i, features.take(torch.tensor([i - start], device=self.device)))
            logits, scores = results[i]
            masks = masks_at_size(logits, self.config.sam.image_size, *size)
            yield FrameMasks(index=i, masks=masks.cpu().numpy(), scores=scores.float().cpu().numpy())


def _clips_of_frames(video: VideoSource, clips: ClipPlan) -> Iterator[list[np.ndarray]]:
    """Yield the frames of each clip; only the clip at hand is held, however long the video is."""
    wanted = sorted(set(clips.selected))
    stream = video.frames(wanted)
    held: dict[int, np.ndarray] = {}
    for number in range(clips.num_clips):
        clip = clips.clip(number)
        held = {i: frame for i, frame in held.items() if i >= clip[0]}
        while clip[-1] not in held:
            index, frame = next(stream)
            held[index] = frame
        yield [held[i] for i in clip]


def pick_device(name: str) -> torch.device:
    """Return the device of that name.

    Raises:
        SvacError: torch can't use it here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SvacError(
            f"torch can't use the device {name!r} here.", "Set SVAC_DEVICE to auto or cpu."
        ) from error
    return device
