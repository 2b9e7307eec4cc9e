from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import shapely
from helpers import GOLDEN, run_cli
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dbcpu.evaluate import PageScore, Protocol, Tally, measure_overlaps, score_page, sweep_score_threshold
from dbcpu.truth import Detection, TruthInstance
from dbcpu.writers.verdicts import draw_verdicts

Points = Sequence[Sequence[float]]
Detected = tuple[Path, Path, tuple[object, ...]]
PROTOCOLS: list[Protocol] = ["iou", "deteval"]


def _box(left: float, top: float, width: float, height: float) -> Points:
    return [[left, top], [left + width, top], [left + width, top + height], [left, top + height]]


def _truth(points: Points, *, ignored: bool = False) -> TruthInstance:
    return TruthInstance(polygon=np.array(points, np.float64), ignored=ignored)


def _found(points: Points, score: float | None = None) -> Detection:
    return Detection(polygon=np.array(points, np.float64), score=score)


def _score(truths: Sequence[TruthInstance], detections: Sequence[Detection], protocol: Protocol) -> PageScore:
    return score_page(measure_overlaps(truths, detections), protocol)


def _figures(tally: Tally) -> tuple[float, float, float]:
    return tally.precision, tally.recall, tally.f


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pages_and_totals_are_those_of_the_original(protocol: Protocol):
    document = json.loads((GOLDEN / "evaluation.json").read_text(encoding="utf-8"))
    total = Tally()
    for page in document["images"]:
        truths = [_truth(truth["points"], ignored=truth["ignore"]) for truth in page["truth"]]
        tally = _score(truths, [_found(detection["points"]) for detection in page["detections"]], protocol).tally
        expected = page if protocol == "iou" else page["deteval"]
        assert _figures(tally) == pytest.approx(
            [expected[k] for k in ("precision", "recall", "hmean")], rel=0, abs=1e-12
        )
        if protocol == "iou":
            counts = (tally.recalled, tally.truths, tally.detections)
            assert counts == (page["matched"], page["truth_care"], page["detections_care"])
        total += tally
    expected = document["total" if protocol == "iou" else "total_deteval"]
    assert _figures(total) == pytest.approx([expected[k] for k in ("precision", "recall", "hmean")], rel=0, abs=1e-12)


LINE = _box(0, 0, 100, 20)
LEFT, RIGHT = _box(0, 0, 50, 20), _box(50, 0, 50, 20)


def test_a_line_found_in_two_halves_counts_at_a_discount_in_deteval_only():
    page = _score([_truth(LINE)], [_found(LEFT), _found(RIGHT)], "deteval")
    assert page.tally == Tally(truths=1, detections=2, recalled=0.8, precise=1.6)
    assert (page.truths, page.detections) == (("hit",), ("hit", "hit"))
    page = _score([_truth(LINE)], [_found(LEFT), _found(RIGHT)], "iou")
    assert page.tally == Tally(truths=1, detections=2)
    assert (page.truths, page.detections) == (("miss",), ("miss", "miss"))


def test_two_words_found_as_one_line_count_in_full_in_deteval_only():
    words = [_truth(LEFT), _truth(RIGHT)]
    assert _score(words, [_found(LINE)], "deteval").tally == Tally(truths=2, detections=1, recalled=2, precise=1)
    assert _score(words, [_found(LINE)], "iou").tally == Tally(truths=2, detections=1)


def test_iou_must_exceed_a_half_and_the_first_match_stays():
    exactly_half = _found(_box(0, 0, 100, 10))
    assert _score([_truth(LINE)], [exactly_half], "iou").detections == ("miss",)
    loose, exact = _found(_box(0, 0, 100, 12)), _found(LINE)
    assert _score([_truth(LINE)], [loose, exact], "iou").detections == ("hit", "miss")


