"""Parts of the server that need no running one."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import pytest
from helpers import run_cli

from dbcpu.cli.serve import serve
from dbcpu.errors import ConfigError, ImageError
from dbcpu.geometry import Size
from dbcpu.serve.app import create_app
from dbcpu.serve.keeping import Keeping, Session
from dbcpu.serve.line import Line
from dbcpu.serve.problems import BUSY, KINDS, ServeError, problem, problem_headers
from dbcpu.serve.settings import ServeSettings, read_keys
from dbcpu.serve.work import KeptMap, ModelFacts, Picture

ROOT = Path(__file__).parents[1]


def session_of(size: int) -> Session:
    kept = KeptMap(
        probability_map=np.zeros((1, size // 4), np.float32),
        network_size=Size(32, 32),
        content_size=Size(32, 32),
        image_size=Size(32, 32),
    )
    return Session(picture=Picture(content=b"", name="page.png"), maps={1: kept})


def kept(keeping: Keeping, size: int) -> str:
    token = keeping.keep(session_of(size))
    assert token is not None
    return token


def asked(method: str, path: str, **headers: str) -> httpx.Response:
    """The answer of an application that has no workers."""
    settings = ServeSettings(workers=1)
    facts = ModelFacts(name="x", description="x", precision="float32", preprocess={}, postprocess={})
    app = create_app(settings, facts, Line(cast(Any, None), settings, cpus=1, on_broken=print))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(ask())


def test_sessions_that_were_not_used_for_longest_make_room():
    keeping = Keeping(seconds=60, size=1000)
    first, second = kept(keeping, 400), kept(keeping, 400)
    keeping.find(first)
    third = kept(keeping, 400)
    assert keeping.size == 800
    assert [keeping.find(token).size for token in (first, third)] == [400, 400]
    with pytest.raises(ServeError, match="no such session"):
        keeping.find(second)
    assert keeping.keep(session_of(1004)) is None
    assert keeping.size == 800


def test_sessions_end_when_they_are_too_old():
    keeping = Keeping(seconds=0, size=1000)
    token = kept(keeping, 400)
    with pytest.raises(ServeError, match="no such session"):
        keeping.find(token)
    assert keeping.size == 0


def test_tokens_cannot_be_guessed():
    keeping = Keeping(seconds=60, size=1 << 20)
    tokens = {kept(keeping, 4) for _ in range(100)}
    assert len(tokens) == 100
    assert {len(token) for token in tokens} == {32}


@pytest.mark.parametrize("text", ["", "# nothing\n", "short\n", "with spaces in it, long\n", "0123456789abcdé€f\n"])
def test_files_of_keys_that_protect_nothing_are_refused(tmp_path: Path, text: str):
    path = tmp_path / "keys"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        read_keys(path)


def test_problems_have_the_words_of_the_error():
    error = ImageError("truncated", where="a.png", remedy="copy it again")
    assert problem(error) == {
        "type": "/docs#problem-picture",
        "title": "The picture cannot be read",
        "status": 422,
        "detail": "a.png: truncated (copy it again)",
    }
    assert problem_headers(ServeError(BUSY, "full", retry_after=3)) == {"Retry-After": "3"}
    assert len({kind.slug for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/detect"),
        ("POST", "/v1/detect/batch"),
        ("GET", "/v1/sessions/x"),
        ("GET", "/v1/sessions/x/pages/1"),
        ("DELETE", "/v1/sessions/x"),
        ("GET", "/v1/models"),
    ],
)
def test_no_address_of_the_api_takes_an_unknown_parameter(method: str, path: str):
    response = asked(method, f"{path}?longets=500")
    assert (response.status_code, "longets: " in response.json()["detail"]) == (422, True)


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/healthz", "/readyz", "/metrics", "/static/page.js"])
def test_what_is_no_part_of_the_api_can_be_asked_for_its_headers_alone(path: str):
    head, get = asked("HEAD", path), asked("GET", path)
    assert (head.status_code, head.headers["content-type"]) == (200, get.headers["content-type"])
    assert asked("POST", path).headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("part", ["bytes=a-b", "bytes=999999-", "lines=1", "bytes=0-3"])
@pytest.mark.parametrize("path", ["/", "/static/page.js"])
def test_files_are_given_as_a_whole(path: str, part: str):
    whole, response = asked("GET", path), asked("GET", path, Range=part)
    assert (response.status_code, response.content) == (200, whole.content)
    assert "accept-ranges" not in whole.headers


def test_no_address_breaks_a_line_of_the_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging.getLogger("dbcpu"), "propagate", True)
    caplog.set_level(logging.INFO, "dbcpu")
    asked("GET", "/%0aFAKE%1b[31m")
    assert caplog.messages[0].startswith("GET /\\nFAKE\\x1b[31m: 404 in ")


def test_without_the_extra_the_command_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.startswith("dbcpu.serve.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    code, _, err = run_cli("serve", "--port", 0)
    assert (code, err) == (2, "dbcpu: error: serve: needs fastapi (pip install 'dbcpu[serve]')\n")


@pytest.mark.parametrize("value", ["nan", "inf", "1e308"])
@pytest.mark.parametrize("option", ["deadline", "read-timeout", "max-pixels", "max-network-pixels"])
def test_amounts_are_numbers_that_a_server_can_count_with(option: str, value: str):
    code, _, err = run_cli("serve", f"--{option}", value)
    assert (code, f"Invalid value for '--{option}': " in err) == (2, True)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_pictures_are_kept_for_a_finite_time(value: str):
    code, _, err = run_cli("serve", "--keep-seconds", value)
    assert (code, f"'{value}' is not a finite number" in err) == (2, True)


def test_an_address_in_use_is_a_usage_error():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = run_cli("serve", "--port", taken.getsockname()[1])
    assert (code, "cannot listen there: Address already in use" in err) == (2, True)


def test_weights_that_cannot_be_loaded_end_the_server(tmp_path: Path):
    code, _, err = run_cli("serve", "--port", 0, "--weights", tmp_path / "missing")
    assert (code, "missing" in err) == (4, True)


def test_settings_for_deployment_exist():
    names = {parameter.name.upper() for parameter in serve.params if parameter.name}
    files = [ROOT / "README.md", *(ROOT / "configs/deploy").iterdir()]
    asked = {name for path in files for name in re.findall(r"DBCPU_SERVE_(\w+)", path.read_text(encoding="utf-8"))}
    assert {"HOST", "WEIGHTS", "API_KEY_FILE"} <= asked <= names


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path):
    unit = tmp_path / "dbcpu.service"
    text = (ROOT / "configs/deploy/dbcpu.service").read_text(encoding="utf-8")
    unit.write_text(text.replace("/opt/dbcpu/bin/dbcpu", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
