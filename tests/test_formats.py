from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import re
import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import html5lib
import numpy as np
import numpy.typing as npt
import pytest
from helpers import run_cli
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from lxml import etree
from pycocotools.coco import COCO
from shapely import Polygon

from dbcpu.errors import UsageError
from dbcpu.geometry import Size
from dbcpu.result import DetectionResult, TextInstance
from dbcpu.writers.contact_sheet import SheetPage, contact_sheet, draw_thumbnail
from dbcpu.writers.crops import crop_instance
from dbcpu.writers.formats import PAGE_FORMATS, RUN_FORMATS, page_formats
from dbcpu.writers.json_document import json_document, json_line, read_json_document
from dbcpu.writers.markup import box_around, outline_inside

SIZE = Size(100, 200)
QUAD = [[10, 20], [110, 20], [110, 50], [10, 50]]
AT_THE_EDGE = [[150, 90], [200, 90], [200, 100], [150, 100]]
DEGENERATE = ([[5, 5]] * 3, [[200, 100]] * 4, [[0, 60], [30, 60], [60, 60]], [[0, 0], [9, 9], [9, 0], [0, 9]])
# What no markup and no file system in its right mind carries, but Linux does.
ODD_NAME = 'a/\udcff\x01 "頁" <b>&amp;\n; \'.jpg'

polygons = hnp.arrays(np.float32, st.tuples(st.integers(3, 12), st.just(2)), elements=st.floats(-5, 210, width=32))
# The synthetic weights were never trained: their maps are noise, of which these settings find some pieces.
NOISE = ("--short-side", 96, "--binarize-threshold", 0.9, "--score-threshold", 0.05)


def _result(*outlines: object, image: str = "page.jpg", size: Size = SIZE) -> DetectionResult:
    return DetectionResult(
        image=image,
        page=1,
        image_size=size,
        instances=tuple(TextInstance(polygon=np.array(p, np.float32), score=0.75) for p in outlines),
        truncated=False,
        model="final",
        settings={"shape": "quad"},
    )


RESULTS = {
    "usual": _result(QUAD, AT_THE_EDGE),
    "empty": _result(),
    "degenerate": _result(*DEGENERATE),
    "odd name": _result(QUAD, image=ODD_NAME),
    "one pixel": _result([[0, 0], [1, 0], [1, 1]], size=Size(1, 1)),
}


@pytest.fixture(params=RESULTS)
def result(request: pytest.FixtureRequest) -> DetectionResult:
    return RESULTS[request.param]


@pytest.fixture(scope="session")
def validate(shared: Path) -> Callable[[str, str], etree._Element]:
    """Parse a document and hold it against one of the published schemas."""
    schemas = {name: etree.XMLSchema(etree.parse(shared / "schemas" / name)) for name in SCHEMAS.values()}

    def against(schema: str, document: str) -> etree._Element:
        root = etree.fromstring(document.encode())
        schemas[schema].assertValid(root)
        return root

    return against


SCHEMAS = {"page-xml": "pagecontent.xsd", "alto": "alto-4-3.xsd"}
Validate = Callable[[str, str], etree._Element]


@pytest.mark.parametrize("name", SCHEMAS)
def test_xml_is_valid_by_its_published_schema(name: str, result: DetectionResult, validate: Validate):
    root = validate(SCHEMAS[name], PAGE_FORMATS[name].write(result))
    assert len(root.findall(".//{*}TextLine")) == len(result.instances)


def _points(text: str) -> list[list[int]]:
    return [[int(value) for value in point.split(",")] for point in text.split()]


