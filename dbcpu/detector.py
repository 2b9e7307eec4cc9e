"""The detector: preprocessing, network and post-processing joined."""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from dbcpu.ahead import take_ahead
from dbcpu.checkpoint.load import load_network, read_weights, require_finite
from dbcpu.config import config_to_mapping
from dbcpu.engine.compiling import compile_network
from dbcpu.engine.precision import Precision, choose_dtype
from dbcpu.engine.prepare import prepare
from dbcpu.engine.threads import set_threads
from dbcpu.errors import ImageError
from dbcpu.image import SourceImage, read_image, source_from_array
from dbcpu.overrides import apply_overrides
from dbcpu.postprocess import detect_text
from dbcpu.preprocess import NetworkInput, preprocess, rounded_targets
from dbcpu.result import DetectionResult
from dbcpu.tiling import Tile, TiledInput, check_tile, choose_factor, preprocess_tiles, read_tiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeAlias

    import numpy.typing as npt
    from torch import nn
    from typing_extensions import Unpack

    from dbcpu.config import DetectorConfig, OffsetStrideChoice
    from dbcpu.overrides import Overrides

    # A path, or blue, green and red uint8 (H, W, 3).
    Picture: TypeAlias = str | os.PathLike[str] | npt.NDArray[np.uint8]

logger = logging.getLogger(__name__)
_LIGHT = 256 << 20  # bytes of pixels


