"""Render synthetic pages into a folder of `images/` and `gts/`, which training may read while it grows.

python -m scripts.train.pages --out POOL --layouts ../shared/data/layouts --count 2000 --seed 1
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from dbcpu.errors import UsageError
from scripts.train import books, figures, forms, posters, scenes, signs, streets
from scripts.train.command import errors_told
from scripts.train.fonts import FontShelf
from scripts.train.prints import Documents
from scripts.train.sheet import Sheet
from scripts.train.snapshots import take
from scripts.train.texts import Texts
from scripts.train.truth import Line, Page, read_lines, rectangle, write_lines
from scripts.train.wear import finish

MIN_EXTENT = 4.0  # pixels: what is left of a line at the edge of a picture counts from here on
SHEETS: dict[str, Callable[[np.random.Generator, Texts, FontShelf], Sheet]] = {
    "latin": books.latin_page,
    "typescript": books.typescript,
    "han": books.han_page,
    "vertical": books.vertical_page,
    "receipt": forms.receipt,
    "form": forms.form,
    "table": forms.table,
    "figure": figures.figure_page,
}
SHARES = {
    "latin": 0.13,
    "typescript": 0.07,
    "han": 0.07,
    "vertical": 0.16,
    "layout": 0.12,
    "receipt": 0.12,
    "form": 0.11,
    "table": 0.07,
    "figure": 0.05,
    "sign": 0.15,
    "poster": 0.05,
    "street": 0.1,
    "print": 0.2,
}
SIDEWAYS = {"latin": 0.1, "form": 0.3, "table": 0.1, "figure": 0.1}  # share with a line up the margin: file numbers
SEEN_THROUGH = {"typescript": 0.5}  # share of the sheets through which another one shows: carbon copies are thin


class PageMaker:
    """Makes pages of all kinds.

    Args:
        layouts: folder of `gt_*.txt` of Chinese pages.
        documents: folder of PDF files that carry their text, for the kind "print"; None makes none of that kind.
        photographs: folder of pictures without text, behind most signs; None draws what is behind them.
        words: whether the truth of the kind "print" is of words.
        fonts: folder of further fonts, see `find_faces`.
    """

    def __init__(
        self,
        layouts: Path,
        documents: Path | None = None,
        photographs: Path | None = None,
        *,
        words: bool = False,
        fonts: Path | None = None,
    ) -> None:
        paths = sorted(layouts.glob("gt_*.txt"))
        if not paths:
            raise UsageError("no gt_*.txt of Chinese pages", where=layouts)
        self._layouts = [lines for lines in map(read_lines, paths) if lines]
        self._shelf, self._texts = FontShelf(fonts), Texts(layouts)  # the shelf names every package that is missing
        self._documents = Documents(documents, words=words) if documents else None
        self._photographs = scenes.find_photographs(photographs) if photographs else []
        shares = {kind: share for kind, share in SHARES.items() if self._documents or kind != "print"}
        self._kinds, self._shares = list(shares), np.array(list(shares.values())) / sum(shares.values())

    def make(self, rng: np.random.Generator, kind: str | None = None) -> Page:
        """Return a page, uint8 (H, W, 3) BGR, and its lines; `kind` is a key of `SHARES`, by default drawn by share."""
        kind = kind or str(rng.choice(self._kinds, p=self._shares))
        if kind == "sign":
            boards = [self._make_board(rng) for _ in range(rng.integers(1, 3))] if rng.random() < 0.35 else []
            return signs.sign_page(rng, self._texts, self._shelf, self._photographs, boards)
        if kind == "poster":
            picture, lines = self._make_poster(rng, int(rng.integers(500, 850)))
            return take(rng, picture.astype(np.float32), lines, flawed=0.1)
        if kind == "street":
            hung = [self._make_poster(rng, int(rng.integers(120, 650))) for _ in range(rng.integers(1, 9))]
            return streets.street_page(rng, hung, self._photographs)
        if kind == "print":
            if self._documents is None:
                raise UsageError("no documents for the kind print", remedy="give --documents FOLDER")
            sheet = self._documents.draw(rng)
            return finish(rng, sheet) if rng.random() < 0.6 else (sheet.pixels(), sheet.lines)
        if kind == "layout":
            lines = self._layouts[rng.integers(len(self._layouts))]
            return finish(rng, books.layout_page(rng, lines, self._texts, self._shelf))
        sheet = SHEETS[kind](rng, self._texts, self._shelf)
        if rng.random() < 0.1:
            stamp(rng, sheet)
        if rng.random() < SIDEWAYS.get(kind, 0.0):
            self._write_at_the_side(rng, sheet)
        below = SHEETS[kind](rng, self._texts, self._shelf) if rng.random() < SEEN_THROUGH.get(kind, 0.1) else None
        return finish(rng, sheet, below)

    def _make_board(self, rng: np.random.Generator) -> Page:
        """Return what hangs in a scene: most often an advertisement, else a sheet of any kind."""
        if rng.random() < 0.6:
            return signs.sign_page(rng, self._texts, self._shelf, self._photographs, upright=True)
        return self.make(rng, str(rng.choice(list(SHEETS))))

    def _make_poster(self, rng: np.random.Generator, height: int) -> Page:
        """Return a poster of any shape: upright, wide as the board over a shop's door, or as pictures of goods are."""
        width = int(height * (rng.uniform(0.6, 1.3) if rng.random() < 0.7 else rng.uniform(1.3, 3)))
        return posters.make_poster(rng, self._texts, self._shelf, self._photographs, height, width)

    def _write_at_the_side(self, rng: np.random.Generator, sheet: Sheet) -> None:
        """Write a number or a phrase up the margin, as archives and printers do."""
        face, size = self._shelf.pick(("sans", "serif", "typewriter")[rng.integers(3)], rng), int(rng.integers(10, 34))
        text = self._texts.number(rng) if rng.random() < 0.6 else self._texts.phrase(rng, 1, 4)
        size = min(size, int(0.05 * sheet.width))
        x = (0.005 * sheet.width, 0.99 * sheet.width - 1.2 * size)[rng.integers(2)]
        sheet.write_up(x, rng.uniform(0.4, 0.98) * sheet.height, text, face, size, books.dark_ink(rng))