def test_page_xml_carries_outlines_scores_and_the_picture():
    root = etree.fromstring(PAGE_FORMATS["page-xml"].write(RESULTS["usual"]).encode())
    page = root.find("{*}Page")
    assert (page.get("imageFilename"), page.get("imageWidth"), page.get("imageHeight")) == ("page.jpg", "200", "100")
    region, first, second = (coords.get("points") for coords in root.iter("{*}Coords"))
    assert _points(region) == [[10, 20], [199, 20], [199, 99], [10, 99]]
    assert _points(first) == QUAD
    assert _points(second) == [[150, 90], [199, 90], [199, 99], [150, 99]]
    assert [coords.get("conf") for coords in root.iterfind(".//{*}TextLine/{*}Coords")] == ["0.7500"] * 2


def test_alto_carries_outlines_and_boxes_inside_the_page():
    root = etree.fromstring(PAGE_FORMATS["alto"].write(RESULTS["usual"]).encode())
    assert root.findtext(".//{*}fileName") == "page.jpg"
    first, second = root.iterfind(".//{*}TextLine")
    assert [first.get(name) for name in ("HPOS", "VPOS", "WIDTH", "HEIGHT")] == ["10", "20", "101", "31"]
    assert [second.get(name) for name in ("HPOS", "VPOS", "WIDTH", "HEIGHT")] == ["150", "90", "50", "10"]
    assert _points(first.find(".//{*}Polygon").get("POINTS")) == QUAD


def test_hocr_is_html_and_xml_alike_and_passes_hocr_check(tmp_path: Path, result: DetectionResult):
    document = PAGE_FORMATS["hocr"].write(result)
    as_html = html5lib.HTMLParser(strict=True).parse(document)
    as_xml = etree.fromstring(document.encode())
    for root in (as_html, as_xml):
        lines = [line for line in root.iter("{http://www.w3.org/1999/xhtml}span") if line.get("class") == "ocr_line"]
        assert len(lines) == len(result.instances)
    (tmp_path / "page.hocr").write_text(document, encoding="utf-8")
    check = Path(sysconfig.get_path("scripts")) / "hocr-check"
    # Without its test for overlaps, which is about the page and not about the format.
    done = subprocess.run([check, "-o", tmp_path / "page.hocr"], capture_output=True, text=True, check=True)
    assert done.stderr.count("ok ") >= 3
    assert "not ok" not in done.stderr


def test_hocr_carries_boxes_and_outlines():
    document = PAGE_FORMATS["hocr"].write(RESULTS["usual"])
    assert "bbox 10 20 111 51; poly 10 20 110 20 110 50 10 50" in document
    assert "image &quot;page.jpg&quot;; bbox 0 0 200 100; ppageno 0" in document


def test_tabs_and_line_breaks_in_names_survive_markup():
    odd = _result(QUAD, image="a\tb\nc\rd.jpg")
    alto, page_xml, hocr = (
        etree.fromstring(PAGE_FORMATS[name].write(odd).encode()) for name in ("alto", "page-xml", "hocr")
    )
    assert alto.findtext(".//{*}fileName") == odd.image
    assert page_xml.find("{*}Page").get("imageFilename") == odd.image
    title = hocr.find(".//{*}div[@class='ocr_page']").get("title")
    assert title == 'image "a%09b%0Ac%0Dd.jpg"; bbox 0 0 200 100; ppageno 0'


