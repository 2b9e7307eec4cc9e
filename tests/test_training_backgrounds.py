"""Pictures without text that the training puts signs on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dbcpu.errors import UsageError
from scripts.train import backgrounds


@pytest.mark.parametrize("seed", range(3))
def test_a_collage_is_made_of_its_textures(tmp_path: Path, seed: int):
    for name, colour in (("red", (0, 0, 240)), ("blue", (240, 0, 0))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((90, 70, 3), colour, np.uint8))
    textures = [tmp_path / "blue.png", tmp_path / "red.png"]
    picture = backgrounds.make_collage(np.random.default_rng(seed), textures)
    assert min(picture.shape[:2]) >= 700
    assert picture[..., 1].max() == 0
    assert picture[..., 0].max() > 100
    assert picture[..., 2].max() > 100
    np.testing.assert_array_equal(picture, backgrounds.make_collage(np.random.default_rng(seed), textures))


def test_a_shop_shows_cut_outs_without_their_ground(tmp_path: Path):
    thing = np.zeros((200, 200, 4), np.uint8)
    cv2.circle(thing, (100, 100), 80, (0, 200, 0, 255), -1)
    path = tmp_path / "thing.png"
    cv2.imwrite(str(path), thing)
    rng = np.random.default_rng(3)  # a white ground
    picture = backgrounds.make_shop(rng, [path])
    black = (picture < 60).all(axis=2)
    green = (picture[..., 1] > 150) & (picture[..., 0] < 60)
    assert not black.any()
    assert 0.01 < green.mean() < 0.9
    cv2.imwrite(str(path), thing[..., :3])
    with pytest.raises(UsageError, match="no transparent ground"):
        backgrounds.make_shop(rng, [path])