@pytest.mark.parametrize(("protocol", "share"), [("iou", 0.5), ("deteval", 0.4)])
def test_a_detection_on_an_ignored_truth_does_not_count(protocol: Protocol, share: float):
    ignored = _truth(LINE, ignored=True)
    below, over = (_found(_box(100 * (1 - share) + shift, 0, 100, 20)) for shift in (0.01, -0.01))
    page = _score([ignored], [below, over], protocol)
    assert (page.truths, page.detections) == (("ignored",), ("miss", "ignored"))


def test_outlines_that_cross_themselves_take_no_part():
    crossed = [[0, 0], [100, 20], [100, 0], [0, 20]]
    page = _score([_truth(crossed), _truth(LINE)], [_found(crossed), _found(LINE)], "iou")
    assert (page.truths, page.detections) == (("ignored", "hit"), ("ignored", "hit"))
    assert page.tally == Tally(truths=1, detections=1, recalled=1, precise=1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pages_without_truths_or_detections_have_figures(protocol: Protocol):
    assert _figures(_score([], [], protocol).tally) == (1, 1, 1)
    assert _figures(_score([], [_found(LINE)], protocol).tally) == (0, 1, 0)
    assert _figures(_score([_truth(LINE)], [], protocol).tally) == (0, 0, 0)


_COORDINATE = st.integers(0, 40)
_QUADS = st.lists(
    st.builds(_box, _COORDINATE, _COORDINATE, st.integers(1, 30), st.integers(1, 30))
    | st.lists(st.tuples(_COORDINATE, _COORDINATE), min_size=3, max_size=6),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(truths=_QUADS, ignored=st.lists(st.booleans(), min_size=8, max_size=8), detections=_QUADS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_figures_are_shares_and_agree_with_the_verdicts(
    protocol: Protocol, truths: list[Points], ignored: list[bool], detections: list[Points]
):
    page = _score(
        [_truth(points, ignored=i) for points, i in zip(truths, ignored, strict=False)],
        [_found(points) for points in detections],
        protocol,
    )
    assert all(0 <= figure <= 1 for figure in _figures(page.tally))
    assert len(page.truths) - page.truths.count("ignored") == page.tally.truths
    assert len(page.detections) - page.detections.count("ignored") == page.tally.detections
    assert (page.truths.count("hit") == 0) == (page.tally.recalled == 0)
    if protocol == "iou":
        assert page.truths.count("hit") == page.detections.count("hit") == page.tally.recalled == page.tally.precise


@settings(max_examples=60, deadline=None)
@given(cells=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5))), ignored=st.booleans())
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_perfect_detections_give_1(protocol: Protocol, cells: set[tuple[int, int]], ignored: bool):
    boxes = [_box(10 * x, 10 * y, 9, 8) for x, y in cells]
    truths = [_truth(box, ignored=ignored and index == 0) for index, box in enumerate(boxes)]
    assert _figures(_score(truths, [_found(box) for box in boxes], protocol).tally) == (1, 1, 1)