class Detector:
    """A loaded network with its settings; `load_detector` makes one.

    Args:
        network: from normalised input (B, 3, H, W), channels-last, to the probability map, float32 (B, 1, H, W).
        config: of the network and of the stages around it.
        name: of the weights, as results carry it.
        dtype: that the network computes in.
        tile: how pages are read that are much larger than the network's input, see `load_detector`.
    """

    def __init__(
        self,
        network: nn.Module,
        config: DetectorConfig,
        *,
        name: str,
        dtype: torch.dtype = torch.float32,
        tile: Tile = "off",
    ) -> None:
        check_tile(tile)
        self.tile = tile
        self.network = network
        self.dtype = dtype
        self.config = config
        self.name = name
        self._at_network = threading.RLock()  # two at once would share the cores, and need twice the memory
        for setting, (given, used) in rounded_targets(config.preprocess).items():
            logger.warning("%s %d is no multiple of 32: rounded up to %d", setting.replace("_", " "), given, used)

    def detect(self, image: Picture, *, ignore_exif: bool = False) -> DetectionResult:
        """Find the text in one picture.

        Args:
            image: a path, or an array uint8 (H, W, 3), blue first (also (H, W) grey and (H, W, 4) with alpha).
            ignore_exif: take the pixels of a file as they are stored, without turning them upright.

        Returns:
            Polygons in pixels of the upright picture.

        Raises:
            ImageError: the picture cannot be read, or the file has several pages: `detect_pages` takes those.
        """
        return self.detect_source(self._only_page(image, ignore_exif=ignore_exif))

    def _only_page(self, image: Picture, *, ignore_exif: bool) -> SourceImage:
        source = next(_sources(image, ignore_exif=ignore_exif))
        if not source.is_last:
            raise ImageError("the file has several pages", where=source.name, remedy="use detect_pages")
        return source

    def detect_pages(self, image: Picture, *, ignore_exif: bool = False) -> Iterator[DetectionResult]:
        """Find the text in every page of a file, one page in memory at a time.

        Args and errors as `detect`; a page that cannot be read raises when it is its turn.
        """
        for source in _sources(image, ignore_exif=ignore_exif):
            yield self.detect_source(source)

    def detect_batch(self, images: Iterable[Picture], *, ignore_exif: bool = False) -> list[DetectionResult]:
        """Find the text in several pictures, each as `detect` does, in their order.

        While the network works on one picture, the next one is read in a second thread, `images` included, and the one
        before it is post-processed in a third.
        """

        def prepare_one(image: Picture) -> tuple[SourceImage, NetworkInput | TiledInput]:
            source = self._only_page(image, ignore_exif=ignore_exif)
            return source, self.preprocess(source)

        results = []
        with ThreadPoolExecutor(1, thread_name_prefix="behind") as behind:
            for source, network_input in take_ahead(map(prepare_one, images), lambda made: is_light(made[0])):
                results.append(behind.submit(self.postprocess, source, network_input, self.infer(network_input)))
                del source, network_input
        return [result.result() for result in results]

    def detect_source(self, source: SourceImage) -> DetectionResult:
        """Find the text in a picture that was read already."""
        return self.detect_with_map(source)[0]

    def detect_with_map(self, source: SourceImage) -> tuple[DetectionResult, npt.NDArray[np.float32]]:
        """Find the text in a picture that was read already; the probability map, as `infer` gives it, comes along."""
        network_input = self.preprocess(source)
        probability_map = self.infer(network_input)
        return self.postprocess(source, network_input, probability_map), probability_map

    def probability_map(self, image: Picture, *, ignore_exif: bool = False) -> npt.NDArray[np.float32]:
        """Return P(pixel is in a shrunk text kernel) for the resized picture, float32 (Hn, Wn) in [0, 1].

        Args and errors as `detect`; of several pages the first.
        """
        return self.infer(self.preprocess(next(_sources(image, ignore_exif=ignore_exif))))

    def preprocess(self, source: SourceImage) -> NetworkInput | TiledInput:
        """Resize and normalise a picture as the network was trained with, or resize it to be read in tiles."""
        pixels, config = source.pixels_bgr, self.config.preprocess
        factor = 1.0 if self.tile == "off" else self.tile
        if factor == "auto":
            factor = choose_factor(pixels, config)
        if factor == 1:
            return preprocess(pixels, config, name=source.name)
        logger.info("%s, page %d: read in tiles, %.1f times larger", source.name, source.page, factor)
        return preprocess_tiles(pixels, config, factor, name=source.name)

    def infer(self, network_input: NetworkInput | TiledInput) -> npt.NDArray[np.float32]:
        """Run the network: float32 (Hn, Wn) in [0, 1], in the network frame. Threads wait for each other."""
        if isinstance(network_input, TiledInput):
            return read_tiles(network_input, self._run, threshold=self.config.postprocess.binarize_threshold)
        with self._at_network:
            started = time.perf_counter()
            result = self._run(network_input.tensor)
        logger.info("network: %d ms for %dx%d", _ms(started), *reversed(network_input.network_size))
        return result

    def _run(self, tensor: torch.Tensor) -> npt.NDArray[np.float32]:
        with self._at_network, torch.inference_mode():
            probability = self.network(tensor.to(dtype=self.dtype, memory_format=torch.channels_last))
        result: npt.NDArray[np.float32] = probability[0, 0].to(torch.float32).numpy()
        return result

    def postprocess(
        self,
        source: SourceImage,
        network_input: NetworkInput | TiledInput,
        probability_map: npt.NDArray[np.float32],
    ) -> DetectionResult:
        """Turn the probability map of a picture into its result."""
        started = time.perf_counter()
        settings = self.config.postprocess
        if isinstance(network_input, TiledInput):  # the limit is meant for a page of the ordinary size
            limit = round(settings.max_candidates * network_input.factor**2)
            settings = replace(settings, max_candidates=limit)
        detections = detect_text(
            probability_map, network_input.image_size, settings, content_size=network_input.content_size
        )
        logger.info("post-processing: %d ms, %d instances", _ms(started), len(detections.instances))
        if detections.truncated:
            logger.warning(
                "%s, page %d: more than %d candidates; text further up was not looked at (raise max-candidates)",
                source.name,
                source.page,
                settings.max_candidates,
            )
        return DetectionResult(
            image=source.name,
            page=source.page,
            image_size=network_input.image_size,
            instances=detections.instances,
            truncated=detections.truncated,
            model=self.name,
            settings=self._settings(network_input),
        )

    @property
    def description(self) -> dict[str, object]:
        """The network and every setting, ready for JSON."""
        return {"model": self.name, "precision": self._precision, "tile": self.tile, **config_to_mapping(self.config)}

    @property
    def _precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def _settings(self, network_input: NetworkInput | TiledInput) -> dict[str, object]:
        settings = self.config.postprocess
        return {
            "network_width": network_input.network_size.width,
            "network_height": network_input.network_size.height,
            "tile": network_input.factor if isinstance(network_input, TiledInput) else "off",
            "precision": self._precision,
            "shape": settings.shape,
            "binarize_threshold": settings.binarize_threshold,
            "score_threshold": settings.score_threshold,
            "unclip_ratio": settings.effective_unclip_ratio,
            "max_candidates": settings.max_candidates,
            "min_side": settings.min_side,
            "polygon_epsilon": settings.polygon_epsilon,
        }


