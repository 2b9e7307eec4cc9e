"""Fonts and word lists of Debian packages, by what they look like."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ImageFont

from dbcpu.errors import UsageError

FONT_ROOT = Path("/usr/share/fonts")
DICTIONARY_ROOT = Path("/usr/share/dict")


class FontFiles(NamedTuple):
    """Files of one Debian package under `FONT_ROOT`; `indices` are the faces of a collection."""

    package: str
    pattern: str
    indices: tuple[int, ...] = (0,)


# What a page kind asks for -> the files it may get.
FAMILIES: dict[str, tuple[FontFiles, ...]] = {
    "serif": (
        FontFiles("fonts-liberation", "truetype/liberation/LiberationSerif-*.ttf"),
        FontFiles("fonts-dejavu-core", "truetype/dejavu/DejaVuSerif*.ttf"),
        FontFiles("fonts-ebgaramond", "opentype/ebgaramond/EBGaramond12-*.otf"),
        FontFiles("fonts-junicode", "opentype/junicode/*.otf"),
        FontFiles("fonts-oldstandard", "truetype/fonts-oldstandard/*.ttf"),
        FontFiles("fonts-linuxlibertine", "opentype/linux-libertine/LinLibertine_R*.otf"),
        FontFiles("fonts-cmu", "truetype/cmu/cmun[rbt][mxi].ttf"),
    ),
    "sans": (
        FontFiles("fonts-liberation", "truetype/liberation/LiberationSans*.ttf"),
        FontFiles("fonts-dejavu-core", "truetype/dejavu/DejaVuSans*.ttf"),
        FontFiles("fonts-lato", "truetype/lato/Lato-*.ttf"),
        FontFiles("fonts-open-sans", "truetype/open-sans/*.ttf"),
        FontFiles("fonts-roboto-unhinted", "truetype/roboto/**/*.ttf"),
    ),
    "typewriter": (
        FontFiles("fonts-courier-prime", "opentype/courier-prime/*.otf"),
        FontFiles("fonts-gnutypewriter", "truetype/gnutypewriter/*.ttf"),
        FontFiles("fonts-liberation", "truetype/liberation/LiberationMono-*.ttf"),
        FontFiles("fonts-cmu", "truetype/cmu/cmuntt.ttf"),
    ),
    "receipt": (
        FontFiles("fonts-inconsolata", "truetype/inconsolata/*.otf"),
        FontFiles("fonts-ocr-a", "truetype/ocr-a/*.ttf"),
        FontFiles("fonts-ocr-b", "**/OCRB*.otf"),
        FontFiles("fonts-b612", "opentype/b612/*.otf"),
        FontFiles("fonts-anonymous-pro", "truetype/anonymous-pro/*.ttf"),
        FontFiles("fonts-dejavu-core", "truetype/dejavu/DejaVuSansMono*.ttf"),
        FontFiles("fonts-liberation", "truetype/liberation/LiberationSans*.ttf"),
    ),
    "hand": (
        FontFiles("fonts-dancingscript", "**/Dancing*.otf"),
        FontFiles("fonts-bwht", "opentype/bwht/*.otf"),
        FontFiles("fonts-breip", "**/[Bb]reip*.*tf"),
        FontFiles("fonts-kristi", "truetype/kristi/Kristi.ttf"),
        FontFiles("fonts-femkeklaver", "truetype/femkeklaver/femkeklaver.ttf"),
        FontFiles("fonts-dkg-handwriting", "**/dkg*.ttf"),
        FontFiles("fonts-ecolier-court", "truetype/ecolier-court/*.ttf"),
        FontFiles("fonts-isabella", "truetype/isabella/*.ttf"),
        FontFiles("fonts-joscelyn", "opentype/joscelyn/*.otf"),
        FontFiles("fonts-rufscript", "truetype/rufscript/*.ttf"),
        FontFiles("fonts-sjfonts", "truetype/sjfonts/*.ttf"),
    ),
    "display": (
        FontFiles("fonts-bebas-neue", "**/BebasNeue*.otf"),
        FontFiles("fonts-lobster", "**/[Ll]obster*.otf"),
        FontFiles("fonts-lato", "truetype/lato/Lato-Black*.ttf"),
        FontFiles("fonts-roboto-unhinted", "truetype/roboto/**/*Condensed*.ttf"),
        FontFiles("fonts-linuxlibertine", "opentype/linux-libertine/LinBiolinum_RB*.otf"),
        FontFiles("fonts-aenigma", "truetype/aenigma/*.ttf"),
        FontFiles("fonts-cabinsketch", "truetype/cabinsketch/*.ttf"),
        FontFiles("fonts-comfortaa", "truetype/comfortaa/*.ttf"),
        FontFiles("fonts-comic-neue", "opentype/comic-neue/*.otf"),
        FontFiles("fonts-dustin", "truetype/dustin/*.ttf"),
        FontFiles("fonts-kaushanscript", "opentype/kaushanscript/*.otf"),
        FontFiles("fonts-league-spartan", "opentype/league-spartan/*.otf"),
        FontFiles("fonts-leckerli-one", "truetype/leckerli-one/*.ttf"),
        FontFiles("fonts-lobstertwo", "opentype/lobstertwo/*.otf"),
        FontFiles("fonts-okolaks", "truetype/okolaks/*.ttf"),
        FontFiles("fonts-play", "opentype/play/*.otf"),
        FontFiles("fonts-roadgeek", "truetype/roadgeek/*.ttf"),
        FontFiles("fonts-urw-base35", "opentype/urw-base35/*Bold*.otf"),
        FontFiles("fonts-yanone-kaffeesatz", "opentype/yanone-kaffeesatz/*.otf"),
    ),
    "symbol": (FontFiles("fonts-font-awesome", "opentype/font-awesome/FontAwesome.otf"),),
    "cjk_print": (
        FontFiles("fonts-noto-cjk", "opentype/noto/NotoSerifCJK-*.ttc", (0, 2, 3)),
        FontFiles("fonts-noto-cjk", "opentype/noto/NotoSansCJK-*.ttc", (0, 2, 3)),
        FontFiles("fonts-arphic-uming", "truetype/arphic/uming.ttc"),
        FontFiles("fonts-oradano-mincho-gsrr", "truetype/oradano-mincho/*.ttf"),
        FontFiles("fonts-hanazono", "truetype/hanazono/HanaMinA.ttf"),
    ),
    "cjk_brush": (
        FontFiles("fonts-arphic-ukai", "truetype/arphic/ukai.ttc"),
        FontFiles("fonts-lxgw-wenkai", "truetype/lxgw-wenkai/LXGWWenKai-*.ttf"),
        FontFiles("fonts-klee", "truetype/klee/*.ttf"),
        FontFiles("fonts-kouzan-mouhitsu", "truetype/kouzan-mouhitsu/*.ttf"),
        FontFiles("fonts-aoyagi-kouzan-t", "truetype/aoyagi-kouzan-t/*.ttf"),
        FontFiles("fonts-aoyagi-soseki", "**/aoyagi-soseki*.*tf"),
        FontFiles("fonts-seto", "truetype/seto/setofont.ttf"),
    ),
    "cjk_display": (
        FontFiles("fonts-cherrybomb", "opentype/cherrybomb/*.otf"),
        FontFiles("fonts-cwtex-heib", "truetype/cwtex/cwheib.ttf"),
        FontFiles("fonts-cwtex-yen", "truetype/cwtex/cwyen.ttf"),
        FontFiles("fonts-dotgothic16", "truetype/dotgothic16/*.ttf"),
        FontFiles("fonts-motoya-l-maruberi", "truetype/motoya-l-maruberi/*.ttf"),
        FontFiles("fonts-noto-cjk", "opentype/noto/NotoSansCJK-Bold.ttc", (0, 2, 3)),
        FontFiles("fonts-rampart", "truetype/rampart/*.ttf"),
        FontFiles("fonts-reggae", "truetype/reggae/*.ttf"),
        FontFiles("fonts-rocknroll", "truetype/rocknroll/*.ttf"),
        FontFiles("fonts-smiley-sans", "truetype/smiley-sans/*.ttf"),
        FontFiles("fonts-stick", "truetype/stick/*.ttf"),
        FontFiles("fonts-wqy-zenhei", "truetype/wqy/wqy-zenhei.ttc"),
        FontFiles("fonts-yusei-magic", "truetype/yusei-magic/*.ttf"),
    ),
}
WORD_LISTS = {
    "wamerican": "american-english",
    "wfrench": "french",
    "wngerman": "ngerman",
    "wspanish": "spanish",
    "witalian": "italian",
}


@dataclass(frozen=True)
class Face:
    """One face of a font file."""

    path: str
    index: int


def find_faces(more: Path | None = None) -> dict[str, list[list[Face]]]:
    """Return, for each family, the faces of each of its packages.

    Args:
        more: folder of further fonts, `FAMILY/PACKAGE/*.ttf`.

    Raises:
        UsageError: packages are not installed, all of them are named; or a folder of `more` is not named as a family.
    """
    found: dict[str, list[list[Face]]] = {}
    missing = {package for package, name in WORD_LISTS.items() if not (DICTIONARY_ROOT / name).exists()}
    for family, sets in FAMILIES.items():
        found[family] = []
        for files in sets:
            paths = sorted(str(path) for path in FONT_ROOT.glob(files.pattern))
            if paths:
                found[family].append([Face(path, index) for path in paths for index in files.indices])
            else:
                missing.add(files.package)
    if missing:
        raise UsageError(
            f"fonts or word lists are not installed: {', '.join(sorted(missing))}",
            where=FONT_ROOT,
            remedy=f"apt-get install --no-install-recommends {' '.join(sorted(missing))}",
        )
    for folder in _list_families(more) if more else ():
        for package in sorted(folder.iterdir()):
            faces = [Face(str(path), 0) for path in sorted(package.glob("*.[to]tf"))]
            if faces:
                found[folder.name].append(faces)
    return found


def _list_families(folder: Path) -> list[Path]:
    families = list(folder.iterdir()) if folder.is_dir() else []
    if not families or {family.name for family in families} - FAMILIES.keys():
        raise UsageError(
            f"the folder of fonts should hold folders named {', '.join(FAMILIES)}, and nothing else", where=folder
        )
    return families


class FontShelf:
    """Hands out fonts; every package of a family is as likely as the others, however many faces it has.

    Args:
        more: see `find_faces`.
    """

    def __init__(self, more: Path | None = None) -> None:
        self._faces = find_faces(more)

    def pick(self, family: str, rng: np.random.Generator) -> Face:
        """Return a face of `family`, a key of `FAMILIES`."""
        package = self._faces[family][rng.integers(len(self._faces[family]))]
        return package[rng.integers(len(package))]


@lru_cache(maxsize=512)
def open_font(face: Face, size: int) -> ImageFont.FreeTypeFont:
    """Return the face at `size` pixels per em."""
    return ImageFont.truetype(face.path, size, index=face.index)


@lru_cache(maxsize=200_000)
def has_glyph(face: Face, character: str) -> bool:
    """Whether the face draws the character as more than nothing or its replacement box."""
    font = open_font(face, 20)
    drawn = bytes(font.getmask(character))
    return any(drawn) and drawn != bytes(font.getmask("\U0010fffe"))
