from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers import run_cli
from PIL import Image

from dbcpu import __version__, load_detector
from dbcpu.cli.main import cli
from dbcpu.errors import UsageError

MakeCheckpoint = Callable[..., Path]
ROOT = Path(__file__).parents[1]
# The synthetic weights were never trained: their maps are noise, of which these settings find some two dozen pieces.
NOISE = ("--short-side", 96, "--binarize-threshold", 0.9, "--score-threshold", 0.05)


@pytest.fixture
def weights(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint("deformable_resnet18", "legacy")


@pytest.mark.parametrize("command", [[], ["detect"], ["evaluate"], ["convert"], ["inspect"], ["export"], ["serve"]])
def test_every_command_has_help_and_stands_in_the_readme(command: list[str]):
    code, out, _ = run_cli(*command, "--help")
    assert code == 0
    assert "Usage: dbcpu" in out
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert " ".join(["dbcpu", *command]) in readme


def test_the_version_is_that_of_the_package():
    assert run_cli("--version")[1] == f"dbcpu, version {__version__}\n"


def test_an_unknown_option_is_a_usage_error():
    code, out, err = run_cli("detect", "--weigths", "x", "y.jpg")
    assert (code, out) == (2, "")
    assert "--weigths" in err


def test_one_picture_gives_a_document_and_nothing_else_on_stdout(page: Path, weights: Path):
    code, out, err = run_cli("detect", page, "--weights", weights, *NOISE)
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert (document["width"], document["height"], document["model"]) == (96, 96, weights.name)
    assert document["settings"]["binarize_threshold"] == 0.9
    assert document["instances"]


def test_equal_input_gives_equal_bytes(page: Path, weights: Path):
    assert run_cli("detect", page, "--weights", weights, *NOISE) == run_cli(
        "detect", page, "--weights", weights, *NOISE
    )


@pytest.mark.parametrize(
    "variant", ["deformable_resnet18", pytest.param("deformable_resnet50", marks=pytest.mark.slow)]
)
def test_a_converted_file_gives_the_same_document_but_for_its_name(
    variant: str,
    tmp_path: Path,
    page: Path,
    make_checkpoint: MakeCheckpoint,
):
    old, new = make_checkpoint(variant, "legacy"), tmp_path / "new.safetensors"
    assert run_cli("convert", old, "-o", new)[0] == 0
    before, after = (json.loads(run_cli("detect", page, "--weights", w, *NOISE)[1]) for w in (old, new))
    assert before.pop("model") == old.name
    assert after.pop("model") == new.name
    assert before == after


def test_several_pictures_give_a_line_each_in_their_order(page: Path, weights: Path):
    other = page.with_name("ein Bild 頁.png")
    other.write_bytes(page.read_bytes())
    _, out, _ = run_cli("detect", page, other, "--weights", weights, *NOISE)
    assert [json.loads(line)["image"] for line in out.splitlines()] == [str(page), str(other)]


def test_a_picture_that_cannot_be_read_is_named_and_the_others_go_on(page: Path, weights: Path):
    broken = page.with_name("broken.png")
    broken.write_bytes(page.read_bytes()[:200])
    code, out, err = run_cli("detect", broken, page, page.with_name("none.png"), "--weights", weights, *NOISE)
    assert code == 7
    assert [json.loads(line)["image"] for line in out.splitlines()] == [str(page)]
    assert "broken.png" in err
    assert "none.png" in err
    assert "2 of 3 inputs failed" in err


def test_the_only_picture_being_unreadable_is_exit_code_5(page: Path, weights: Path):
    code, out, err = run_cli("detect", page.with_name("none.png"), "--weights", weights)
    assert (code, out) == (5, "")
    assert len(err.splitlines()) == 1


def test_results_overlays_and_maps_go_to_their_folders(tmp_path: Path, page: Path, weights: Path):
    folders = ("-o", tmp_path / "out/json", "--overlay", tmp_path / "out/overlay", "--save-map", tmp_path / "out/map")
    code, out, _ = run_cli("detect", page, "--weights", weights, *NOISE, *folders)
    assert (code, out) == (0, "")
    assert json.loads((tmp_path / "out/json/page.json").read_text())["image"] == str(page)
    assert cv2.imread(str(tmp_path / "out/overlay/page.overlay.png")).shape == (96, 96, 3)
    grey = cv2.imread(str(tmp_path / "out/map/page.map.png"), cv2.IMREAD_UNCHANGED)
    probability = load_detector(weights, short_side=96).probability_map(page)
    np.testing.assert_allclose(grey / 255, probability, atol=0.5 / 255 + 1e-6)


def test_icdar_lines_are_written_per_picture(tmp_path: Path, page: Path, weights: Path):
    run_cli("detect", page, "--weights", weights, *NOISE, "--format", "icdar", "-o", tmp_path / "out")
    lines = (tmp_path / "out/res_page.txt").read_text().splitlines()
    document = json.loads(run_cli("detect", page, "--weights", weights, *NOISE)[1])
    assert len(lines) == len(document["instances"])
    assert lines[0].split(",")[:2] == [str(value) for value in document["instances"][0]["polygon"][0]]
    assert run_cli("detect", page, page, "--weights", weights, "--format", "icdar")[0] == 2


def test_two_pictures_of_one_stem_keep_both_results(tmp_path: Path, page: Path, weights: Path):
    Image.open(page).save(page.with_suffix(".bmp"))
    run_cli("detect", page, page.with_suffix(".bmp"), "--weights", weights, *NOISE, "-o", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["page.bmp.json", "page.png.json"]


def test_the_same_picture_twice_is_one_result(tmp_path: Path, page: Path, weights: Path):
    assert run_cli("detect", page, page, "--weights", weights, *NOISE, "-o", tmp_path / "out")[0] == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["page.json"]


@pytest.mark.parametrize(
    ("name", "option"),
    [("page.overlay.png", "--overlay"), ("page.map.png", "--save-map"), ("page/0001.png", "--crops")],
)
def test_no_result_replaces_a_picture_of_the_run(name: str, option: str, page: Path, weights: Path):
    other = page.parent / name
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(page.read_bytes())
    code, _, err = run_cli("detect", page, other, "--weights", weights, *NOISE, option, page.parent)
    assert code == 2
    assert err == f"dbcpu: error: {other}: would replace a picture of this run (give another folder)\n"
    assert other.read_bytes() == page.read_bytes()


@pytest.mark.parametrize("format_", ["alto", "hocr", "csv"])
def test_stdout_gets_the_bytes_of_the_file_whatever_the_locale(
    format_: str, tmp_path: Path, weights: Path, page: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    page.rename("頁é.png")
    arguments = ["detect", "頁é.png", "--weights", str(weights), *map(str, NOISE), "--format", format_]
    assert CliRunner(charset="cp1252").invoke(cli, [*arguments, "-o", "."]).exit_code == 0
    (file,) = tmp_path.glob(f"頁é.*{format_}*")
    assert CliRunner(charset="cp1252").invoke(cli, arguments).stdout_bytes == file.read_bytes()


def test_crops_of_an_earlier_run_that_found_more_are_told_of_and_stay(tmp_path: Path, page: Path, weights: Path):
    crops = tmp_path / "crops/page"
    counts, warnings = [], []
    for more in ((), ("--max-candidates", 5)):
        _, out, err = run_cli("detect", page, "--weights", weights, *NOISE, "--crops", tmp_path / "crops", *more)
        counts.append(len(json.loads(out)["instances"]))
        warnings.append(f"{counts[-1] + 1:04d}.png: not of this run" in err)
        assert sorted(p.name for p in crops.iterdir()) == [f"{n:04d}.png" for n in range(1, counts[0] + 1)]
    assert counts[0] > counts[1]
    assert warnings == [False, True]


def test_every_page_of_a_tiff_has_its_number(tmp_path: Path, page: Path, weights: Path):
    tiff = tmp_path / "scan.tif"
    picture = Image.open(page)
    picture.save(tiff, save_all=True, append_images=[picture.rotate(90, expand=True)])
    _, out, _ = run_cli("detect", tiff, "--weights", weights, *NOISE)
    assert [json.loads(line)["page"] for line in out.splitlines()] == [1, 2]
    run_cli("detect", tiff, "--weights", weights, *NOISE, "-o", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["scan.p0001.json", "scan.p0002.json"]


def test_polygons_are_in_the_upright_picture(tmp_path: Path, weights: Path, synthetic: ModuleType):
    pixels = cv2.cvtColor(synthetic.image(0), cv2.COLOR_BGR2RGB)
    upright, turned = tmp_path / "upright.png", tmp_path / "turned.png"
    Image.fromarray(pixels).save(upright)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by a quarter
    Image.fromarray(np.rot90(pixels)).save(turned, exif=exif)
    results = [json.loads(run_cli("detect", p, "--weights", weights, *NOISE)[1]) for p in (upright, turned)]
    assert results[0]["instances"] == results[1]["instances"]
    stored = json.loads(run_cli("detect", turned, "--weights", weights, *NOISE, "--ignore-exif")[1])
    assert (stored["width"], stored["height"]) == (results[0]["height"], results[0]["width"])


def test_a_short_side_that_the_original_breaks_on_is_rounded_up_and_said(page: Path, weights: Path):
    _, out, err = run_cli("detect", page, "--weights", weights, "--short-side", 100)
    assert json.loads(out)["settings"]["network_width"] == 128
    assert "short side 100 is no multiple of 32: rounded up to 128" in err
    assert run_cli("detect", page, "--weights", weights, "--short-side", 100, "-q")[2] == ""


def test_the_size_option_sets_both_sides(page: Path, weights: Path):
    settings = json.loads(run_cli("detect", page, "--weights", weights, "--size", "160x96")[1])["settings"]
    assert (settings["network_width"], settings["network_height"]) == (160, 96)
    assert run_cli("detect", page, "--weights", weights, "--size", "160")[0] == 2
    assert run_cli("detect", page, "--weights", weights, "--size", "160x96", "--height", 96)[0] == 2


def test_a_cut_by_the_candidate_limit_is_said(page: Path, weights: Path):
    _, out, err = run_cli("detect", page, "--weights", weights, *NOISE, "--max-candidates", 1)
    assert json.loads(out)["truncated"] is True
    assert "more than 1 candidates" in err


def test_a_published_configuration_applies_and_is_said(page: Path, weights: Path):
    config = ROOT / "configs/totaltext_resnet18.yaml"
    settings = json.loads(run_cli("detect", page, "--weights", weights, "--config", config, "--short-side", 96)[1])[
        "settings"
    ]
    assert (settings["shape"], settings["score_threshold"], settings["unclip_ratio"]) == ("polygon", 0.7, 2.0)
    code, _, err = run_cli("detect", page, "--weights", weights, "--config", ROOT / "configs/ic15_resnet50.yaml")
    assert code == 3
    assert "backbone" in err


def test_a_configuration_is_kept_in_the_model_file(tmp_path: Path, page: Path, weights: Path):
    new = tmp_path / "new.safetensors"
    assert run_cli("convert", weights, "-o", new, "--config", ROOT / "configs/totaltext_resnet18.yaml")[0] == 0
    settings = json.loads(run_cli("detect", page, "--weights", new, "--short-side", 96)[1])["settings"]
    assert (settings["shape"], settings["score_threshold"]) == ("polygon", 0.7)


def test_timings_go_to_stderr_on_request(page: Path, weights: Path):
    code, out, err = run_cli("detect", page, "--weights", weights, *NOISE, "-v")
    assert code == 0
    assert "ms" in err
    assert "ms" not in out


def test_stdin_is_read_as_a_picture(page: Path, weights: Path):
    command = [sys.executable, "-m", "dbcpu", "detect", "-", "--weights", str(weights), *map(str, NOISE)]
    done = subprocess.run(command, input=page.read_bytes(), capture_output=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["image"] == "-"


def test_a_closed_stdin_is_a_usage_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", None)  # as the interpreter starts with `<&-`
    code, out, err = run_cli("detect", "-")
    assert (code, out) == (2, "")
    assert err == "dbcpu: error: stdin is closed (give the picture to it, as in dbcpu detect - < page.jpg)\n"


def test_convert_names_its_output_and_keeps_what_is_there(tmp_path: Path, weights: Path):
    old = tmp_path / "model_epoch_1.5"
    old.write_bytes(weights.read_bytes())
    assert run_cli("convert", old)[0] == 0
    assert (tmp_path / "model_epoch_1.5.safetensors").exists()
    code, _, err = run_cli("convert", old)
    assert code == 6
    assert "--force" in err
    assert run_cli("convert", old, "--force")[0] == 0
    code, _, err = run_cli("convert", tmp_path / "model_epoch_1.5.safetensors", "-o", tmp_path / "again")
    assert code == 2
    assert "a model file already" in err
    assert run_cli("convert", old, "-o", old, "--force")[0] == 2
    assert old.read_bytes() == weights.read_bytes()


def test_inspect_shows_both_kinds_of_file(tmp_path: Path, weights: Path):
    run_cli("convert", weights, "-o", tmp_path / "new.safetensors")
    for path, kind in ((weights, "old checkpoint"), (tmp_path / "new.safetensors", "model file")):
        code, out, _ = run_cli("inspect", path)
        assert code == 0
        assert kind in out
        assert "deformable resnet18" in out
        report = json.loads(run_cli("inspect", path, "--json")[1])
        assert (report["kind"], report["family"], report["bytes"]) == (kind, "original", path.stat().st_size)
        assert report["config"]["model"]["backbone"] == "resnet18"
        assert len(report["kept"]) + len(report["dropped"]) == 174


def test_inspect_shows_weights_that_are_not_finite(tmp_path: Path, synthetic: ModuleType):
    tensors = {name: torch.from_numpy(np.asarray(a)) for name, a in synthetic.state_dict("resnet18").items()}
    tensors["decoder.in5.weight"][0] = torch.nan
    torch.save(tensors, tmp_path / "final")
    code, out, err = run_cli("inspect", tmp_path / "final", "--json")
    assert code == 4
    assert json.loads(out)["non_finite"] == ["decoder.in5.weight"]
    assert "NaN" in err
    assert run_cli("convert", tmp_path / "final")[0] == 4


@pytest.mark.parametrize("command", ["convert", "inspect", "detect"])
def test_a_bad_checkpoint_is_one_line_and_exit_code_4(command: str, tmp_path: Path, page: Path):
    bad = tmp_path / "final"
    bad.write_bytes(b"PK\x03\x04 garbage")
    code, out, err = run_cli("detect", page, "--weights", bad) if command == "detect" else run_cli(command, bad)
    assert (code, out) == (4, "")
    assert len(err.splitlines()) == 1


def test_an_interrupt_ends_with_130_and_keeps_what_is_written(tmp_path: Path, page: Path, weights: Path):
    out = tmp_path / "out"
    pages = []
    for i in range(200):
        pages.append(tmp_path / f"{i}.png")
        os.link(page, pages[-1])
    command = [sys.executable, "-m", "dbcpu", "detect", *map(str, pages), "--weights", str(weights), "-o", str(out)]
    process = subprocess.Popen([*command, "--short-side", "320", "-q"], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    deadline = time.monotonic() + 60
    while not any(out.glob("*.json")) and time.monotonic() < deadline:  # a partial file is no result yet
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "dbcpu: interrupted"  # on a line of its own, since terminals show ^C
    written = list(out.iterdir())
    assert 0 < len(written) < 200
    assert all(json.loads(path.read_text())["width"] == 96 for path in written)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_behind_stdout_is_an_error_of_the_output(weights: Path):
    command = [sys.executable, "-m", "dbcpu", "inspect", str(weights)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, cwd=ROOT, text=True)
    assert done.returncode == 6
    assert done.stderr == "dbcpu: error: the output could not be written: No space left on device\n"


def test_a_closed_stdout_does_not_keep_results_from_their_folder(tmp_path: Path, page: Path, weights: Path):
    command = [sys.executable, "-m", "dbcpu", "detect", str(page), "--weights", str(weights), "-q", *map(str, NOISE)]
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command, "-o", str(tmp_path / "out")]
    assert subprocess.run(closed, check=False, cwd=ROOT).returncode == 0
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_a_terminated_conversion_leaves_nothing_behind(tmp_path: Path, weights: Path):
    code = (
        "import os, signal, torch, dbcpu.checkpoint.native as native\n"
        "native._compare = lambda *_: os.kill(os.getpid(), signal.SIGTERM)\n"
        "from dbcpu.cli.main import run\n"
        "run()"
    )
    target = tmp_path / "new.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", code, "convert", str(weights), "-o", str(target)], check=False, cwd=ROOT
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.glob(".*")) == list(tmp_path.glob("new*")) == []


def test_a_folder_and_a_link_that_leads_nowhere_are_not_replaced(tmp_path: Path, weights: Path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    for target, forced, message in ((link, (), "exists already"), (tmp_path, ("--force",), "a folder")):
        code, _, err = run_cli("convert", weights, "-o", target, *forced)
        assert (code, message in err) == (6, True)
    assert link.is_symlink()


def test_a_name_without_an_end_is_read_before_one_is_made_of_it():
    code, _, err = run_cli("convert", ".")
    assert (code, "a directory, not a weights file" in err) == (4, True)


def test_inspect_does_not_pass_on_what_steers_a_terminal(tmp_path: Path, weights: Path):
    document = torch.load(weights, weights_only=True)
    torch.save({"state_dict": document, "\x1b[31mred\nkind  model file": 1}, tmp_path / "final")
    code, out, _ = run_cli("inspect", tmp_path / "final")
    assert (code, "\x1b" in out, r"\x1b[31mred\nkind" in out) == (0, False, True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_an_interrupt_does_not_wait_for_input_that_never_comes(tmp_path: Path, weights: Path):
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-m", "dbcpu", "detect", str(tmp_path / "pipe"), "-", "--weights", str(weights)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        (tmp_path / "pipe").write_bytes(b"")  # returns when it is being read, before stdin is
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert process.stderr is not None
        assert process.stderr.read().splitlines()[-1] == "dbcpu: interrupted"


def test_a_reader_that_went_away_is_no_error_message(page: Path, weights: Path):
    command = [sys.executable, "-m", "dbcpu", "detect", *[str(page)] * 2, "--weights", str(weights), *map(str, NOISE)]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False, cwd=ROOT)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_the_python_interface_gives_what_the_command_gives(page: Path, weights: Path):
    detector = load_detector(weights, short_side=96, binarize_threshold=0.9, score_threshold=0.05)
    from_path, from_array = detector.detect(page), detector.detect(cv2.imread(str(page)))
    document: dict[str, Any] = json.loads(run_cli("detect", page, "--weights", weights, *NOISE)[1])
    for result in (from_path, from_array, *detector.detect_batch([page])):
        assert [i.polygon.tolist() for i in result.instances] == [i["polygon"] for i in document["instances"]]
        assert [i.score for i in result.instances] == [i["score"] for i in document["instances"]]
    assert detector.probability_map(page).shape == (96, 96)
    with pytest.raises(UsageError, match="threads"):
        load_detector(weights, threads=0)
    with pytest.raises(UsageError, match="threads"):
        load_detector(weights, threads=1 << 40)


def test_without_weights_the_model_that_comes_along_finds_the_lines_of_the_sample_page():
    code, out, err = run_cli("detect", ROOT / "tests/data/sample.jpg")
    assert code == 0
    assert err == "dbcpu: no --weights given: using the default model, which finds text lines\n"
    document = json.loads(out)
    assert document["model"] == "default.safetensors"
    assert 18 <= len(document["instances"]) <= 24  # the page has 21 lines, one of them cut in half by its edge
    assert run_cli("detect", ROOT / "tests/data/sample.jpg", "-q")[2] == ""