@settings(max_examples=60, deadline=None)
@given(quads=_QUADS, detections=_QUADS)
def test_overlaps_are_those_of_every_pair(quads: list[Points], detections: list[Points]):
    overlaps = measure_overlaps([_truth(points) for points in quads], [_found(points) for points in detections])
    shapes = [[shapely.Polygon(points) for points in polygons] for polygons in (quads, detections)]
    expected = [
        (t, d, truth.intersection(found).area / truth.area, truth.intersection(found).area / truth.union(found).area)
        for t, truth in enumerate(shapes[0])
        for d, found in enumerate(shapes[1])
        if truth.is_valid and found.is_valid and truth.intersection(found).area > 0
    ]
    measured = np.stack([overlaps.truth, overlaps.detection, overlaps.recall, overlaps.iou], axis=1)
    np.testing.assert_allclose(measured, np.array(expected).reshape(-1, 4), rtol=0, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(truths=_QUADS, scored=st.lists(st.tuples(_QUADS, st.integers(0, 20)), max_size=4), threshold=st.integers(0, 20))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_threshold_is_the_same_as_leaving_detections_out(
    protocol: Protocol, truths: list[Points], scored: list[tuple[list[Points], int]], threshold: int
):
    detections = [_found(points, score / 20) for quads, score in scored for points in quads]
    above = [d for d in detections if d.score is not None and d.score >= threshold / 20]
    overlaps = measure_overlaps([_truth(points) for points in truths], detections)
    expected = _score([_truth(points) for points in truths], above, protocol).tally.f
    assert sweep_score_threshold([overlaps], protocol, [threshold / 20]) == [expected]


def test_verdicts_are_drawn_below_a_legend():
    picture = np.full((120, 160, 3), 255, np.uint8)
    truths, detections = [_truth(LINE), _truth(_box(0, 60, 100, 20))], [_found(LINE), _found(_box(0, 90, 100, 20))]
    score = _score(truths, detections, "iou")
    polygons = [[instance.polygon for instance in instances] for instances in (truths, detections)]
    drawn = draw_verdicts(picture, *polygons, score)
    legend = drawn.shape[0] - 120
    assert legend > 0
    assert (picture == 255).all()
    blue, green, red = drawn[legend + 70, 50].astype(int)  # inside the truth that was missed
    assert red > blue == green
    np.testing.assert_array_equal(drawn[legend + 10, 50], 255)  # inside the one that was found
    assert (drawn[:legend] < 128).any()


def test_outlines_that_reach_far_beyond_the_picture_are_drawn_as_fast():
    picture = np.full((120, 160, 3), 255, np.uint8)
    far = [_truth(_box(-1e10, -1e10, 2e10, 1e10 + 60)), _truth(_box(1e300, 1e300, 1, 1))]
    score = PageScore(tally=Tally(), truths=("miss", "ignored"), detections=())
    started = time.process_time()
    drawn = draw_verdicts(picture, [truth.polygon for truth in far], [], score)[-120:]
    assert time.process_time() - started < 1
    assert (drawn[30, 80] != 255).any()
    assert (drawn[90, 80] == 255).all()


def _write_set(folder: Path, pages: dict[str, Sequence[Points]]) -> Path:
    (folder / "gts").mkdir(parents=True)
    for stem, polygons in pages.items():
        lines = [",".join(str(v) for point in points for v in point) + ",14\n" for points in polygons]
        (folder / f"gts/gt_{stem}.txt").write_text("".join(lines), encoding="utf-8")
    return folder


def _write_detections(folder: Path, pages: dict[str, Sequence[tuple[Points, float]]]) -> Path:
    folder.mkdir(parents=True)
    for stem, instances in pages.items():
        document = {"instances": [{"polygon": points, "score": score} for points, score in instances]}
        (folder / f"{stem}.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return _write_set(tmp_path / "receipts", {"good": [LINE, _box(0, 40, 50, 20)], "bad": [LINE], "頁": []})


@pytest.fixture
def detections(tmp_path: Path) -> Path:
    right = [(LINE, 0.8), (_box(0, 40, 50, 20), 0.6), (_box(0, 80, 50, 20), 0.55)]
    return _write_detections(tmp_path / "found", {"good": right, "bad": [(_box(0, 50, 9, 9), 0.5)], "頁": []})


def test_the_table_shows_sets_and_on_request_pages(truth: Path, detections: Path):
    code, out, err = run_cli("evaluate", truth, "--detections", detections)
    assert (code, err) == (0, "")
    assert out == (
        "set       pages  truths  detections  precision  recall       F\n"
        "receipts      3       3           4     0.5000  0.6667  0.5714\n"
    )
    lines = run_cli("evaluate", truth, "--detections", detections, "--pages")[1].splitlines()
    assert lines[2:] == [
        "  bad                 1           1     0.0000  0.0000  0.0000",
        "  good                2           3     0.6667  1.0000  0.8000",
        "  頁                  0           0     1.0000  1.0000  1.0000",
    ]


def test_the_document_holds_the_same_unrounded(truth: Path, detections: Path):
    code, out, _ = run_cli("evaluate", truth, "--detections", detections, "--json", "--pages", "--protocol", "deteval")
    document = json.loads(out)
    assert (code, document["protocol"]) == (0, "deteval")
    (receipts,) = document["sets"]
    assert (receipts["name"], receipts["pages"], receipts["precision"], receipts["recall"]) == (
        "receipts",
        3,
        0.5,
        2 / 3,
    )
    assert [page["page"] for page in receipts["scores"]] == ["bad", "good", "頁"]


def test_every_set_has_its_row_and_its_detections(tmp_path: Path, truth: Path, detections: Path):
    other = _write_set(tmp_path / "other/receipts", {"p": [LINE]})
    found = _write_detections(tmp_path / "p", {"p": [(LINE, 1)]})
    code, out, _ = run_cli("evaluate", truth, other, "--detections", detections, "--detections", found)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == [str(truth), str(other)]
    assert out.splitlines()[2].endswith("1.0000")
    out = run_cli("evaluate", other, other, "--detections", found, "--detections", found, "--sweep")[1]
    assert [line.split("  ")[0] for line in out.splitlines()[1:3]] == [str(other), f"{other} #2"]
    assert run_cli("evaluate", truth, other, "--detections", detections)[0] == 2


def test_the_sweep_finds_the_threshold_that_divides_right_from_wrong(truth: Path, detections: Path):
    (truth / "gts/gt_bad.txt").write_text("", encoding="utf-8")
    out = run_cli("evaluate", truth, "--detections", detections, "--sweep")[1]
    (best,) = (line.split() for line in out.splitlines() if line.endswith("best"))
    assert best == ["0.56", "1.0000", "best"]  # wrong ones reach 0.55, right ones start at 0.6
    document = json.loads(run_cli("evaluate", truth, "--detections", detections, "--sweep", "--json")[1])["sweep"]
    assert document["best"] == {"score_threshold": 0.56, "f": {"receipts": 1.0}, "mean": 1.0}
    assert len(document["thresholds"]) == 100


def test_a_sweep_needs_scores(truth: Path, detections: Path):
    (detections / "bad.json").unlink()
    (detections / "res_bad.txt").write_text("0,0,100,0,100,20,0,20\n", encoding="utf-8")
    assert run_cli("evaluate", truth, "--detections", detections)[0] == 0
    code, _, err = run_cli("evaluate", truth, "--detections", detections, "--sweep")
    assert (code, err.splitlines()) == (2, ["dbcpu: error: bad: --sweep needs scores, and these detections have none"])


def test_the_worst_pages_are_drawn(tmp_path: Path, truth: Path, detections: Path):
    (truth / "images").mkdir()
    for stem in ("good", "bad", "頁"):
        (truth / f"images/{stem}.png").write_bytes(
            cv2.imencode(".png", np.full((120, 160), 255, np.uint8))[1].tobytes()
        )
    arguments = ("evaluate", truth, "--detections", detections, "--worst", tmp_path / "worst", "-n", 2)
    assert run_cli(*arguments)[0] == 0
    assert sorted(path.name for path in (tmp_path / "worst").iterdir()) == [
        "01_receipts_bad.png",
        "02_receipts_good.png",
    ]
    (truth / "images/bad.png").unlink()
    code, out, err = run_cli(*arguments)
    assert (code, len(err.splitlines())) == (5, 1)
    assert "receipts" in out


def test_the_worst_pages_with_the_longest_names_are_drawn_too(tmp_path: Path):
    stems = ["a" * 247, "頁" * 82]
    truth = _write_set(tmp_path / "receipts", {stem: [LINE] for stem in stems})
    found = _write_detections(tmp_path / "found", {stem: [(LINE, 1)] for stem in stems})
    (truth / "images").mkdir()
    for stem in stems:
        (truth / f"images/{stem}.png").write_bytes(cv2.imencode(".png", np.full((9, 9), 255, np.uint8))[1].tobytes())
    code, _, err = run_cli("evaluate", truth, "--detections", found, "--worst", tmp_path / "worst")
    assert (code, err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "worst").iterdir()) == [
        f"01_receipts_{'a' * 239}.png",
        f"02_receipts_{'頁' * 79}.png",
    ]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--weights", "final", "--detections", "found"], "exclude each other"),
        (["--detections", "found", "--min-side", 5], "no effect"),
        (["--detections", "found", "--no-asf"], "no effect"),
        (["--detections", "found", "--precision", "fp32"], "no effect"),
        (["--weights", "final", "--sweep", "--score-threshold", 0.5], "exclude each other"),
    ],
)
def test_options_that_do_not_go_together_are_refused(truth: Path, options: list[object], what: str):
    code, out, err = run_cli("evaluate", truth, *options)
    assert (code, out) == (2, "")
    assert what in err


