"""The page, in a real browser."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from serving import SAMPLE, Served, serving, wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")
TIMEOUT = 20_000  # milliseconds
NETWORK_RUNS = 'dbcpu_stage_seconds_count{stage="network"}'


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving("--short-side", 320) as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    """The page, opened; a test fails when it asks for anything outside, or writes an error to the console."""
    page = browser.new_page(viewport={"width": 1100, "height": 800})
    yield from _watched(page, server)


@pytest.fixture
def phone(browser: Browser, server: Served) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 360, "height": 700}, is_mobile=True, has_touch=True)
    yield from _watched(context.new_page(), server)


def _watched(page: Page, server: Served) -> Iterator[Page]:
    page.set_default_timeout(TIMEOUT)
    expect.set_options(timeout=TIMEOUT)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(server.url)
    yield page
    page.close()
    assert [text for text in complaints if not text.startswith("Failed to load resource")] == []
    assert [url for url in addresses if not url.startswith((server.url, f"blob:{server.url}"))] == []


def upload(page: Page, content: bytes, name: str = "page.jpg") -> None:
    page.set_input_files("#choose", {"name": name, "mimeType": "", "buffer": content})


def outlines(page: Page) -> list[list[list[float]]]:
    drawn = page.eval_on_selector_all("polygon", "all => all.map(one => one.getAttribute('points'))")
    return [[[float(value) for value in point.split(",")] for point in points.split(" ")] for points in drawn]


def answer(server: Served, content: bytes, **parameters: Any) -> dict[str, Any]:
    with server.client() as client:
        document: dict[str, Any] = client.post("/v1/detect", content=content, params=parameters).json()["pages"][0]
    return document


def polygons(document: dict[str, Any]) -> list[list[list[float]]]:
    return [instance["polygon"] for instance in document["instances"]]


def set_slider(page: Page, name: str, value: float) -> None:
    page.locator(f"#{name}").fill(str(value))


def expect_count(page: Page, count: int) -> None:
    expect(page.locator("#count")).to_contain_text(f"{count} instances")
    expect(page.locator("polygon")).to_have_count(count)


def test_outlines_are_drawn_where_the_json_says(page: Page, server: Served):
    document = answer(server, SAMPLE.read_bytes())
    upload(page, SAMPLE.read_bytes())
    expect_count(page, len(document["instances"]))
    assert outlines(page) == polygons(document)
    picture = page.locator("#sheet img").bounding_box()
    first = page.locator("polygon").first.bounding_box()
    assert picture is not None
    assert first is not None
    scale = picture["width"] / document["width"]
    centre = np.add(np.min(polygons(document)[0], axis=0), np.max(polygons(document)[0], axis=0)) / 2
    x, y = first["x"] + first["width"] / 2, first["y"] + first["height"] / 2
    assert [picture["x"] + centre[0] * scale, picture["y"] + centre[1] * scale] == pytest.approx([x, y], abs=1)
    page.mouse.move(x, y)
    expect(page.locator("#tip")).to_have_text(f"{document['instances'][0]['score']:.3f}")


def test_sliders_and_shapes_answer_without_the_network(page: Page, server: Served):
    upload(page, SAMPLE.read_bytes())
    expect_count(page, len(answer(server, SAMPLE.read_bytes())["instances"]))
    steps = [("score", 0.7, {"score_threshold": 0.7}), ("unclip", 2.5, {"unclip_ratio": 2.5})]
    asked: dict[str, Any] = {}
    for name, value, parameters in steps:
        asked |= parameters
        expected = polygons(answer(server, SAMPLE.read_bytes(), **asked))
        runs = server.figure(NETWORK_RUNS)
        set_slider(page, name, value)
        page.wait_for_function(DRAWN, arg=json.dumps(expected))
        assert server.figure(NETWORK_RUNS) == runs
    runs = server.figure(NETWORK_RUNS)
    page.get_by_label("polygons").check()
    page.wait_for_function("() => [...document.querySelectorAll('polygon')].some(one => one.points.length > 4)")
    page.get_by_role("button", name="As the server has it").click()
    expect_count(page, len(answer(server, SAMPLE.read_bytes())["instances"]))
    assert server.figure(NETWORK_RUNS) == runs + 1  # that of `answer`


DRAWN = """wanted => JSON.stringify([...document.querySelectorAll("polygon")].map(
    one => [...one.points].map(point => [point.x, point.y]))) === JSON.stringify(JSON.parse(wanted))"""


def test_a_session_that_is_over_is_begun_again(page: Page, server: Served):
    with page.expect_response("**/v1/detect?*") as response:
        upload(page, SAMPLE.read_bytes())
    with server.client() as client:
        client.delete(f"/v1/sessions/{response.value.json()['session']}")
    expected = polygons(answer(server, SAMPLE.read_bytes(), score_threshold=0.7))
    page.locator("polygon").first.wait_for()
    set_slider(page, "score", 0.7)
    page.wait_for_function(DRAWN, arg=json.dumps(expected))


def test_an_error_has_the_words_of_the_server_and_the_next_picture_works(page: Page):
    upload(page, b"nonsense", "broken.png")
    words = "broken.png: not a picture of a known format, or its first bytes are damaged"
    expect(page.get_by_role("alert")).to_have_text(words)
    upload(page, SAMPLE.read_bytes())
    expect(page.get_by_role("alert")).to_be_hidden()
    page.locator("polygon").first.wait_for()


def test_everything_works_with_the_keyboard(page: Page):
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choose"
    page.get_by_role("button", name="typewritten page").focus()
    page.keyboard.press("Enter")
    page.locator("polygon").first.wait_for()
    page.locator("#stage").focus()
    fitted = page.locator("#zoom").text_content()
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert page.locator("#zoom").text_content() != fitted
    before = page.locator("#sheet").get_attribute("style")
    page.keyboard.press("ArrowRight")
    assert page.locator("#sheet").get_attribute("style") != before
    page.keyboard.press("n")
    expect(page.locator("#tip")).to_be_visible()
    expect(page.locator("polygon.chosen")).to_have_count(1)
    page.keyboard.press("0")
    assert page.locator("#zoom").text_content() == fitted
    page.keyboard.press("b")
    expect(page.get_by_label("polygons")).to_be_checked()
    page.locator("#score").focus()
    value = float(page.locator("#score").input_value())
    page.keyboard.press("ArrowRight")
    assert float(page.locator("#score").input_value()) == pytest.approx(value + 0.01)


def test_a_control_that_was_just_moved_is_not_set_back_by_an_earlier_answer(page: Page):
    page.get_by_role("button", name="typewritten page").click()
    page.locator("polygon").first.wait_for()
    page.evaluate(
        """() => {
            const ask = window.fetch;
            window.answered = new Promise(tell => window.fetch = async (...question) => {
                const answer = await ask(...question);
                await new Promise(release => tell(release));
                return answer;
            });
        }"""
    )
    page.get_by_label("polygons").check()
    moved = page.evaluate(
        """async () => {
            const release = await window.answered;
            const score = document.querySelector("#score");
            score.stepUp();
            score.dispatchEvent(new Event("input", { bubbles: true }));
            release();
            return score.value;
        }"""
    )
    page.wait_for_timeout(30)
    assert page.locator("#score").input_value() == moved


def hold_back(page: Page, setting: str) -> list[Callable[[], None]]:
    """Take the server for one that keeps nothing; its answers with the setting come when the functions are called."""
    late: list[Callable[[], None]] = []

    def answer_without_session(route: Route) -> None:
        document = {**route.fetch().json(), "session": None}
        if setting in route.request.url:
            late.append(lambda: route.fulfill(json=document))
        else:
            route.fulfill(json=document)

    page.route("**/v1/detect?*", answer_without_session)
    return late


def test_the_last_question_counts_where_nothing_is_kept(page: Page, server: Served):
    late = hold_back(page, "score_threshold=0.2")
    upload(page, SAMPLE.read_bytes())
    page.locator("polygon").first.wait_for()
    with page.expect_request("**/v1/detect?*score_threshold=0.2*"):
        set_slider(page, "score", 0.2)
    set_slider(page, "score", 0.75)
    count = len(answer(server, SAMPLE.read_bytes(), score_threshold=0.75)["instances"])
    expect_count(page, count)
    late[0]()
    page.wait_for_timeout(200)
    assert page.locator("polygon").count() == count
    assert page.locator("#score").input_value() == "0.75"
    expect(page.locator("#progress")).to_be_hidden()


def test_a_slider_in_motion_is_not_set_back_where_nothing_is_kept(page: Page):
    late = hold_back(page, "score_threshold=0.2")
    upload(page, SAMPLE.read_bytes())
    page.locator("polygon").first.wait_for()
    with page.expect_request("**/v1/detect?*score_threshold=0.2*"):
        set_slider(page, "score", 0.2)
    assert wait_until(lambda: page.evaluate("true") and late)
    page.evaluate(
        """() => {
            const score = document.querySelector("#score");
            window.values = [score.value];
            window.motion = setInterval(() => {
                score.stepUp();
                score.dispatchEvent(new Event("input", { bubbles: true }));
                values.push(score.value);
            }, 20);
        }"""
    )
    page.wait_for_timeout(100)
    late[0]()
    page.wait_for_timeout(200)
    values = page.evaluate("() => { clearInterval(motion); return values.map(Number); }")
    assert values == sorted(set(values))
    expect(page.locator("#result")).to_be_visible()


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_pictures_can_be_pasted_and_dropped(page: Page, event: str):
    page.evaluate(
        """([event, content]) => {
            const data = new DataTransfer(), bytes = Uint8Array.from(atob(content), one => one.charCodeAt(0));
            data.items.add(new File([bytes], "brought.jpg", { type: "image/jpeg" }));
            const options = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(event === "paste"
                ? new ClipboardEvent("paste", { ...options, clipboardData: data })
                : new DragEvent("drop", { ...options, dataTransfer: data }));
        }""",
        [event, base64.b64encode(SAMPLE.read_bytes()).decode()],
    )
    page.locator("polygon").first.wait_for()
    expect(page.locator("#name")).to_have_text("brought.jpg")


def test_files_that_browsers_cannot_show_have_their_pages_shown(page: Page):
    sample = Image.open(SAMPLE)
    stream = io.BytesIO()
    sample.save(stream, "TIFF", save_all=True, append_images=[sample.crop((0, 0, 633, 200))])
    upload(page, stream.getvalue(), "scan.tif")
    page.locator("polygon").first.wait_for()
    expect(page.locator("#page")).to_have_text("1 of 2")
    many = page.locator("polygon").count()
    page.locator("#next").click()
    expect(page.locator("#page")).to_have_text("2 of 2")
    page.wait_for_function("() => document.querySelector('#sheet img').naturalHeight === 200")
    assert page.locator("polygon").count() < many


@pytest.mark.parametrize("left", [1, 2])
def test_a_late_picture_of_a_page_that_was_left_is_not_shown(page: Page, left: int):
    sample = Image.open(SAMPLE)
    stream = io.BytesIO()
    others = [sample.crop((0, 0, 633, 200)), sample.crop((0, 0, 633, 300))]
    sample.save(stream, "TIFF", save_all=True, append_images=others)
    late: list[Route] = []
    page.route(f"**/pages/{left}?*", lambda route: late.append(route))
    with page.expect_request(f"**/pages/{left}?*"):
        upload(page, stream.getvalue(), "scan.tif")
        expect(page.locator("#page")).to_have_text("1 of 3")
        if left == 2:
            page.locator("#next").click()
    page.locator("#next").click()
    shown = f"() => document.querySelector('#sheet img').naturalHeight === {100 + 100 * left}"
    page.wait_for_function(shown)
    late[0].continue_()
    page.wait_for_timeout(200)
    assert page.evaluate(shown)
    expect(page.locator("#page")).to_have_text(f"{left + 1} of 3")
    expect(page.locator("#result")).to_be_visible()


def test_results_can_be_downloaded(page: Page, server: Served, tmp_path: Path):
    upload(page, SAMPLE.read_bytes(), "my page.jpg")
    page.locator("polygon").first.wait_for()
    document = answer(server, SAMPLE.read_bytes())
    files = {}
    for name in ("JSON", "ICDAR text", "Overlay"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        files[download.value.suggested_filename] = tmp_path / name
        download.value.save_as(tmp_path / name)
    assert list(files) == ["my page.json", "res_my page.txt", "my page.overlay.png"]
    assert json.loads(files["my page.json"].read_text())["pages"] == [{**document, "image": "my page.jpg"}]
    assert len(files["res_my page.txt"].read_text().splitlines()) == len(document["instances"])
    assert Image.open(files["my page.overlay.png"]).size == Image.open(SAMPLE).size


def test_a_narrow_screen_shows_all_without_scrolling_sideways(phone: Page):
    upload(phone, SAMPLE.read_bytes())
    phone.locator("polygon").first.wait_for()
    expect(phone.get_by_text("Take a photo")).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth") == 360
    for name in ("#score", "#unclip", "[data-download=json]", "#stage"):
        box = phone.locator(name).bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= box["x"] + box["width"] <= 360
    phone.locator("polygon").last.tap()
    expect(phone.locator("#tip")).to_be_visible()


def test_dark_mode_is_dark(browser: Browser, server: Served):
    page = browser.new_page(color_scheme="dark")
    page.goto(server.url)
    colours = [
        page.evaluate("name => getComputedStyle(document.body)[name]", name) for name in ("backgroundColor", "color")
    ]
    background, text = (sum(int(value) for value in colour[4:-1].split(",")) for colour in colours)
    page.close()
    assert background < 150 < 600 < text


def test_the_key_is_asked_for_where_one_is_needed(browser: Browser, tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef\n")
    with serving("--api-key-file", keys) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.get_by_label("This server wants an API key").fill("0123456789abcdef")
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_contain_text("default.safetensors")
        upload(page, SAMPLE.read_bytes())
        page.locator("polygon").first.wait_for()
        page.close()