def stamp(rng: np.random.Generator, sheet: Sheet) -> None:
    """Press a round or square seal on the sheet, left out of the loss: whether it holds lines is a matter of taste."""
    radius = rng.uniform(20, 70)
    x, y = rng.uniform(radius, sheet.width - radius), rng.uniform(radius, sheet.height - radius)
    colour = ((200, 40, 50), (60, 60, 160), (90, 30, 110))[rng.integers(3)]
    place = (x - radius, y - radius, x + radius, y + radius)
    draw = sheet.pen.ellipse if rng.random() < 0.6 else sheet.pen.rectangle
    draw(place, outline=colour, width=int(rng.integers(2, 5)))
    for row in range(-1, 2):  # strokes that look like writing
        for stroke in np.arange(-0.6, 0.6, 0.12):
            a = (x + stroke * radius, y + row * 0.35 * radius)
            sheet.pen.line((*a, a[0] + rng.uniform(-6, 6), a[1] + rng.uniform(3, 9)), fill=colour, width=2)
    sheet.ignore(rectangle(*place))


def clip_lines(lines: list[Line], width: int, height: int) -> list[Line]:
    """Return the lines cut to the picture, without those that are outside or nearly so."""
    inside = []
    for line in lines:
        polygon = _part_within(line.polygon, width, height)
        if len(polygon) and (np.ptp(polygon, axis=0) >= MIN_EXTENT).all():
            inside.append(Line(polygon, line.text))
    return inside


def _part_within(polygon: npt.NDArray[np.float32], width: int, height: int) -> npt.NDArray[np.float32]:
    """Return the largest part of a polygon within the picture, shape (N, 2); without points where there is none."""
    if (polygon >= 0).all() and (polygon <= (width, height)).all():
        return polygon
    # An intersection, since clipped corners would turn the outline away from its letters.
    cut = shapely.intersection(shapely.buffer(shapely.Polygon(polygon), 0), shapely.box(0, 0, width, height))
    largest = max(shapely.get_parts(cut), key=shapely.area, default=shapely.Polygon())
    return np.asarray(shapely.get_coordinates(shapely.get_exterior_ring(largest))[:-1], np.float32)


def write_page(folder: Path, name: str, picture: npt.NDArray[np.uint8], lines: list[Line], quality: int) -> None:
    """Write `images/NAME.jpg` and `gts/gt_NAME.txt`, the truth last: a page counts once it has one."""
    for part in ("images", "gts"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    partial = folder / "images" / f"{name}.partial.jpg"
    cv2.imwrite(str(partial), picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    partial.replace(folder / "images" / f"{name}.jpg")
    write_lines(folder / "gts" / f"gt_{name}.txt", lines)


@errors_told()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to, made if missing")
    parser.add_argument("--layouts", type=Path, required=True, help="folder of gt_*.txt of Chinese pages")
    parser.add_argument("--documents", type=Path, help="folder of PDF files, for the kind print (default: none of it)")
    parser.add_argument(
        "--photographs", type=Path, help="folder of pictures without text, for signs, posters and streets"
    )
    parser.add_argument("--fonts", type=Path, help="folder of fonts beside Debian's, FAMILY/PACKAGE/*.ttf")
    parser.add_argument("--count", type=int, default=2000, help="pages in the folder in the end (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="page N depends on it and N alone (default: %(default)s)")
    parser.add_argument("--kind", choices=list(SHARES), help="one kind only (default: all, by share)")
    parser.add_argument("--words", action="store_true", help="truth of words in the kind print, to measure coverage by")
    cv2.setNumThreads(1)
    fill_pool(parser.parse_args())


def fill_pool(arguments: argparse.Namespace) -> None:
    """Make the pages that are not there yet."""
    maker = PageMaker(
        arguments.layouts, arguments.documents, arguments.photographs, words=arguments.words, fonts=arguments.fonts
    )
    for number in range(arguments.count):
        name = f"{arguments.seed}_{number:05}"
        if (arguments.out / "gts" / f"gt_{name}.txt").exists():
            continue
        rng = np.random.default_rng((arguments.seed, number))
        picture, lines = maker.make(rng, arguments.kind)
        lines = clip_lines(lines, picture.shape[1], picture.shape[0])
        write_page(arguments.out, name, picture, lines, int(rng.integers(35, 96)))


if __name__ == "__main__":
    main()