def test_truth_that_cannot_be_read_ends_with_5(tmp_path: Path, truth: Path, detections: Path):
    (truth / "gts/gt_bad.txt").write_text("1,2,3\n", encoding="utf-8")
    code, out, err = run_cli("evaluate", truth, "--detections", detections)
    assert (code, out, len(err.splitlines())) == (5, "", 1)
    assert "gt_bad.txt, line 1" in err
    assert run_cli("evaluate", tmp_path / "none", "--detections", detections)[0] == 5


@pytest.fixture(scope="module")
def detected(
    tmp_path_factory: pytest.TempPathFactory, synthetic: ModuleType, make_checkpoint: Callable[..., Path]
) -> Detected:
    """A set of one picture, to be shown turned, what is found on it as it is stored, and the options for it.

    Half of what is found is the truth.
    """
    folder = tmp_path_factory.mktemp("detected")
    (folder / "set/images").mkdir(parents=True)
    picture = folder / "set/images/page.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(cv2.cvtColor(synthetic.image(4), cv2.COLOR_BGR2RGB)).save(picture, exif=exif)
    options = ("--weights", make_checkpoint("deformable_resnet18", "legacy"), "--short-side", 96)
    options += ("--binarize-threshold", 0.9)  # these weights were never trained, and find noise
    run_cli("detect", picture, *options, "--score-threshold", 0.3, "--ignore-exif", "-o", folder / "found")
    instances = json.loads((folder / "found/page.json").read_text(encoding="utf-8"))["instances"]
    _write_set(folder / "set", {"page": [instance["polygon"] for instance in instances[::2]]})
    return folder / "set", folder / "found", options


