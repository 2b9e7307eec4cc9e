"""What the worker processes do: pictures to results, kept maps to results, and pictures for browsers."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dbcpu.errors import ImageError
from dbcpu.serve.problems import NOT_FOUND, SETTING, TOO_LARGE, ServeError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from dbcpu.detector import Detector
    from dbcpu.geometry import Size
    from dbcpu.image import SourceImage
    from dbcpu.overrides import Overrides
    from dbcpu.preprocess import NetworkInput
    from dbcpu.result import DetectionResult
    from dbcpu.serve.settings import Limits

Form = Literal["json", "icdar", "overlay-png"]
_JPEG_QUALITY = 90


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptMap:
    """What post-processing needs of a page, so that the network need not run again.

    Attributes:
        probability_map: float32 (Hn, Wn), network frame.
        network_size: of the network's input.
        content_size: what the picture covers of it.
        image_size: of the picture.
    """

    probability_map: npt.NDArray[np.float32]
    network_size: Size
    content_size: Size
    image_size: Size


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A file that a client sent.

    Attributes:
        content: of the file.
        name: what results and errors call it; never a path on this machine.
    """

    content: bytes
    name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """The task to find the text in a file.

    Attributes:
        picture: the file.
        overrides: settings of this request.
        form: of the answers.
        page: the only page to look at; None looks at all.
        keep: whether the maps are wanted too.
        kept: maps of an earlier detection by their pages; with them, the network does not run.
    """

    picture: Picture
    overrides: Overrides
    form: Form = "json"
    page: int | None = None
    keep: bool = False
    kept: Mapping[int, KeptMap] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Rendition:
    """The task to make a JPEG of a page, for browsers that cannot show the file.

    Attributes:
        picture: the file.
        page: which.
        longest: side in pixels that it may have.
    """

    picture: Picture
    page: int
    longest: int


