"""Where training crops come from: folders of pages, each drawn from with its own share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dbcpu.errors import UsageError
from scripts.train.crops import CropSettings, cut_crop, recolour, retake
from scripts.train.truth import PageFile, PageWithMistakes, list_pages, read_page_and_mistakes

HELD_BACK_EVERY = 10  # of each real folder the pages 4, 14, 24, ... are for validation
HELD_BACK_FIRST = 4
CACHED_PAGES = 2500  # decoded pages in memory, about 2.5 MB each: 6 GB once so many were read
REFRESH_SECONDS = 60.0  # between looks for new pages
LARGE_BATCH = 16  # crops; from here on two come from each page that is read,
CROPS_OF_A_PAGE = 2  # since reading one takes as long as cutting another crop from it
MAX_SHORT_SIDE = 1100  # of a page in memory; finer detail never survives the crop's scale


def split_pages(pages: Sequence[PageFile]) -> tuple[list[PageFile], list[PageFile]]:
    """Return the pages to train on and those held back for validation."""
    held_back = list(pages[HELD_BACK_FIRST::HELD_BACK_EVERY])
    return [page for page in pages if page not in held_back], held_back


@dataclass
class Source:
    """A folder with `images/` and `gts/`.

    Attributes:
        folder: where it is.
        share: of the crops, relative to the other sources'.
        whole: whether all pages are trained on, none being held back.
        growing: whether it may have no pages yet: until it has, the other sources take its share.
    """

    folder: Path
    share: float
    whole: bool = False
    growing: bool = False
    pages: list[PageFile] = field(default_factory=list)

    def refresh(self) -> None:
        """Read the list of pages again."""
        pages = list_pages(self.folder)
        self.pages = pages if self.whole else split_pages(pages)[0]

    def held_back(self) -> list[PageFile]:
        """Return the pages that validation may use."""
        return [] if self.whole else split_pages(list_pages(self.folder))[1]


class CropReader:
    """Draws crops from sources, looking for new pages now and then.

    All its randomness comes from the generator it is given.

    Args:
        sources: the folders to draw from.
        settings: how crops are cut.
        rng: the generator.
        other_sides: sides of crops, beside the settings' own, that batches may be of, each as often.

    Attributes:
        cached_pages: how many decoded pages are kept in memory.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        settings: CropSettings,
        rng: np.random.Generator,
        other_sides: Sequence[int] = (),
    ) -> None:
        self.sources, self.settings, self.rng = list(sources), settings, rng
        self.cached_pages = CACHED_PAGES
        self._variants = [replace(settings, side=side) for side in (settings.side, *other_sides)]
        self._cache: dict[Path, PageWithMistakes] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look for new pages.

        Raises:
            UsageError: a source that does not grow has no page.
        """
        self._refreshed = time.monotonic()
        for source in self.sources:
            source.refresh()
            if not source.pages and not source.growing:
                raise UsageError("no pages: expected images/ and gts/gt_*.txt", where=source.folder)

    def draw_batch(self, count: int) -> tuple[npt.NDArray[Any], ...]:
        """Return N crops, uint8 (N, side, side, 3) BGR, and each of their target maps, (N, side, side).

        N is `count` for the settings' own side, and for another as many as have about as many pixels, at least one.
        """
        if time.monotonic() > self._refreshed + REFRESH_SECONDS:
            self.refresh()
        settings = self._variants[self.rng.integers(len(self._variants))]
        count = max(round(count * (self.settings.side / settings.side) ** 2), 1)
        shares = np.array([source.share if source.pages else 0.0 for source in self.sources])
        page_count = -(-count // CROPS_OF_A_PAGE) if count >= LARGE_BATCH else count
        read = []
        for pick in self.rng.choice(len(self.sources), page_count, p=shares / shares.sum()):
            pages = self.sources[pick].pages
            read.append(self._read(pages[self.rng.integers(len(pages))]))
        crops, targets = [], []
        for number in range(count):
            image, lines, mistakes = read[number % page_count]
            crop, target = cut_crop(image, lines, settings, self.rng, mistakes)
            crops.append(recolour(retake(crop, self.rng), self.rng))
            targets.append(target)
        maps = [np.stack(drawn) for drawn in zip(*targets, strict=True) if drawn[0] is not None]
        return np.stack(crops), *maps

    def _read(self, page: PageFile) -> PageWithMistakes:
        if page.image not in self._cache:
            if len(self._cache) >= self.cached_pages:
                self._cache.pop(next(iter(self._cache)))
            self._cache[page.image] = read_page_and_mistakes(page, MAX_SHORT_SIDE)
        return self._cache[page.image]
