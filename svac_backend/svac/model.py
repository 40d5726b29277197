"""Svac: the model as its users see it. Streams over a video; memory does not grow with its length."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from svac_backend.errors import SvacError
from svac_backend.masks.hints import FrameHint
from svac_backend.masks.tracks import FrameMasks
from svac_backend.svac.astc import ClipPlan, plan
from svac_backend.svac.config import MethodConfig, SvacConfig
from svac_backend.svac.cpu.parallel import Workers, all_threads, frame_workers
from svac_backend.svac.families.registry import family_of
from svac_backend.svac.files import checkpoints, hub
from svac_backend.svac.language.mllm import GreedyWriter, Mllm, objects_of
from svac_backend.svac.language.templates import ChatTemplate
from svac_backend.svac.language.tokenizer import tokenizer_file
from svac_backend.svac.parts import explained, free_bytes
from svac_backend.svac.sam.decoding import WindowDecoder, anchor_scores, masks_of_windows, surest, united
from svac_backend.svac.sam.grounding import FrameEncoder, build_sam, frames_at_a_time
from svac_backend.svac.sam.memory import original_sam, tracking_sam
from svac_backend.svac.sam.tracking import Propagation
from svac_backend.svac.streaming import FrameFeed, prefetch
from svac_backend.video.reader import as_video
from svac_backend.video.source import VideoSource

Progress = Callable[[float, str], None]

# Frames whose masks wait for the caller.
_AHEAD = 2
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
        self.family = family_of(config)
        self.tokenizer_file = tokenizer_file
        self.chat = self._chat()
        self.mllm = self.family.build_mllm(config)
        self.sam = build_sam(config.sam)
        # Where frame hints have a SAM-2 of their own, and what says [SEG]s for it.
        self.hint_sam = build_sam(config.hints) if config.hints else None
        self.hint_mllm: Mllm | None = None
        if config.hints and config.hints.seg_dim:
            self.hint_mllm = self.family.build_mllm(replace(config, sam=config.hints))
            # It is given what the first one sees, and its answer is given.
            del self.hint_mllm.vision_model, self.hint_mllm.mlp1
            self.hint_mllm.language_model.lm_head = nn.Identity()
        # SAM-2 with the original mask decoder, if one was given; in a list, so that it is no part of the weights.
        self._original_sam: list[SAM2Base] = []

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> Svac:
        """Load an embedded model, a folder in our format or the published layout, or a hub repository.

        A repository that is not here yet is downloaded. Beside the model, memory for one tensor is needed.

        Args:
            name_or_folder: `svac-tiny`, a folder with config.json, a tokenizer and safetensors, or `owner/name`.
            revision: branch, tag or commit of the repository; also written `owner/name@revision`.
            device: `auto` takes the first GPU, else the CPU.
            dtype: of the parameters; `auto` is bfloat16 on a GPU, and on a CPU where `dtype_for` says so; else float32.

        Raises:
            SvacError: nothing is there, it is damaged, it can't be downloaded, or the device is not there.
        """
        target = pick_device(device)
        folder = hub.locate_or_download(f"{name_or_folder}@{revision}" if revision else str(name_or_folder))
        config = checkpoints.read_config(folder)
        with init_empty_weights():
            model = cls(config, tokenizer_file(folder))
        kind = _DTYPES.get(dtype) or dtype_for(target, sum(p.numel() for p in model.parameters()))
        checkpoints.load(model, folder, config, target, kind)
        return model.eval()

    def save_pretrained(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write config.json, tokenizer.json and weights into a folder, in our format.

        Args:
            folder: where; made when needed.
            dtype: casts the weights; None keeps them bit for bit.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder / "config.json")
        if self.tokenizer_file.resolve() != (folder / "tokenizer.json").resolve():
            (folder / "tokenizer.json").write_bytes(self.tokenizer_file.read_bytes())
        state = self.state_dict()
        if self.config.language.tie_word_embeddings:
            state.pop("mllm.language_model.lm_head.weight")
        checkpoints.write_folder(folder, state, dtype)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.sam.no_mem_embed.device

    def run_as(self, preset: str | None = None, **changes: Any) -> Svac:
        """Run the same weights another way.

        Args:
            preset: another preset; None keeps the model's own.
            changes: fields of `MethodConfig`, for example `generate=True`.

        Raises:
            SvacError: there is no such preset or no such field.
        """
        config = self.config.with_preset(preset) if preset else self.config
        unknown = changes.keys() - {f.name for f in fields(MethodConfig)}
        if unknown:
            raise SvacError(
                f"A method has no field {sorted(unknown)[0]!r}.", "See MethodConfig for the fields it has."
            )
        self.config = replace(config, method=replace(config.method, **changes))
        self.chat = self._chat()
        return self

    def _chat(self) -> ChatTemplate:
        images = self.family.tokens_per_image(self.config)
        return ChatTemplate(self.tokenizer_file, self.config.method, images, self.family.chat)

    @property
    def _takers(self) -> list[tuple[Mllm, SAM2Base, SvacConfig]]:
        """Every SAM-2 that takes [SEG]s, what says them, and the configuration whose `sam` it is."""
        method, hints = self.config.method, self.config.hints
        takers = [(self.mllm, self.sam, self.config)]
        if method.propagation != "none" or method.generate:
            return takers
        if hints and self.hint_mllm is not None and self.hint_sam is not None:
            takers.append((self.hint_mllm, self.hint_sam, replace(self.config, sam=hints)))
        return takers

    @property
    def _tracking(self) -> SAM2Base:
        """SAM-2 as it propagates masks."""
        return self._original_sam[0] if self._original_sam else tracking_sam(self.sam)

    def use_original_sam(self, path: Path) -> Svac:
        """Propagate (`propagation="anchor"`) with the mask decoder of the original SAM-2; the rest is the same there.

        Args:
            path: safetensors file or a folder of them, which hold `...sam_mask_decoder.*`: the original SAM-2.0's, or
                a Sa2VA-i checkpoint, which keeps the original beside its own.

        Raises:
            SvacError: there is no such decoder, or one of another shape.
        """
        self._original_sam = [original_sam(self.sam, path)]
        return self

    def compile_encoders(self, *, graphs: bool = False) -> Svac:
        """Compile the vision tower and SAM-2's image encoder (torch.compile); for GPUs, where shapes are large.

        Args:
            graphs: also record them as CUDA graphs, which keep memory of their own.
        """
        if self.device.type == "cuda":
            modules = [self.mllm.vision_model, self.sam.image_encoder]
            for module in modules if self.hint_sam is None else [*modules, self.hint_sam.image_encoder]:
                module.compile(mode="reduce-overhead" if graphs else None)
        return self

    @torch.inference_mode()
    def seg_embeddings(
        self,
        video: VideoSource,
        clips: ClipPlan,
        expressions: Sequence[str],
        answers: Sequence[str | None] | None = None,
    ) -> Tensor:
        """Return one embedding per object and clip, f32 [O, N, d_model]; CSA. See `segment` for objects."""
        feed = FrameFeed(video, clips, self.config)
        return self._objects(feed, expressions, answers, Workers(1), [self.mllm])[0][0]

    def _objects(
        self,
        feed: FrameFeed,
        expressions: Sequence[str],
        answers: Sequence[str | None] | None,
        workers: Workers,
        mllms: Sequence[Mllm],
    ) -> tuple[list[Tensor], list[int]]:
        """Return the objects' embeddings f32 [O, N, d_model] by each of `mllms`, and each object's expression."""
        images = feed.clip_pixels()
        with all_threads(workers):
            return self._seen(images, feed.clips.num_clips, expressions, answers, mllms)

    def _seen(
        self,
        images: Sequence[NDArray[np.uint8]],
        num_clips: int,
        expressions: Sequence[str],
        answers: Sequence[str | None] | None,
        mllms: Sequence[Mllm],
    ) -> tuple[list[Tensor], list[int]]:
        """Let the MLLM see the images, u8 [h, w, 3] each, of all clips; returns what `_objects` does."""
        seen = self.mllm.visual(images)
        method = self.config.method
        chats = [
            self.chat.build(text, seen.counts, num_clips, answer)
            for text, answer in zip(expressions, answers or [None] * len(expressions), strict=True)
        ]
        writer = None
        if method.generate:
            writer = GreedyWriter(self.chat.seg_id, self.chat.is_over, method.max_answer_tokens)
        said = [mllm.seg_states(seen, chats, self.chat.context_id, write=writer) for mllm in mllms]
        objects = [[objects_of(state, num_clips) for state in states] for states in said]
        owners = [e for e, found in enumerate(objects[0]) for _ in range(len(found))]
        return [torch.cat(found) for found in objects], owners

    @torch.inference_mode()
    def segment(
        self,
        video: VideoSource | NDArray[np.uint8] | str | Path,
        expressions: Sequence[str],
        *,
        answers: Sequence[str | None] | None = None,
        unite: bool = True,
        window: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[FrameMasks]:
        """Segment what each expression names on every frame, in order.

        One [SEG] per clip makes one object. A method with one clip whose answer holds several [SEG] finds several
        objects; one without any [SEG] finds none: empty masks with the score 0.

        Args:
            video: where the frames come from: an open video, frames u8 [T, H, W, 3] RGB, or the path of a video file,
                which is opened here and closed with the iterator.
            expressions: referring expressions.
            answers: for each expression the answer to force instead of the method's own, or None.
            unite: one mask per expression, the union of its objects; False: one per object, those of the first
                expression first. (The published evaluations look at the first object only.)
            window: frames that are held and encoded at a time; None: 16 where SAM-2 sees 1024 px, 4 on a CPU, more of
                smaller ones, and fewer where a GPU has little memory free.
            progress: called with a fraction 0..1 and a message, which says how long it will take where it takes long.

        Raises:
            SvacError: at the first frame: no expression, an empty one, or a video without frames, or one that can't be
                opened. At any: a GPU has too little memory for a single frame.
        """
        with as_video(video) as source, explained():
            yield from self._segment(source, expressions, answers, unite, window, progress)

    def _segment(
        self,
        video: VideoSource,
        expressions: Sequence[str],
        answers: Sequence[str | None] | None,
        unite: bool,
        window: int | None,
        progress: Progress | None,
    ) -> Iterator[FrameMasks]:
        """Do what `segment` says."""
        if not expressions:
            raise SvacError(
                "There is no expression to segment.", "Describe at least one object in a few words."
            )
        if answers is not None and (len(answers) != len(expressions) or self.config.method.generate):
            raise SvacError(
                "Answers can be forced for every expression, and not while the model writes its own.",
                "Give one answer or None per expression, and leave `generate` off.",
            )
        if window is None:
            window = frames_at_a_time(self.config.sam.image_size, self.device, free_bytes(self.device))
        clips = plan(len(video), self.config.method)
        anchored = self.config.method.propagation == "anchor"
        takers = self._takers
        anchors = clips.selected if anchored else clips.anchors if len(takers) > 1 else ()
        tracking = self._tracking if anchored else self.sam
        if progress:
            progress(0.0, "reading the clips")
        with frame_workers(self.device, independent=clips.propagated is None) as workers:
            encoder = FrameEncoder(tracking, workers, anchors if anchored else ())
            feed = FrameFeed(video, clips, self.config, frozenset(anchors), window, encoder)
            mllms = [mllm for mllm, _, _ in takers]
            embeddings, owners = self._objects(feed, expressions, answers, workers, mllms)
            feeds = [feed]
            for _, sam, config in takers[1:]:
                feeds.append(
                    FrameFeed(video, clips, config, frozenset(anchors), window, FrameEncoder(sam, workers))
                )
                feeds[-1].keep_pixels()
            chosen = [list(range(len(owners)))]
            if len(takers) > 1:
                chosen = surest(
                    [
                        anchor_scores(sam, each.kept(anchors), seg)
                        for (_, sam, _), each, seg in zip(takers, feeds, embeddings, strict=True)
                    ],
                    self.config.absent_below,
                )
            streams: list[Generator[FrameMasks]] = []
            for (_, sam, config), each, seg, objects in zip(takers, feeds, embeddings, chosen, strict=True):
                if not objects and (any(chosen) or streams):
                    continue
                decoder = WindowDecoder(
                    sam,
                    config,
                    clips,
                    (video.info.height, video.info.width),
                    seg[list(objects)],
                    [owners[o] for o in objects] if unite else objects,
                    len(expressions) if unite else len(owners),
                    tracking=tracking if sam is self.sam else None,
                )
                if anchored:
                    decoder.condition(anchors, each.kept(anchors))
                streams.append(masks_of_windows(each, decoder))
            made = streams[0] if len(streams) == 1 else united(streams)
            # Masks are many small steps in Python: one thread takes them while the workers are at the next window.
            with closing(prefetch(made, _AHEAD) if encoder.ahead else made) as frames:
                begun = time.monotonic()
                for number, frame in enumerate(frames, 1):
                    yield frame
                    if progress and (number % window == 0 or number == len(video)):
                        left = (time.monotonic() - begun) / number * (len(video) - number)
                        progress(number / len(video), f"frame {number} of {len(video)}{remaining(left)}")

    @torch.inference_mode()
    def propagate(
        self,
        video: VideoSource,
        hints: Sequence[Mapping[int, FrameHint]],
        *,
        frames: range | None = None,
        window: int = 16,
        progress: Progress | None = None,
    ) -> Iterator[tuple[int, int, NDArray[np.bool_], float]]:
        """Predict objects from what a person showed of them on some frames, each frame from the nearest of these.

        Args:
            video: where the frames come from.
            hints: one mapping per object, by 0-based frame: masks, which are kept as they are (an empty one says
                that the object is not there), clicks with at least one on the object, boxes.
            frames: the frames to predict; all if None. Others are looked at only on the way there.
            window: frames that are held and encoded at a time.
            progress: called with a fraction 0..1 and a message.

        Yields:
            Object number, frame, mask bool [H, W] and score 0..1, in no particular order, each (object, frame) once.

        Raises:
            SvacError: an object without hints, hints that do not fit the video, or frames that it does not have.
        """
        own = self.hint_sam is None or self._original_sam
        sam = self._tracking if own else tracking_sam(self.hint_sam)
        with explained():
            yield from Propagation(sam, video, hints, frames=frames, window=window, progress=progress).run()


def remaining(seconds: float) -> str:
    """Return how long it will take, to stand behind what is done; nothing where it is a matter of seconds."""
    if seconds < 10:
        return ""
    amount = f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"
    return f", about {amount} left"


# A model that gains by bf16 on a CPU has so many parameters; smaller ones have fused operations, which are fp32's.
_LARGE = 300_000_000


def dtype_for(device: torch.device, parameters: int) -> torch.dtype:
    """Return what parameters are best kept in: bf16 on a GPU, and on a CPU that computes it faster than fp32.

    That is a processor with AVX512-BF16 or AMX, on which a product of the size of a language model's took less time;
    others emulate bf16 and are slower. Masks agree with fp32's as on a GPU (`tests/svac/test_model.py`).

    Args:
        device: where the model runs.
        parameters: how many it has.
    """
    if device.type == "cuda":
        return torch.bfloat16
    if device.type == "cpu" and parameters >= _LARGE and computes_bf16() and bf16_is_faster():
        return torch.bfloat16
    return torch.float32


def computes_bf16() -> bool:
    """Whether this processor has instructions for products of bf16."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


@cache
def bf16_is_faster() -> bool:
    """Whether a product of bf16 takes less than three quarters of the time of fp32's here; measured once."""
    left, right = torch.ones(256, 2048), torch.ones(2048, 2048)
    pairs = (left, right), (left.bfloat16(), right.bfloat16())
    times: list[list[float]] = [[], []]
    for _ in range(
        4
    ):  # in turns, and the best of each: whatever else is at work meanwhile counts for neither
        for taken, pair in zip(times, pairs, strict=True):
            begun = time.perf_counter()
            torch.mm(*pair)
            taken.append(time.perf_counter() - begun)
    return min(times[1]) < 0.75 * min(times[0])


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
