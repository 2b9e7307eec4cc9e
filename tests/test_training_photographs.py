"""Pictures without text, taken out of packages."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dbcpu.errors import UsageError
from scripts.train import photographs


def encode(size: tuple[int, int], colour: tuple[int, int, int] = (200, 40, 40)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG")
    return file.getvalue()


def test_pictures_are_taken_out_of_files_of_packages_by_use_and_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "game").mkdir()
    (tmp_path / "game/wall.jpg").write_bytes(encode((2000, 1500)))
    (tmp_path / "game/many pictures.rcc").write_bytes(b"qres" * 5 + encode((60, 40), (40, 200, 40)))
    rows = ["# use, kind, file", "train texture game/wall.jpg", "kept view game/many pictures.rcc#20"]
    (tmp_path / "list").write_text("\n".join(rows), encoding="utf-8")
    options = ["--out", str(tmp_path / "out"), "--list", str(tmp_path / "list")]
    monkeypatch.setattr("sys.argv", ["photographs", str(tmp_path), *options])
    photographs.main()
    found = {str(path.relative_to(tmp_path / "out")): path for path in (tmp_path / "out").rglob("*.jpg")}
    assert sorted(found) == ["kept/view/0001_many pictures.jpg", "train/texture/0000_wall.jpg"]
    with Image.open(found["train/texture/0000_wall.jpg"]) as wall:
        assert min(wall.size) == photographs.SHORT_SIDE
    with Image.open(found["kept/view/0001_many pictures.jpg"]) as view:
        assert view.size == (60, 40)
        np.testing.assert_allclose(view.getpixel((30, 20)), (40, 200, 40), atol=4)


def test_the_halves_of_a_panorama_become_views(tmp_path: Path):
    openexr = pytest.importorskip("OpenEXR", reason="optional: panoramas")
    light = np.full((200, 400, 3), 0.2, np.float32)
    light[:, 200:] = (2, 0.2, 0.2)
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    openexr.File(header, {"RGB": light}).write(str(tmp_path / "sky.exr"))
    text = b"export default 'base64," + base64.b64encode((tmp_path / "sky.exr").read_bytes()) + b"'"
    (tmp_path / "sky.js").write_bytes(text)
    for name in ("sky.exr", "sky.js"):
        left, right = (photographs.read_picture(tmp_path / name, part) for part in "01")
        assert min(left.size) == min(right.size) == photographs.PANORAMA_SIDE
        assert len(set(left.getpixel((300, 300)))) == 1
        red, green, _ = right.getpixel((300, 300))
        assert red > green + 50


@pytest.mark.parametrize(("name", "part"), [("none.jpg", ""), ("text.jpg", ""), ("text.jpg", "3")])
def test_a_picture_that_is_not_there_is_named(tmp_path: Path, name: str, part: str):
    (tmp_path / "text.jpg").write_text("no picture", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot read") as error:
        photographs.read_picture(tmp_path / name, part)
    assert name in str(error.value)


def test_every_picture_is_named_once_with_its_use_and_kind():
    rows = [row.split(maxsplit=2) for row in photographs.LIST.read_text(encoding="utf-8").splitlines()[2:]]
    assert {row[0] for row in rows} == {"train", "kept"}
    assert {row[1] for row in rows} == {"view", "abstract", "texture"}
    assert len({row[2] for row in rows}) == len(rows)
