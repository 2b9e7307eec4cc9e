"""The shapes of requests and responses, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from dbcpu.overrides import Overrides

SHARE = Field(ge=0, le=1, allow_inf_nan=False)


class Settings(BaseModel):
    """Settings of one request; what is left out stays as the server has it, see `/v1/models`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: Annotated[Literal["quad", "polygon"] | None, Field(description="Four corners, or outlines of any form.")] = (
        None
    )
    binarize_threshold: Annotated[
        Annotated[float, SHARE] | None, Field(description="Probability above which a pixel is text.")
    ] = None
    score_threshold: Annotated[
        Annotated[float, SHARE] | None, Field(description="Mean probability an instance must reach.")
    ] = None
    unclip_ratio: Annotated[
        Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | None,
        Field(description="How far shrunk kernels are pushed outwards."),
    ] = None
    max_candidates: Annotated[
        Annotated[int, Field(ge=1, le=1_000_000)] | None, Field(description="Contours looked at in one page.")
    ] = None
    min_side: Annotated[
        Annotated[float, Field(ge=0, le=65536, allow_inf_nan=False)] | None,
        Field(description="Shortest side of a kernel, in pixels of the network."),
    ] = None
    polygon_epsilon: Annotated[
        Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] | None,
        Field(description="Simplification of polygons, as a share of the perimeter."),
    ] = None

    def overrides(self) -> Overrides:
        """Return the settings that were given, as the detector takes them."""
        given = self.model_dump(include=set(Settings.model_fields) | {"short_side"}, exclude_none=True)
        overrides: Overrides = given  # type: ignore[assignment]
        return overrides


FORM = Field(
    alias="format",
    description="`json`; `icdar`: lines `x1,y1,...,xn,yn,score`, those of several pages one after the other; "
    "`overlay-png`: the page with the instances drawn over it.",
)
PAGE = Field(ge=1, le=1_000_000)


class FileSettings(Settings):
    """Settings of a request that brings pictures."""

    short_side: Annotated[
        Annotated[int, Field(ge=32)] | None, Field(description="Resize the short side to so many pixels.")
    ] = None


class DetectQuery(FileSettings):
    """Parameters of `POST /v1/detect`."""

    form: Annotated[Literal["json", "icdar", "overlay-png"], FORM] = "json"
    page: Annotated[Annotated[int, PAGE] | None, Field(description="The only page to look at.")] = None
    keep: Annotated[
        bool, Field(description="Keep the probability maps for a while; the header `Dbcpu-Session` has the token.")
    ] = False


class SessionQuery(Settings):
    """Parameters of `GET /v1/sessions/{token}`."""

    form: Annotated[Literal["json", "icdar", "overlay-png"], FORM] = "json"
    page: Annotated[Annotated[int, PAGE] | None, Field(description="The only page to answer for.")] = None


class PictureQuery(BaseModel):
    """Parameters of `GET /v1/sessions/{token}/pages/{page}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    longest: Annotated[int, Field(ge=16, le=8192, description="Side in pixels that it may have.")] = 4096


class NoQuery(BaseModel):
    """Of what takes no parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Instance(BaseModel):
    """A text instance."""

    polygon: Annotated[
        list[Annotated[list[float], Field(min_length=2, max_length=2)]],
        Field(min_length=3, description="Corners (x, y) in pixels of the upright page; a quad is clockwise."),
    ]
    score: Annotated[float, Field(ge=0, le=1, description="Mean probability of the region.")]


class PageResult(BaseModel):
    """What was found on a page: the document that `dbcpu detect` writes."""

    schema_version: Literal[1]
    image: Annotated[str, Field(description="The file name that the client gave, or `picture`.")]
    page: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    model: str
    settings: Annotated[dict[str, Any], Field(description="Everything that shaped the result.")]
    truncated: Annotated[bool, Field(description="Whether `max_candidates` cut.")]
    instances: list[Instance]


class DetectResponse(BaseModel):
    """The pages of a file."""

    pages: list[PageResult]
    session: Annotated[
        str | None, Field(description="Token of what is kept; null where that was not asked for, or is too much.")
    ]


class Problem(BaseModel):
    """Why there is no result (RFC 9457)."""

    type: Annotated[str, Field(description="Address of the kind's explanation.")]
    title: str
    status: int
    detail: Annotated[str, Field(description="What is wrong, where, and what to do: as the command line says it.")]


class BatchLine(BaseModel):
    """A line of a batch's answer: a page of a file, or why there is none. One of `result` and `problem` is there."""

    file: Annotated[int, Field(ge=0, description="Which of the files, from 0, in the order they came.")]
    name: str
    result: PageResult | None = None
    problem: Problem | None = None


class Model(BaseModel):
    """A loaded network and what applies where a request does not say otherwise."""

    name: str
    description: str
    precision: str
    preprocess: dict[str, Any]
    postprocess: dict[str, Any]


class Models(BaseModel):
    """The networks of this server."""

    models: list[Model]


class Health(BaseModel):
    """Whether the server is in order."""

    status: Literal["ok"]
