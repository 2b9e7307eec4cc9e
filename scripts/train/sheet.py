"""A sheet being written on: ink on white, and the outlines of the lines written so far."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from scripts.train.fonts import Face, open_font
from scripts.train.truth import IGNORED, Line, rectangle

Ink = tuple[int, int, int]
BLACK: Ink = (20, 20, 20)


class Sheet:
    """Ink on white, to be multiplied with a paper.

    Args:
        width: in pixels.
        height: in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.ink = Image.new("RGB", (width, height), (255, 255, 255))
        self.pen = ImageDraw.Draw(self.ink)
        self.lines: list[Line] = []

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Return what is written, uint8 (H, W, 3) BGR."""
        return cv2.cvtColor(np.asarray(self.ink), cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)

    def coverage(self) -> npt.NDArray[np.float32]:
        """Return how much light the ink takes, from 0 to 1, float32 (H, W, 3) BGR."""
        return np.asarray(1 - self.pixels().astype(np.float32) / 255, np.float32)

    @staticmethod
    def text_width(text: str, face: Face, size: int, spacing: float = 0.0) -> float:
        """Return the advance of `text`, with `spacing` pixels more between characters."""
        return float(open_font(face, size).getlength(text)) + spacing * max(len(text) - 1, 0)

    @staticmethod
    def ink_span(rows: Sequence[str], face: Face, size: int) -> tuple[float, float]:
        """Return how far below the top of a line of `write` the ink of any of the rows begins and ends, in pixels."""
        boxes = [open_font(face, size).getbbox(row) for row in rows]
        return float(min(box[1] for box in boxes)), float(max(box[3] for box in boxes))

    def write(
        self,
        x: float,
        y: float,
        text: str,
        face: Face,
        size: int,
        ink: Ink = BLACK,
        spacing: float = 0.0,
        align: float = 0.0,
    ) -> float:
        """Write a horizontal line with its top at y and its left edge, middle or right edge (align 0, 0.5, 1) at x.

        Return where it ends.
        A line that would leave the sheet is cut by the edge, and its outline with it.
        """
        font = open_font(face, size)
        if align:
            x -= align * self.text_width(text, face, size, spacing)
        if spacing:
            at, boxes = x, []
            for character in text:
                self.pen.text((at, y), character, font=font, fill=ink)
                if character != " ":
                    boxes.append(self.pen.textbbox((at, y), character, font=font))
                at += font.getlength(character) + spacing
            end = at - spacing
        else:
            self.pen.text((x, y), text, font=font, fill=ink)
            boxes = [self.pen.textbbox((x, y), text.rstrip(), font=font)] if text.strip() else []
            end = x + font.getlength(text)
        self._outline(boxes, text, 0.07 * size)
        return float(end)

    def write_beside(
        self, x: float, foot: float, parts: Sequence[tuple[str, int]], face: Face, ink: Ink = BLACK
    ) -> None:
        """Write one line from x on of texts of several sizes, all standing on the same foot."""
        boxes = []
        for text, size in parts:
            font = open_font(face, size)
            if text:
                self.pen.text((x, foot), text, font=font, fill=ink, anchor="ls")
                boxes.append(self.pen.textbbox((x, foot), text, font=font, anchor="ls"))
            x += font.getlength(text)
        self._outline(boxes, "".join(text for text, _ in parts), 0.06 * max(size for _, size in parts))

    def write_down(
        self, x: float, y: float, text: str, face: Face, size: int, pitch: float, ink: Ink = BLACK, jitter: float = 0.0
    ) -> float:
        """Write a vertical line, its characters centred on x, the first one's top at y; return where it ends."""
        font = open_font(face, size)
        boxes = []
        for number, character in enumerate(text):
            # A repeatable wobble: characters of a hand-cut block are not on one axis.
            wobble = jitter * size * np.sin(2.3 * number + 0.7 * x)
            place = (x + wobble, y + (number + 0.5) * pitch)
            self.pen.text(place, character, font=font, fill=ink, anchor="mm")
            boxes.append(self.pen.textbbox(place, character, font=font, anchor="mm"))
        self._outline(boxes, text, 0.06 * size)
        return y + len(text) * pitch

    def write_up(self, x: float, y: float, text: str, face: Face, size: int, ink: Ink = BLACK) -> None:
        """Write a line that reads upwards, its body's left edge at x, its first letter's foot at y."""
        font = open_font(face, size)
        left, top, right, bottom = map(int, font.getbbox(text.rstrip()))
        if right - left < 1 or bottom - top < 1:
            return
        drawn = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(drawn).text((-left, -top), text, font=font, fill=255)
        turned = drawn.transpose(Image.Transpose.ROTATE_90)
        corner = int(x + top), int(y - left - turned.height)
        self.ink.paste(ink, corner, turned)
        end = (corner[0] + turned.width, corner[1] + turned.height)
        self._outline([(float(corner[0]), float(corner[1]), float(end[0]), float(end[1]))], text, 0.07 * size)

    def write_bent(
        self, x: float, y: float, text: str, face: Face, size: int, curvature: float, wobble: npt.NDArray[np.float64]
    ) -> None:
        """Write one line along a circle, its middle at (x, y).

        Args:
            x: in pixels.
            y: in pixels.
            text: without spaces at its ends.
            face: of the font.
            size: in pixels per em.
            curvature: 1 / radius in pixels, not 0; positive bends the ends down, as along the top of a seal.
            wobble: how far each letter is below its place, in pixels, and turned, in radians, (letters, 2).
        """
        font, place = open_font(face, size), np.array([x, y])
        left, top, right, bottom = font.getbbox(text, anchor="ms")
        middle = (top + bottom) / 2  # from the foot of the letters
        start = -font.getlength(text) / 2
        for character, (lower, turn) in zip(text, wobble, strict=True):
            wide = font.getlength(character)
            at = start + wide / 2
            (foot,) = place + _bend(np.array([at]), lower - middle, curvature)
            half = size + round(wide)
            letter = Image.new("L", (2 * half, 2 * half))
            ImageDraw.Draw(letter).text((half, half), character, font=font, fill=255, anchor="ms")
            letter = letter.rotate(-np.degrees(at * curvature + turn), Image.Resampling.BICUBIC)
            self.ink.paste(BLACK, (round(foot[0]) - half, round(foot[1]) - half), letter)
            start += wide
        reach = 0.07 * size + 0.8 * np.abs(wobble[:, 0]).max()
        along = np.linspace(left - reach, right + reach, 2 + int(8 * abs(curvature) * (right - left)))
        edges = [
            _bend(along, top - middle - reach, curvature),
            _bend(along[::-1], bottom - middle + reach, curvature),
        ]
        outline = np.clip(place + np.concatenate(edges), 0, (self.width, self.height))
        self.lines.append(Line(outline.astype(np.float32), text))

    def rule(self, x0: float, y0: float, x1: float, y1: float, thickness: int = 1, ink: Ink = BLACK) -> None:
        """Draw a straight rule."""
        self.pen.line((x0, y0, x1, y1), fill=ink, width=thickness)

    def box(self, x0: float, y0: float, x1: float, y1: float, thickness: int = 1, ink: Ink = BLACK) -> None:
        """Draw a rectangle."""
        self.pen.rectangle((x0, y0, x1, y1), outline=ink, width=thickness)

    def ignore(self, polygon: npt.NDArray[np.float32]) -> None:
        """Leave a region out of the loss."""
        self.lines.append(Line(polygon.astype(np.float32), IGNORED))

    def _outline(self, boxes: list[tuple[float, float, float, float]], text: str, margin: float) -> None:
        if not boxes:
            return
        sides = np.array(boxes, np.float32)
        x0, y0 = np.maximum(sides[:, :2].min(axis=0) - margin, 0)
        x1, y1 = np.minimum(sides[:, 2:].max(axis=0) + margin, (self.width, self.height))
        if x1 - x0 > 3 and y1 - y0 > 3:
            self.lines.append(Line(rectangle(x0, y0, x1, y1), text))


def _bend(along: npt.NDArray[np.float64], below: float, curvature: float) -> npt.NDArray[np.float64]:
    """Return points (N, 2) that are `along` (N,) and `below` a line bent into a circle, from where it is level."""
    angle = along * curvature
    radius = 1 / curvature - below
    return np.stack([radius * np.sin(angle), 1 / curvature - radius * np.cos(angle)], axis=1)