def test_weights_score_as_their_detections_do(detected: Detected):
    truth, found, options = detected
    by_weights = run_cli("evaluate", truth, *options, "--score-threshold", 0.3, "--json")
    assert by_weights == run_cli("evaluate", truth, "--detections", found, "--json")
    assert by_weights[0] == 0
    assert 0 < json.loads(by_weights[1])["sets"][0]["f"] < 1


def test_the_sweep_gives_what_each_threshold_gives_by_itself(detected: Detected):
    truth, found, options = detected
    document = json.loads(run_cli("evaluate", truth, *options, "--sweep", "--json")[1])
    swept = {row["score_threshold"]: row["f"]["set"] for row in document["sweep"]["thresholds"]}
    assert len(set(swept.values())) > 1
    assert document["sets"][0]["f"] == swept[0.6]  # the sets stay at the threshold of the settings
    alone = json.loads(run_cli("evaluate", truth, "--detections", found, "--json")[1])
    assert alone["sets"][0]["f"] == swept[0.3]


def test_a_picture_that_fails_counts_as_nothing_found_and_ends_with_7(tmp_path: Path, detected: Detected):
    truth, _, options = detected
    shutil.copytree(truth, tmp_path / "set")
    (tmp_path / "set/gts/gt_lost.txt").write_text((truth / "gts/gt_page.txt").read_text("utf-8"), encoding="utf-8")
    code, out, err = run_cli("evaluate", tmp_path / "set", *options, "--pages", "--worst", tmp_path / "worst")
    assert code == 7
    assert "images/lost.*: no such picture" in err
    assert next(line for line in out.splitlines() if "lost" in line).split()[-1] == "0.0000"
    assert [path.name for path in (tmp_path / "worst").iterdir()] == ["01_set_page.png"]
