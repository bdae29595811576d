"""The settings of files from elsewhere: where they lie, how pixels become their input, what they answer with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from foundation.settings import LocalPath, Settings
from onnx_files.answers import Kind
from onnx_files.preprocessing import ChannelOrder, Layout

Numbers = Annotated[tuple[float, ...], Field(strict=False, min_length=1, max_length=4)]


class FileForm(Settings):
    """What an ONNX file may leave open about itself; what its metadata says need not be repeated."""

    mean: Numbers | None = Field(
        None, description="of the input's channels, in its colour order, of pixels scaled to 0…`scale`; one for all"
    )
    std: Numbers | None = Field(None, description="likewise")
    scale: Literal[1, 255] = Field(1, description="the largest pixel value that mean and std are given for")
    layout: Layout | None = Field(None, description="order of the input's axes; null: by the input's shape")
    channel_order: ChannelOrder = Field("RGB", description="order of the input's colours; BGR is OpenCV's")
    output: str | None = Field(None, description="name of the output to judge; null: the only one")
    answers: Kind | None = Field(
        None, description="what it holds; null: a Softmax at the end gives probabilities, a Sigmoid sigmoids, …"
    )


class OnnxSettings(FileForm):
    """A classifier in ONNX, from whatever exporter: the float baseline of the run."""

    path: LocalPath = Field(description="the file, its weights within or beside it")
    classes: LocalPath | Annotated[tuple[str, ...], Field(strict=False)] | None = Field(
        None,
        description="names of the outputs in their order: a text file with one a line, or a list; the images' "
        "classes are looked up in it; null: by the file's metadata, else the images' classes in alphabetical order",
    )


class GivenSettings(FileForm):
    """A file that another tool compiled, judged like ours."""

    method: Literal["given"] = Field("given", description="a file that was compiled by anything")
    path: LocalPath = Field(description="the file, its weights within or beside it; it is copied as it is")