@dataclass(frozen=True, kw_only=True, eq=False)
class PageDone:
    """The answer for one page.

    Attributes:
        page: its number.
        body: JSON without a line break, ICDAR lines, or a PNG or JPEG.
        instances: how many there are.
        kept: the map, where it was asked for.
        seconds: that the stages took.
    """

    page: int
    body: bytes
    instances: int = 0
    kept: KeptMap | None = None
    seconds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known of the loaded network.

    Attributes:
        name: file name of the weights.
        description: of the architecture.
        precision: that the network computes in.
        preprocess: every field of `PreprocessConfig`.
        postprocess: every field of `PostprocessConfig`.
    """

    name: str
    description: str
    precision: str
    preprocess: dict[str, Any]
    postprocess: dict[str, Any]


class ServeWork:
    """Loads the detector, then does the tasks above.

    Args:
        weights: path of the weights; None is the model that the package carries.
        loading: further arguments of `load_detector`.
        limits: on pictures.
    """

    def __init__(self, weights: Path | None, loading: Mapping[str, Any], limits: Limits) -> None:
        self._weights = weights
        self._loading = dict(loading)
        self._limits = limits
        self._detector: Detector

    def prepare(self) -> ModelFacts:
        """Load the detector.

        Raises:
            DbcpuError: as `load_detector`.
        """
        from dbcpu.checkpoint.architecture import describe
        from dbcpu.config import config_to_mapping
        from dbcpu.detector import load_detector
        from dbcpu.engine.memory import keep_freed_memory

        keep_freed_memory()
        self._detector = load_detector(self._weights, threads=1, **self._loading)
        config = self._detector.config
        return ModelFacts(
            name=self._detector.name,
            description=describe(config.model),
            precision=str(self._detector.dtype).removeprefix("torch."),
            preprocess=config_to_mapping(config.preprocess),
            postprocess=config_to_mapping(config.postprocess),
        )

    def __call__(self, task: tuple[Detection | Rendition, int]) -> Iterator[PageDone]:
        """Do a task with so many threads.

        Raises:
            DbcpuError: the picture cannot be read, or is over a limit, or a setting is wrong.
        """
        from dbcpu.engine.threads import set_threads

        wanted, threads = task
        set_threads(threads)
        return self._render(wanted) if isinstance(wanted, Rendition) else self._detect(wanted)

    def _detect(self, task: Detection) -> Iterator[PageDone]:
        from dbcpu.overrides import apply_overrides

        detector = copy.copy(self._detector)  # lanes share the loaded one
        detector.config = apply_overrides(detector.config, task.overrides)
        if task.kept is not None and task.form != "overlay-png":
            for page in sorted(task.kept) if task.page is None else [task.page]:
                yield _finish(detector, _without_pixels(task.picture.name, page), task, _kept(task.kept, page), {})
            return
        clock = _Clock()
        for source in self._pages(task.picture, task.page):
            clock.lap("decode")
            if task.form == "overlay-png" and task.page is None and not source.is_last:
                what = "a file of several pages gives several overlays"
                raise ServeError(SETTING, what, where=source.name, remedy="choose one with `page`")
            if task.kept is not None:
                yield _finish(detector, source, task, _kept(task.kept, source.page), clock.seconds)
            else:
                kept = self._infer(detector, source, clock)
                yield _finish(detector, source, task, kept, clock.seconds)
            clock = _Clock()

    def _infer(self, detector: Detector, source: SourceImage, clock: _Clock) -> KeptMap:
        from dbcpu.engine.memory import give_back
        from dbcpu.geometry import Size
        from dbcpu.preprocess import content_size

        size = content_size(detector.config.preprocess, Size(*source.pixels_bgr.shape[:2]))
        if size.height * size.width > self._limits.max_network_pixels:
            raise ServeError(
                TOO_LARGE,
                f"the page would become {size.width}x{size.height} for the network, over the limit of "
                f"{self._limits.max_network_pixels} pixels",
                where=f"{source.name}, page {source.page}",
                remedy="choose a smaller short_side, or cut the page",
            )
        give_back(source.pixels_bgr.nbytes)
        network_input = detector.preprocess(source)
        clock.lap("preprocess")
        probability_map = detector.infer(network_input)
        clock.lap("network")
        return KeptMap(
            probability_map=probability_map,
            network_size=network_input.network_size,
            content_size=network_input.content_size,
            image_size=network_input.image_size,
        )

    def _render(self, task: Rendition) -> Iterator[PageDone]:
        import cv2

        clock = _Clock()
        (source,) = self._pages(task.picture, task.page)
        clock.lap("decode")
        pixels = source.pixels_bgr
        scale = task.longest / max(pixels.shape[:2])
        if scale < 1:
            height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
        clock.lap("encode")
        yield PageDone(page=task.page, body=jpeg, seconds=clock.seconds)

    def _pages(self, picture: Picture, page: int | None) -> Iterator[SourceImage]:
        """Read all pages, or the one; too many are refused before the first is worked on."""
        for source in self._read(picture, page or 1):
            if page is None and source.page == 1 and not source.is_last:
                self._check_page_count(picture)
            yield source
            if page is not None:
                return

    def _read(self, picture: Picture, first_page: int) -> Iterator[SourceImage]:
        from dbcpu.image import read_image

        return read_image(picture.content, name=picture.name, max_pixels=self._limits.max_pixels, first_page=first_page)

    def _check_page_count(self, picture: Picture) -> None:
        limit = self._limits.max_pages
        try:
            next(self._read(picture, limit + 1))
        except ImageError:
            return  # there is no such page, or it is broken, which shows when the others are done
        raise ServeError(
            TOO_LARGE,
            f"the file has more than {limit} pages",
            where=picture.name,
            remedy="ask for one after the other with `page`, or split the file",
        )


def _kept(kept: Mapping[int, KeptMap], page: int) -> KeptMap:
    if page not in kept:
        raise ServeError(NOT_FOUND, f"page {page} was not kept", remedy=f"kept are {', '.join(map(str, sorted(kept)))}")
    return kept[page]


def _finish(
    detector: Detector, source: SourceImage, task: Detection, kept: KeptMap, seconds: Mapping[str, float]
) -> PageDone:
    clock = _Clock(seconds)
    result = detector.postprocess(source, _network_input(kept), kept.probability_map)
    clock.lap("postprocess")
    body = _written(result, source, task.form)
    clock.lap("encode")
    return PageDone(
        page=source.page,
        body=body,
        instances=len(result.instances),
        kept=kept if task.keep else None,
        seconds=clock.seconds,
    )


def _written(result: DetectionResult, source: SourceImage, form: Form) -> bytes:
    import cv2

    from dbcpu.writers.icdar import icdar_lines
    from dbcpu.writers.json_document import json_line
    from dbcpu.writers.overlay import draw_overlay

    if form == "json":
        return json_line(result).encode()
    if form == "icdar":
        return icdar_lines(result).encode()
    return cv2.imencode(".png", draw_overlay(source.pixels_bgr, result))[1].tobytes()


def _network_input(kept: KeptMap) -> NetworkInput:
    """Give post-processing the frames; it needs no tensor."""
    import torch

    from dbcpu.preprocess import NetworkInput

    return NetworkInput(
        tensor=torch.empty(0),
        network_size=kept.network_size,
        content_size=kept.content_size,
        image_size=kept.image_size,
    )


def _without_pixels(name: str, page: int) -> SourceImage:
    import numpy as np

    from dbcpu.image import SourceImage

    return SourceImage(name=name, page=page, pixels_bgr=np.empty((0, 0, 3), np.uint8))


class _Clock:
    """Seconds of one stage after the other."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self.seconds = dict(seconds or {})
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now
