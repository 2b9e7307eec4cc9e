"""The HTTP API, asked of a real server."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pictures
import pytest
from helpers import run_cli
from PIL import Image
from serving import SAMPLE, Served, serving

from dbcpu.serve.models import BatchLine

LIMITS = ("--max-body", 4, "--max-pixels", 2, "--max-network-pixels", 0.2, "--max-pages", 3, "--max-files", 4)


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def server(temporary: Path) -> Iterator[Served]:
    with serving(*LIMITS, environment={"TMPDIR": str(temporary)}) as served:
        yield served


@pytest.fixture
def client(server: Served) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def sample() -> bytes:
    return SAMPLE.read_bytes()


def tiff_of(pages: int) -> bytes:
    page = Image.fromarray(pictures.page())
    return pictures.encode(page, "TIFF", save_all=True, append_images=[page] * (pages - 1))


def detected(client: httpx.Client, content: bytes, **parameters: Any) -> list[dict[str, Any]]:
    response = client.post("/v1/detect", content=content, params=parameters)
    assert response.status_code == 200, response.text
    pages: list[dict[str, Any]] = response.json()["pages"]
    return pages


def test_a_page_is_the_document_of_the_command_line(client: httpx.Client):
    with SAMPLE.open("rb") as stream:
        response = client.post("/v1/detect", files={"file": ("page.jpg", stream)})
    _, out, _ = run_cli("detect", SAMPLE, "--short-side", 128, "--threads", 1)
    document = json.loads(out)
    assert document["instances"]
    assert response.json() == {"session": None, "pages": [{**document, "image": "page.jpg"}]}


def test_body_and_form_are_alike(client: httpx.Client, sample: bytes):
    (raw,) = detected(client, sample)
    (form,) = client.post("/v1/detect", files={"file": ("picture", sample)}).json()["pages"]
    assert raw == form


def test_settings_apply_to_one_request(client: httpx.Client, sample: bytes):
    (usual,) = detected(client, sample)
    given = {
        "shape": "polygon",
        "binarize_threshold": 0.4,
        "score_threshold": 0.7,
        "unclip_ratio": 1.2,
        "max_candidates": 5,
        "min_side": 1.0,
        "polygon_epsilon": 0.01,
    }
    (page,) = detected(client, sample, **given, short_side=160)
    assert {key: page["settings"][key] for key in given} == given
    assert (page["settings"]["network_width"], page["truncated"]) == (160, True)
    assert detected(client, sample) == [usual]


def test_icdar_lines_and_the_overlay_are_other_formats(client: httpx.Client, sample: bytes):
    (page,) = detected(client, sample)
    lines = client.post("/v1/detect?format=icdar", content=sample)
    assert lines.headers["content-type"] == "text/plain; charset=utf-8"
    corners = [[int(value) for point in instance["polygon"] for value in point] for instance in page["instances"]]
    assert [[int(value) for value in line.split(",")[:-1]] for line in lines.text.splitlines()] == corners
    overlay = client.post("/v1/detect?format=overlay-png", content=sample)
    assert overlay.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(overlay.content)).size == (page["width"], page["height"])


def test_every_page_of_a_file_is_answered_or_one_of_them(client: httpx.Client):
    assert [page["page"] for page in detected(client, tiff_of(3))] == [1, 2, 3]
    assert [page["page"] for page in detected(client, tiff_of(5), page=4)] == [4]
    overlay = client.post("/v1/detect?format=overlay-png&page=2", content=tiff_of(3))
    assert overlay.status_code == 200


@pytest.mark.parametrize(
    ("parameters", "body", "status", "words"),
    [
        ({}, b"", 400, "the body is empty"),
        ({}, b"nonsense", 422, "picture: not a picture of a known format"),
        ({}, SAMPLE.read_bytes()[:-20_000], 422, "picture: truncated"),
        ({}, pictures.png(np.zeros((2000, 2000), np.uint8)), 422, "2000 x 2000 pixels are more than the limit"),
        ({"short_side": 416}, SAMPLE.read_bytes(), 413, "over the limit of 200000 pixels"),
        ({"short_side": 448}, SAMPLE.read_bytes(), 422, "short_side: 448 is over the limit of 416"),
        ({}, tiff_of(4), 413, "more than 3 pages"),
        ({"format": "overlay-png"}, tiff_of(2), 422, "choose one with `page`"),
        ({"page": 9}, tiff_of(2), 404, "page 9: the file ends with page 2"),
        ({}, b"0" * (5 << 20), 413, "over the limit of 4194304"),
        ({"score_threshold": 1.5}, b"x", 422, "score_threshold: "),
        ({"score_treshold": 0.5}, b"x", 422, "score_treshold: "),
        ({"unclip_ratio": "nan"}, b"x", 422, "unclip_ratio: "),
    ],
)
def test_what_cannot_be_done_is_a_problem_with_its_reason(
    client: httpx.Client, parameters: dict[str, Any], body: bytes, status: int, words: str
):
    response = client.post("/v1/detect", params=parameters, content=body)
    problem = response.json()
    assert (response.status_code, problem["status"]) == (status, status)
    assert response.headers["content-type"] == "application/problem+json"
    assert words in problem["detail"]
    slug = problem["type"].removeprefix("/docs#problem-")
    assert f'id="problem-{slug}"' in client.get("/docs").text


def test_errors_have_the_words_of_the_command_line(client: httpx.Client, tmp_path: Path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures.png(pictures.page())[:200])
    _, _, err = run_cli("detect", broken)
    with broken.open("rb") as stream:
        detail = client.post("/v1/detect", files={"file": (str(broken), stream)}).json()["detail"]
    assert err.splitlines()[-1] == f"dbcpu: error: {detail}"


def test_a_body_without_a_length_has_the_same_limit(client: httpx.Client):
    response = client.post("/v1/detect", content=(b"0" * 65536 for _ in range(100)))
    assert response.status_code == 413


@pytest.mark.parametrize("name", ["picture", "other"])
def test_a_form_needs_a_file_of_the_name(client: httpx.Client, sample: bytes, name: str):
    assert client.post("/v1/detect", files={name: ("", sample)}).status_code == 400


def part(content: bytes) -> bytes:
    """A part of a form whose boundary is `part`, up to the next boundary."""
    return b'--part\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n' + content + b"\r\n"


def sent_form(client: httpx.Client, path: str, body: bytes, more: str = "") -> httpx.Response:
    headers = {"Content-Type": f"multipart/form-data; boundary=part{more}"}
    return client.post(path, content=body, headers=headers)


@pytest.mark.parametrize("path", ["/v1/detect", "/v1/detect/batch"])
@pytest.mark.parametrize("rest", [b"", part(b"x"), part(b"x")[:-10], b"--part", b"--part\r\n"])
def test_a_form_that_is_cut_off_is_malformed(client: httpx.Client, sample: bytes, path: str, rest: bytes):
    response = sent_form(client, path, part(sample) + rest)
    assert (response.status_code, response.json()["type"]) == (400, "/docs#problem-malformed")


def test_a_form_needs_nothing_after_its_last_boundary(client: httpx.Client, sample: bytes):
    assert sent_form(client, "/v1/detect", part(sample) + b"--part--").status_code == 200


@pytest.mark.parametrize("charset", ["undefined", "punycode"])
def test_a_charset_that_cannot_name_a_part_is_malformed(client: httpx.Client, sample: bytes, charset: str):
    response = sent_form(client, "/v1/detect", part(sample) + b"--part--", f"; charset={charset}")
    assert (response.status_code, "charset" in response.json()["detail"]) == (400, True)


def test_a_batch_answers_each_page_in_order_and_goes_on_after_a_failure(client: httpx.Client, sample: bytes):
    files = [("file", ("a.tif", tiff_of(2))), ("file", ("b.jpg", b"nonsense")), ("file", ("c.jpg", sample))]
    response = client.post("/v1/detect/batch", files=files)
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert response.headers["content-type"] == "application/x-ndjson"
    assert all(BatchLine.model_validate(line) for line in lines)
    assert [(line["file"], line["name"]) for line in lines] == [(0, "a.tif"), (0, "a.tif"), (1, "b.jpg"), (2, "c.jpg")]
    assert [line["result"]["page"] for line in lines if "result" in line] == [1, 2, 1]
    assert (lines[2]["problem"]["status"], lines[2]["problem"]["title"]) == (422, "The picture cannot be read")
    assert {**lines[3]["result"], "image": "picture"} == detected(client, sample)[0]


def test_a_batch_without_any_result_has_the_status_of_its_first_problem(client: httpx.Client):
    files = [("file", ("a.tif", tiff_of(4))), ("file", ("b.jpg", b"nonsense"))]
    response = client.post("/v1/detect/batch", files=files)
    statuses = [json.loads(line)["problem"]["status"] for line in response.text.splitlines()]
    assert (response.status_code, statuses) == (413, [413, 422])


def test_a_batch_has_a_limit_on_files(client: httpx.Client):
    response = client.post("/v1/detect/batch", files=[("file", ("a.png", b"x"))] * 5)
    assert (response.status_code, "Maximum number of files is 4" in response.json()["detail"]) == (400, True)


def test_settings_of_a_kept_picture_change_without_the_network(server: Served, client: httpx.Client, sample: bytes):
    answer = client.post("/v1/detect?keep=true", content=sample).json()
    runs = server.figure('dbcpu_stage_seconds_count{stage="network"}')
    settings = {"score_threshold": 0.75, "unclip_ratio": 2.5, "shape": "polygon"}
    again = client.get(f"/v1/sessions/{answer['session']}", params=settings).json()
    assert server.figure('dbcpu_stage_seconds_count{stage="network"}') == runs
    assert again["pages"] == detected(client, sample, **settings) != answer["pages"]


def test_a_kept_picture_gives_lines_overlays_and_its_pages(client: httpx.Client):
    token = client.post("/v1/detect?keep=true", content=tiff_of(2)).json()["session"]
    for form, status in (("icdar", 200), ("overlay-png", 422)):
        assert client.get(f"/v1/sessions/{token}?format={form}").status_code == status
    overlay = client.get(f"/v1/sessions/{token}?format=overlay-png&page=2")
    page = client.get(f"/v1/sessions/{token}/pages/2")
    small = client.get(f"/v1/sessions/{token}/pages/2?longest=30")
    sizes = [Image.open(io.BytesIO(response.content)).size for response in (overlay, page, small)]
    assert sizes == [(60, 40), (60, 40), (30, 20)]
    assert client.get(f"/v1/sessions/{token}?page=3").status_code == 404


def test_every_format_names_the_session_of_what_is_kept(client: httpx.Client, sample: bytes):
    lines = client.post("/v1/detect?keep=true&format=icdar", content=sample)
    again = client.get(f"/v1/sessions/{lines.headers['dbcpu-session']}?format=icdar")
    assert again.text == lines.text
    assert "dbcpu-session" not in client.post("/v1/detect", content=sample).headers


def test_other_methods_are_told_the_right_ones(client: httpx.Client):
    response = client.put("/v1/sessions/x")
    assert (response.status_code, response.headers["allow"]) == (405, "DELETE, GET")


def test_a_forgotten_picture_is_gone(client: httpx.Client, sample: bytes):
    token = client.post("/v1/detect?keep=true", content=sample).json()["session"]
    assert client.delete(f"/v1/sessions/{token}").status_code == 204
    for path in ("", "/pages/1"):
        response = client.get(f"/v1/sessions/{token}{path}")
        assert (response.status_code, "send the picture again" in response.json()["detail"]) == (404, True)


def test_the_model_and_its_settings_are_told(client: httpx.Client):
    (model,) = client.get("/v1/models").json()["models"]
    assert (model["name"], model["preprocess"]["short_side"]) == ("default.safetensors", 128)


def test_figures_count_requests_pages_and_failures(server: Served, client: httpx.Client):
    names = ("dbcpu_pictures_total", 'dbcpu_failures_total{problem="picture"}')
    before = [server.figure(name) for name in names]
    client.post("/v1/detect", content=tiff_of(2))
    client.post("/v1/detect", content=b"nonsense")
    assert [server.figure(name) for name in names] == [before[0] + 2, before[1] + 1]
    assert server.figure('dbcpu_requests_total{method="POST",route="/v1/detect",status="422"}') >= 1
    for stage in ("queue", "decode", "preprocess", "network", "postprocess", "encode"):
        assert server.figure(f'dbcpu_stage_seconds_count{{stage="{stage}"}}') > 0
    assert (server.figure("dbcpu_queue_depth"), server.figure("dbcpu_running")) == (0, 0)


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/healthz", "/readyz", "/nothing", "/static/nothing"])
def test_every_response_has_the_security_headers(client: httpx.Client, path: str):
    headers = client.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert "server" not in headers
    assert "access-control-allow-origin" not in client.get(path, headers={"Origin": "https://example.org"}).headers


def test_no_file_of_a_client_reaches_the_disk(client: httpx.Client, temporary: Path):
    content = pictures.png(np.random.default_rng(0).integers(0, 255, (1000, 1000, 3), dtype=np.uint8))
    response = client.post("/v1/detect", files={"file": ("../../../../tmp/evil.png", content)})
    assert response.json()["pages"][0]["image"] == "../../../../tmp/evil.png"
    assert list(temporary.rglob("*")) == []


@pytest.mark.slow
def test_hostile_pictures_give_a_result_or_a_reason_and_leave_the_server_well(shared: Path, sample: bytes):
    files = sorted(path for path in (shared / "data" / "hostile").rglob("*") if path.is_file())
    with serving("--deadline", 20, "--short-side", 32) as server, server.client() as client:
        statuses = {path.name: client.post("/v1/detect", content=path.read_bytes()) for path in files}
        assert len(detected(client, sample)) == 1
        assert server.figure("dbcpu_worker_deaths") == 0
    wrong = {name: (r.status_code, r.text) for name, r in statuses.items() if r.status_code not in (200, 400, 413, 422)}
    assert wrong == {}
    assert all(response.json()["detail"] for response in statuses.values() if response.status_code != 200)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server that wants a key, and lets two other web sites in."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("# of two clients\n0123456789abcdef\nfedcba9876543210\n")
    environment = {"DBCPU_SERVE_CORS_ORIGIN": "https://a.example https://b.example"}
    with serving("--api-key-file", keys, environment=environment) as server, server.client() as client:
        yield client


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer 0123456789abcdeX"}, {"Authorization": "Basic 0123456789abcdef"}]
)
def test_a_key_is_asked_for_where_there_are_some(guarded: httpx.Client, headers: dict[str, str], sample: bytes):
    response = guarded.post("/v1/detect", content=sample, headers=headers)
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert "Authorization: Bearer KEY" in response.json()["detail"]


@pytest.mark.parametrize("key", ["0123456789abcdef", "fedcba9876543210"])
def test_each_of_the_keys_lets_a_request_in(guarded: httpx.Client, key: str):
    assert guarded.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_what_needs_no_key_is_open(guarded: httpx.Client):
    open_to_all = {path: guarded.get(path).status_code for path in ("/", "/docs", "/healthz", "/metrics")}
    assert open_to_all == {"/": 200, "/docs": 200, "/healthz": 200, "/metrics": 401}
    assert guarded.get("/openapi.json").json()["paths"]["/v1/detect"]["post"]["security"] == [{"HTTPBearer": []}]


def test_other_web_sites_may_use_the_api_where_they_are_named(guarded: httpx.Client):
    allowed = {
        origin: guarded.get("/v1/models", headers={"Origin": origin}).headers.get("access-control-allow-origin")
        for origin in ("https://a.example", "https://b.example", "https://c.example")
    }
    assert list(allowed.values()) == ["https://a.example", "https://b.example", None]
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    asked = {**headers, "Access-Control-Request-Headers": "Authorization"}
    assert guarded.options("/v1/detect", headers=asked).status_code == 200