def test_coco_is_read_by_pycocotools(tmp_path: Path):
    path = tmp_path / RUN_FORMATS["coco"].file_name
    path.write_text("".join(RUN_FORMATS["coco"].write(RESULTS.values())), encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO(path)
    assert [image["file_name"] for image in dataset.imgs.values()] == [r.image for r in RESULTS.values()]
    assert [category["name"] for category in dataset.cats.values()] == ["text"]
    for image_id, result in enumerate(RESULTS.values(), start=1):
        annotations = dataset.loadAnns(dataset.getAnnIds(imgIds=image_id))
        assert len(annotations) == len(result.instances)
        for annotation in annotations:
            mask = dataset.annToMask(annotation)
            assert mask.shape == result.image_size
            assert abs(int(mask.sum()) - annotation["area"]) <= 0.1 * annotation["area"] + 1
    assert dataset.anns[1]["bbox"] == [10, 20, 100, 30]
    assert dataset.anns[1]["score"] == 0.75


def test_a_run_without_pages_is_a_valid_dataset():
    document = json.loads("".join(RUN_FORMATS["coco"].write([])))
    assert (document["images"], document["annotations"]) == ([], [])


def test_labelme_files_have_the_fields_its_loader_asks_for(result: DetectionResult):
    document = json.loads(PAGE_FORMATS["labelme"].write(result))
    size = (document["imageHeight"], document["imageWidth"])
    assert (size, document["imagePath"], document["imageData"]) == (result.image_size, result.image, None)
    assert {"version", "flags"} < document.keys()
    assert len(document["shapes"]) == len(result.instances)
    for shape in document["shapes"]:
        assert (shape["label"], shape["shape_type"], shape["group_id"]) == ("text", "polygon", None)
        assert all(0 <= x <= size[1] - 1 and 0 <= y <= size[0] - 1 for x, y in shape["points"])


def test_labelme_loads_its_files(tmp_path: Path):
    loader = pytest.importorskip("labelme._label_file", reason="needs labelme, which brings Qt")
    cv2.imwrite(str(tmp_path / "page.jpg"), np.zeros(SIZE, np.uint8))
    path = tmp_path / "page.labelme.json"
    path.write_text(PAGE_FORMATS["labelme"].write(RESULTS["usual"]), encoding="utf-8")
    first, second = loader.LabelFile(str(path)).shapes
    assert first["points"] == QUAD
    assert second["other_data"] == {"score": 0.75}


def test_csv_gives_one_row_an_instance_below_one_heading():
    text = "".join(RUN_FORMATS["csv"].write([*RESULTS.values()])).encode().decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == sum(len(result.instances) for result in RESULTS.values())
    assert rows[0] == {
        "image": "page.jpg",
        "page": "1",
        "instance": "1",
        "score": "0.75",
        "left": "10",
        "top": "20",
        "width": "101",
        "height": "31",
        "polygon": "10,20 110,20 110,50 10,50",
    }
    assert PAGE_FORMATS["csv"].write(RESULTS["empty"]).count("\n") == 1


def test_json_lines_are_one_line_a_page():
    text = "".join(RUN_FORMATS["jsonl"].write(RESULTS.values()))
    assert [json.loads(line)["image"] for line in text.splitlines()] == [r.image for r in RESULTS.values()]


@given(polygon=polygons, size=st.tuples(st.integers(1, 300), st.integers(1, 300)))
def test_outlines_are_valid_polygons_inside_the_picture(polygon: npt.NDArray[np.float32], size: tuple[int, int]):
    height, width = size
    outline = outline_inside(polygon, Size(height, width))
    assert all(0 <= x < width and 0 <= y < height for x, y in outline)
    box = box_around([outline])
    assert (box.width >= 1, box.height >= 1) == (True, True)
    if min(size) > 1:
        assert Polygon(outline).is_valid
        assert Polygon(outline).area > 0


def test_no_two_formats_write_the_same_file():
    names = [page_format.file_name(Path("page")).name for page_format in PAGE_FORMATS.values()]
    assert len(set(names)) == len(names)


def test_an_unknown_format_is_refused_with_the_known_ones():
    assert [f.name for f in page_formats("alto, json,alto")] == ["alto", "json"]
    with pytest.raises(UsageError, match=r"no format 'pdf'.*page-xml"):
        page_formats("json,pdf")


def test_the_crop_of_an_upright_box_is_that_part_of_the_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    np.testing.assert_array_equal(crop_instance(pixels, np.array(QUAD, np.float32)), pixels[20:50, 10:110])


@pytest.mark.parametrize("angle", [-40, -10, 0, 10, 40])
@pytest.mark.parametrize("first", range(4))
def test_crops_are_straightened_whatever_corner_comes_first(angle: float, first: int):
    upright = np.zeros((60, 240, 3), np.uint8)
    upright[:, :120] = (0, 0, 255)
    upright[:30, 120:] = (0, 255, 0)
    turn = np.vstack([cv2.getRotationMatrix2D((120, 30), angle, 1), [0, 0, 1]])
    turn[:2, 2] += (100, 200)
    pixels = np.asarray(cv2.warpPerspective(upright, turn, (450, 450)), np.uint8)
    corners = cv2.perspectiveTransform(np.array([[[0, 0], [240, 0], [240, 60], [0, 60]]], np.float32), turn)[0]
    crop = crop_instance(pixels, np.roll(corners, first, axis=0))
    assert crop.shape == upright.shape
    assert (np.abs(crop[10:20, 10:110] - (0, 0, 255)) <= 2).all()
    assert (np.abs(crop[10:20, 130:230] - (0, 255, 0)) <= 2).all()
    assert (crop[40:50, 130:230] <= 2).all()


def test_vertical_crops_stand_unless_turned_top_to_the_left():
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[10:30, 10:30] = 255
    column = np.array([[10, 10], [30, 10], [30, 90], [10, 90]], np.float32)
    assert crop_instance(pixels, column).shape == (80, 20, 3)
    turned = crop_instance(pixels, column, rotate_vertical=True)
    assert turned.shape == (20, 80, 3)
    assert (turned[:, :18] == 255).all()
    assert (turned[:, 22:] == 0).all()


@pytest.mark.parametrize("polygon", [QUAD, AT_THE_EDGE, *DEGENERATE, [[0, 0], [199, 0], [199, 99], [100, 99], [0, 99]]])
def test_every_instance_has_a_crop(polygon: list[list[float]]):
    crop = crop_instance(np.zeros((*SIZE, 3), np.uint8), np.array(polygon, np.float32))
    assert crop.ndim == 3
    assert crop.size > 0


def test_a_crop_longer_than_opencv_can_warp_is_cut_as_it_stands():
    pixels = np.zeros((4, 40_000, 3), np.uint8)
    assert crop_instance(pixels, np.array([[0, 1], [40_000, 1], [40_000, 3], [0, 3]])).shape == (2, 40_000, 3)


def test_the_contact_sheet_is_valid_html_that_loads_nothing_from_elsewhere():
    page = SheetPage(name="odd name", picture="over/\udcff #1.png", thumbnail="a:b.jpg", instances=1, lowest_score=0.5)
    failed = SheetPage(name="x", error="<truncated> & gone")
    document = "".join(contact_sheet([page, failed, SheetPage(name="blank", picture="b.png")], title="<Scans>"))
    root = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(document)
    assert not re.search(r"https?:|//\w", document.replace("// ", ""))
    items = list(root.iter("li"))
    assert [item.get("class") for item in items] == [None, "failed", None]
    assert [item.get("data-count") for item in items] == ["1", None, "0"]
    assert items[0].find("a").get("href") == "./over/%FF%20%231.png"
    assert items[0].find(".//img").get("src") == "./a%3Ab.jpg"
    assert items[0].find(".//img").get("loading") == "lazy"
    assert items[1].find(".//small").text == "<truncated> & gone"


def test_the_contact_sheet_takes_pages_as_they_come():
    endless = (SheetPage(name=str(number)) for number in itertools.count())
    pieces = contact_sheet(endless, title="x")
    assert len([next(pieces) for _ in range(5)]) == 5


@pytest.mark.parametrize(("size", "small"), [((1000, 500), (384, 192)), ((1, 2000), (1, 384)), ((20, 30), (20, 30))])
def test_thumbnails_are_small_jpegs(size: tuple[int, int], small: tuple[int, int]):
    data = draw_thumbnail(np.zeros((*size, 3), np.uint8))
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (*small, 3)


def test_a_result_that_was_written_is_read_back():
    for result in RESULTS.values():
        for written in (json_document(result), json_line(result)):
            assert json_document(read_json_document(written)) == json_document(result)
    for other in ("{}", "[]", '{"instances": [1]}'):
        with pytest.raises(ValueError, match="not the result"):
            read_json_document(other)


def test_a_thumbnail_shows_the_outlines():
    plain, marked = (
        cv2.imdecode(np.frombuffer(draw_thumbnail(np.full((*SIZE, 3), 255, np.uint8), result), np.uint8), 1)
        for result in (None, RESULTS["usual"])
    )
    assert plain.min() > 250
    assert marked.min() < 100


def test_detect_writes_every_format_and_the_crops(
    tmp_path: Path, page: Path, make_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    weights = make_checkpoint("deformable_resnet18", "legacy")
    formats = ("--format", ",".join(PAGE_FORMATS), "-o", "out/results")
    code, out, err = run_cli("detect", page.name, "--weights", weights, *NOISE, *formats, "--crops", "out/crops")
    assert (code, out, err) == (0, "", "")
    names = sorted(path.name for path in Path("out/results").iterdir())
    assert names == sorted(page_format.file_name(Path("page")).name for page_format in PAGE_FORMATS.values())
    instances = json.loads(Path("out/results/page.json").read_text())["instances"]
    assert instances
    crops = sorted(path.name for path in Path("out/crops/page").iterdir())
    assert crops == [f"{number:04d}.png" for number in range(1, len(instances) + 1)]
    linked = json.loads(Path("out/results/page.labelme.json").read_text())["imagePath"]
    assert (Path("out/results") / linked).resolve() == page


def test_detect_orders_instances_and_says_so(page: Path, make_checkpoint: Callable[..., Path]):
    weights = make_checkpoint("deformable_resnet18", "legacy")
    found, read = (
        json.loads(run_cli("detect", page, "--weights", weights, *NOISE, "--order", order)[1])
        for order in ("none", "ltr")
    )
    assert len(found["instances"]) > 1
    assert "order" not in found["settings"]
    assert read["settings"] == {**found["settings"], "order": "ltr"}
    assert sorted(map(str, read["instances"])) == sorted(map(str, found["instances"]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--format", "json,alto"), "several formats"),
        (("--format", "pdf"), "no format 'pdf'"),
        (("--format", "page-xml", "other.png"), "several pictures"),
        (("--rotate-crops",), "--crops"),
    ],
)
def test_results_that_would_mix_are_refused_before_any_work(arguments: tuple[str, ...], words: str):
    code, out, err = run_cli("detect", "page.png", "--weights", "none", *arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_documents_of_a_file_of_several_pages_need_a_folder(tmp_path: Path, make_checkpoint: Callable[..., Path]):
    path = tmp_path / "two.tif"
    cv2.imwritemulti(str(path), [np.zeros((40, 40, 3), np.uint8)] * 2)
    weights = make_checkpoint("deformable_resnet18", "legacy")
    code, out, err = run_cli("detect", path, "--weights", weights, *NOISE, "--format", "alto")
    assert (code, out) == (2, "")
    assert "-o" in err
    code, out, _ = run_cli("detect", path, "--weights", weights, *NOISE, "--format", "jsonl")
    assert (code, [json.loads(line)["page"] for line in out.splitlines()]) == (0, [1, 2])


def test_help_names_every_format_of_a_page():
    text = run_cli("detect", "--help")[1]
    assert [name for name in PAGE_FORMATS if name not in text] == []


def test_pages_beyond_the_first_keep_their_number():
    second = replace(RESULTS["usual"], page=2)
    assert 'PHYSICAL_IMG_NR="2"' in PAGE_FORMATS["alto"].write(second)
    assert "ppageno 1" in PAGE_FORMATS["hocr"].write(second)