def is_light(source: SourceImage) -> bool:
    """Whether memory should hold another picture beside this one."""
    return source.pixels_bgr.nbytes <= _LIGHT


def _ms(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)


def _sources(image: Picture, *, ignore_exif: bool) -> Iterator[SourceImage]:
    if isinstance(image, np.ndarray):
        return iter([source_from_array(image)])
    return read_image(image, ignore_exif=ignore_exif)


# Finds text lines; what it was trained on and how well it does stands in `assets/README.md`.
DEFAULT_MODEL = Path(__file__).parent / "assets" / "default.safetensors"


def load_detector(
    weights: str | os.PathLike[str] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    offset_stride: OffsetStrideChoice = "auto",
    family: str | None = None,
    attention: bool = True,
    precision: Precision = "fp32",
    compile: bool = False,  # noqa: A002
    threads: int | None = None,
    tile: Tile = "off",
    **overrides: Unpack[Overrides],
) -> Detector:
    """Load an old checkpoint or a model file, ready to detect.

    Args:
        weights: path of the file; None is the model that the package carries.
        config: path of a YAML file such as those in `configs/`; what it states of the network must agree with the
            weights, its thresholds and sizes replace those of the family or the model file.
        offset_stride: meaning of the stride-2 blocks of deformable ResNet-50 and deeper; "auto" reads it off the
            weights.
        family: name of the code base that wrote an old checkpoint, such as "original"; None recognises it.
        attention: False leaves out the adaptive scale fusion of DB++, as EasyOCR does with the same files.
        precision: "fp32", "bf16", or "auto", which is bf16 only where it is faster (x86 with AMX, Arm with bf16).
        compile: run the network through `torch.compile`, which needs a C++ compiler and pays in long runs.
        threads: of torch and OpenCV, for the whole process; None leaves them alone.
        tile: how many times larger than the network's ordinary input pages are read, in overlapping tiles; "off" is
            once, and "auto" enlarges only large pages whose letters would become too low, see `choose_factor`.
        **overrides: settings of `Overrides`, such as `short_side=960` or `shape="polygon"`.

    Raises:
        CheckpointError: the file cannot be read, trusted or mapped.
        ConfigError: a configuration or an override is malformed, or contradicts the weights.
        UsageError: overrides that exclude each other, fewer than one thread, nothing to compile with, no such `tile`.
    """
    if threads is not None:
        set_threads(threads)
    path = DEFAULT_MODEL if weights is None else Path(weights)
    loaded = read_weights(
        path,
        config=None if config is None else Path(config),
        offset_stride=offset_stride,
        family=family,
        attention=attention,
    )
    require_finite(loaded)
    full_config = apply_overrides(loaded.config, overrides)
    dtype = choose_dtype(precision)
    built = load_network(loaded.tensors, full_config.model)
    del loaded  # so that the tensors it shares with the network go as they are replaced
    network = prepare(built, dtype, fuse=not compile)
    if compile:
        network = compile_network(network)
    return Detector(network, full_config, name=path.name, dtype=dtype, tile=tile)
