"""How one frame of generated endoscopy is painted: a patient's mucosa, what the class shows, lamp and opening.

The pictures are made with random numbers of PCG64 and + − × ÷ √ alone, all of which IEEE 754 and NumPy fix to the
last bit, so that the bytes do not depend on the CPU; sin, exp or a matrix product would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from calibration_data.dataset import Frame

Field2D = NDArray[np.float32]
"""float32 [size, size]."""
Colour = tuple[float, float, float]
"""Red, green and blue, each 0 to 1."""

_DIM_PATIENTS = 0.25

_BLOOD: Colour = (0.55, 0.08, 0.07)
_DYE: Colour = (0.13, 0.33, 0.62)
_FIBRIN: Colour = (0.90, 0.84, 0.66)
_PALE: Colour = (0.89, 0.68, 0.62)


# --- patients ---


@dataclass(frozen=True)
class Patient:
    """What all frames of a patient share."""

    name: str
    tint: Colour
    blotches: float
    vessels: float
    is_dim: bool
    has_panel: bool
    """Whether the endoscope's picture has a black panel in its lower left corner."""


def seeded(*key: int) -> np.random.Generator:
    """Return a generator for a sequence of whole numbers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    # Generator.uniform may be compiled to a fused multiply-add, which rounds differently.
    return low + (high - low) * rng.random()


def make_patient(seed: int, pair: int, half: str) -> Patient:
    """Return the patient of a half ("upper", "lower") and a number."""
    rng = seeded(seed, pair, half == "upper")
    warmth = _between(rng, -0.04, 0.04)
    lightness = _between(rng, 0.88, 1.1)
    return Patient(
        name=f"{half}-{pair:05d}",
        tint=(
            lightness * _between(rng, 0.74, 0.84),
            lightness * (_between(rng, 0.38, 0.48) + warmth),
            lightness * (_between(rng, 0.33, 0.43) - 0.4 * warmth),
        ),
        blotches=_between(rng, 0.05, 0.15),
        vessels=_between(rng, 0.1, 0.45),
        is_dim=bool(rng.random() < _DIM_PATIENTS),
        has_panel=bool(rng.random() < 0.3),
    )


# --- drawing ---


class _Canvas:
    """A frame being painted: coordinates, colour and the lesion's mask.

    Attributes:
        x: −1 (left) to 1 (right); y: −1 (top) to 1 (bottom).
        colour: float32 [3, size, size], 0 to 1.
        light: what the colour is multiplied with at the end: shadow below 1, gloss above.
        lesion: coverage of the lesion, 0 to 1.
    """

    def __init__(self, size: int, patient: Patient, rng: np.random.Generator) -> None:
        axis = (np.arange(size, dtype=np.float32) * 2 + 1) / size - 1
        self.size = size
        self.rng = rng
        self.patient = patient
        warp_x, warp_y = self.noise(3), self.noise(3)
        self.x = axis[None, :] + 0.24 * (warp_x - 0.5)
        self.y = axis[:, None] + 0.24 * (warp_y - 0.5)
        self.colour = np.empty((3, size, size), dtype=np.float32)
        self.colour[:] = np.array(patient.tint, dtype=np.float32)[:, None, None]
        self.light = np.ones((size, size), dtype=np.float32)
        self.lesion: Field2D | None = None

    def noise(self, cells: int) -> Field2D:
        """Return smooth noise, 0 to 1, of `cells` blobs across the frame (value noise)."""
        lattice = self.rng.random((cells + 1, cells + 1), dtype=np.float32)
        low, high, weight = _interpolation(self.size, cells)
        rows = lattice[low] + weight[:, None] * (lattice[high] - lattice[low])
        left = rows[:, low]
        return left + weight * (rows[:, high] - left)

    def paint(self, colour: Colour, coverage: Field2D) -> None:
        """Lay a colour over the frame where the coverage (0 to 1) says."""
        self.colour += coverage * (np.array(colour, dtype=np.float32)[:, None, None] - self.colour)

    def dim(self, coverage: Field2D, amount: float) -> None:
        """Take away light where the coverage (0 to 1) says."""
        self.light *= 1 - amount * coverage

    def between(self, low: float, high: float) -> float:
        """Return a random number."""
        return _between(self.rng, low, high)

    def radius(self, x: float, y: float, width: float = 1.0, height: float = 1.0) -> Field2D:
        """Return the distance to a point, in units of an ellipse's half axes."""
        across = (self.x - x) / width
        down = (self.y - y) / height
        distance: Field2D = np.sqrt(across * across + down * down)
        return distance

    def spot(self, low: float, high: float) -> tuple[float, float]:
        """Return a random point at a distance between `low` and `high` from the middle of the frame."""
        while True:
            x, y = self.between(-high, high), self.between(-high, high)
            if low * low <= x * x + y * y <= high * high:
                return x, y


@lru_cache(maxsize=64)
def _interpolation(size: int, cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Field2D]:
    """Return the lattice points below and above each pixel, and the smooth weight of the one above."""
    position = (np.arange(size, dtype=np.float32) + 0.5) * (cells / size)
    low = position.astype(np.int64)
    weight = position - low.astype(np.float32)
    return low, low + 1, weight * weight * (3 - 2 * weight)


def _rise(value: Field2D, start: float, end: float) -> Field2D:
    """Return 0 up to `start`, 1 from `end` on, and a smooth step between; falls where `end` < `start`."""
    step = np.clip((value - start) * (1 / (end - start)), 0, 1)
    smooth: Field2D = step * step * (3 - 2 * step)
    return smooth


def _line(value: Field2D, centre: float, width: float) -> Field2D:
    """Return a ridge of height 1 where the value is near `centre`."""
    distance = (value - centre) * (1 / width)
    ridge: Field2D = 1 / (1 + distance * distance * distance * distance)
    return ridge


# --- what the classes show ---


def _mucosa(canvas: _Canvas) -> None:
    """Blotches and branching vessels of the patient's strength."""
    patient = canvas.patient
    canvas.light *= 1 + 2 * patient.blotches * (canvas.noise(4) - 0.5)
    canvas.light *= 1 + patient.blotches * (canvas.noise(11) - 0.5)
    wide = _line(canvas.noise(5), 0.5, 0.03) * canvas.noise(3)
    fine = _line(canvas.noise(9), 0.5, 0.045) * canvas.noise(4)
    vessels: Field2D = np.minimum(wide + fine, 1)
    canvas.paint(_BLOOD, 0.8 * patient.vessels * vessels)


def _folds(canvas: _Canvas, x: float, y: float, strength: float) -> None:
    """Rings of folds around the place where the tube runs away from the viewer, and its darkness."""
    radius = canvas.radius(x, y)
    spacing = canvas.between(0.22, 0.4)
    phase = radius * (1 / spacing) + canvas.between(0, 1) + canvas.noise(4)
    ring = np.abs(phase - np.floor(phase) - 0.5) * 2
    canvas.dim(ring * ring * _rise(radius, 0.1, 0.6), strength)
    canvas.dim(_rise(radius, canvas.between(0.3, 0.6), 0.0), canvas.between(0.2, 0.55))


def _tube(canvas: _Canvas) -> None:
    """A colon's wall: folds and a lumen somewhere."""
    _folds(canvas, *canvas.spot(0.2, 0.8), strength=canvas.between(0.05, 0.25))


def _cecum(canvas: _Canvas) -> None:
    """The blind end of the colon: the appendix' opening, a small crescent, among converging folds."""
    x, y = canvas.spot(0.0, 0.45)
    _folds(canvas, *canvas.spot(0.5, 0.9), strength=canvas.between(0.05, 0.2))
    outer = canvas.between(0.2, 0.36)
    dx, dy = canvas.spot(0.3, 0.6)
    crescent = _rise(canvas.radius(x, y), outer, outer * 0.7) * _rise(
        canvas.radius(x + dx * outer, y + dy * outer), outer * 0.5, outer * 0.8
    )
    canvas.dim(crescent, canvas.between(0.6, 0.95))
    canvas.dim(_line(canvas.radius(x, y), outer * 1.5, 0.06), canvas.between(0.1, 0.35))


def _pylorus(canvas: _Canvas) -> None:
    """The stomach's exit: a round dark hole with a swollen rim in smooth mucosa."""
    x, y = canvas.spot(0.0, 0.45)
    hole = canvas.between(0.14, 0.28)
    radius = canvas.radius(x, y, 1.0, canvas.between(0.75, 1.25))
    canvas.light *= 1 + canvas.between(0.15, 0.3) * _line(radius, hole * 1.7, 0.12)
    canvas.dim(_line(radius, hole * 2.7, 0.1), canvas.between(0.05, 0.25))
    canvas.dim(_rise(radius, hole * 1.2, hole * 0.7), canvas.between(0.7, 0.95))


def _z_line(canvas: _Canvas) -> tuple[float, float, float]:
    """The border between pale esophagus (outside) and salmon stomach (inside); return its centre and radius."""
    x, y = canvas.spot(0.0, 0.4)
    border = canvas.between(0.35, 0.65)
    teeth = canvas.between(0.15, 0.5) * (canvas.noise(7) - 0.5)
    radius = canvas.radius(x, y) + teeth
    softness = canvas.between(0.03, 0.12)
    outside = _rise(radius, border - softness, border + softness)
    canvas.paint(_PALE, canvas.between(0.5, 0.85) * outside)
    canvas.dim(_rise(canvas.radius(x, y), border * 0.8, 0.0), canvas.between(0.4, 0.9))
    return x, y, border


def _esophagitis(canvas: _Canvas) -> None:
    """A z-line with red, partly coated breaks that run outwards from it."""
    x, y, border = _z_line(canvas)
    breaks = np.zeros((canvas.size, canvas.size), dtype=np.float32)
    for _ in range(int(canvas.rng.integers(3, 7))):
        dx, dy = canvas.spot(0.9, 1.0)
        along = (canvas.x - x) * dx + (canvas.y - y) * dy
        across = (canvas.x - x) * dy - (canvas.y - y) * dx
        length = canvas.between(0.18, 0.36)
        width = canvas.between(0.07, 0.13)
        far = np.abs(along - (border + 0.7 * length)) * (1 / length)
        wide = np.abs(across) * (1 / width)
        breaks = np.maximum(breaks, _rise(np.sqrt(far * far + wide * wide), 1.15, 0.75))
    canvas.paint(_BLOOD, canvas.between(0.55, 0.9) * breaks)
    canvas.paint(_FIBRIN, canvas.between(0.0, 0.7) * breaks * _rise(canvas.noise(12), 0.55, 0.75))
    canvas.lesion = breaks


def _dome(canvas: _Canvas, x: float, y: float, width: float, height: float) -> Field2D:
    """A mound lit from the lamp's side, with a shadow behind it; return its coverage."""
    radius = canvas.radius(x, y, width, height)
    coverage = _rise(radius, 1.06, 0.92)
    inside = np.clip(1 - radius * radius, 0, 1)
    to_lamp = canvas.radius(x * 0.6, y * 0.6 - 0.25 * height, width, height)
    canvas.dim(_line(radius, 1.12, 0.18), canvas.between(0.3, 0.55))
    canvas.light *= 1 + coverage * (0.4 * inside - 0.25 * np.minimum(to_lamp, 1))
    return coverage


def _polyp(canvas: _Canvas) -> None:
    """A round growth, often redder than its surroundings and finely lobed."""
    _tube(canvas)
    width = canvas.between(0.24, 0.48)
    height = width * canvas.between(0.75, 1.3)
    x, y = canvas.spot(0.0, 0.55)
    coverage = _dome(canvas, x, y, width, height)
    canvas.paint(_BLOOD, canvas.between(0.1, 0.5) * coverage)
    lobes = canvas.between(0.1, 0.4) * (canvas.noise(14) - 0.5)
    canvas.light *= 1 + coverage * lobes
    canvas.lesion = coverage


def _stain(canvas: _Canvas, x: float, y: float, width: float, height: float) -> None:
    """Blue dye around a place, ragged and of uneven depth."""
    ragged = canvas.radius(x, y, width, height) + 0.9 * (canvas.noise(5) - 0.5)
    depth = canvas.between(0.55, 0.9) * (0.55 + 0.45 * canvas.noise(8))
    canvas.paint(_DYE, depth * _rise(ragged, 1.35, 0.75))


def _dyed_polyp(canvas: _Canvas) -> None:
    """A polyp lifted by blue fluid: a stained cushion with the growth on top of it."""
    _tube(canvas)
    width = canvas.between(0.2, 0.36)
    height = width * canvas.between(0.75, 1.3)
    x, y = canvas.spot(0.0, 0.45)
    wider = canvas.between(1.4, 2.1)
    _stain(canvas, x, y, width * wider, height * wider)
    _dome(canvas, x, y, width * wider, height * wider)
    coverage = _dome(canvas, x, y, width, height)
    canvas.paint(canvas.patient.tint, canvas.between(0.5, 0.9) * coverage)
    canvas.paint(_BLOOD, canvas.between(0.1, 0.4) * coverage)
    canvas.lesion = coverage


def _dyed_margins(canvas: _Canvas) -> None:
    """The flat wound that a resection leaves: a sharp edge, raw or coated ground, blue dye around."""
    _tube(canvas)
    width = canvas.between(0.26, 0.42)
    height = width * canvas.between(0.65, 1.4)
    x, y = canvas.spot(0.0, 0.45)
    wider = canvas.between(1.4, 2.1)
    _stain(canvas, x, y, width * wider, height * wider)
    radius = canvas.radius(x, y, width, height) + 0.5 * (canvas.noise(6) - 0.5)
    ground = _rise(radius, 1.04, 0.92)
    canvas.paint(_PALE, canvas.between(0.6, 0.9) * ground)
    canvas.paint(_BLOOD, canvas.between(0.1, 0.5) * ground * _rise(canvas.noise(6), 0.5, 0.8))
    canvas.dim(_line(radius, 1.0, 0.1), canvas.between(0.0, 0.3))
    canvas.lesion = ground


def _colitis(canvas: _Canvas) -> None:
    """Inflamed mucosa: redness, grain and small coated ulcers in patches."""
    _tube(canvas)
    extent = canvas.between(0.45, 0.65)
    patch = _rise(canvas.noise(3), extent + 0.08, extent - 0.08)
    redness = canvas.between(0.25, 0.55)
    canvas.paint(_BLOOD, redness * patch)
    grain = canvas.between(0.4, 0.8) * (canvas.noise(20) - 0.5)
    canvas.light *= 1 + patch * grain
    ulcers = _rise(canvas.noise(10) + canvas.noise(13), 1.25, 1.4) * patch
    canvas.paint(_FIBRIN, canvas.between(0.4, 0.9) * ulcers)
    canvas.lesion = patch


_PAINTERS: Mapping[str, Callable[[_Canvas], object]] = {
    "dyed-lifted-polyps": _dyed_polyp,
    "dyed-resection-margins": _dyed_margins,
    "esophagitis": _esophagitis,
    "normal-cecum": _cecum,
    "normal-pylorus": _pylorus,
    "normal-z-line": _z_line,
    "polyps": _polyp,
    "ulcerative-colitis": _colitis,
}
CLASSES = tuple(_PAINTERS)
"""The classes of Kvasir v2, in its order."""


# --- the camera ---


def paint_frame(size: int, patient: Patient, finding: str, rng: np.random.Generator) -> Frame:
    """Paint one frame of a patient and take its picture."""
    canvas = _Canvas(size, patient, rng)
    _mucosa(canvas)
    _PAINTERS[finding](canvas)
    _lamp(canvas)
    visible = _opening(canvas)
    pixels = canvas.colour * (canvas.light * visible)
    grain = rng.random((3, size, size), dtype=np.float32) - 0.5
    pixels += grain * (0.1 if patient.is_dim else 0.05) * (visible * 0.9 + 0.1)
    bytes_ = (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
    mask = None if canvas.lesion is None else (canvas.lesion * visible) > 0.5
    return Frame(np.ascontiguousarray(bytes_.transpose(1, 2, 0)), mask)


def _lamp(canvas: _Canvas) -> None:
    """Light that falls off from where the lamp points, and glints on the wet surface."""
    rng = canvas.rng
    distance = canvas.radius(*canvas.spot(0.0, 0.4))
    canvas.light *= canvas.between(1.05, 1.3) - canvas.between(0.25, 0.6) * _rise(distance, 0.1, 1.4)
    if canvas.patient.is_dim:
        canvas.light *= canvas.between(0.55, 0.7)
    wet = canvas.noise(6)
    glints = np.zeros((canvas.size, canvas.size), dtype=np.float32)
    for _ in range(int(rng.integers(2, 7))):
        size = canvas.between(0.02, 0.07)
        radius = canvas.radius(*canvas.spot(0.0, 0.85), size * canvas.between(0.5, 2.0), size)
        glints = np.maximum(glints, _rise(radius + wet, 1.7, 1.1))
    canvas.paint((1.0, 0.98, 0.95), glints)
    canvas.light += glints * 0.6 * (1 - np.minimum(canvas.light, 1))


def _opening(canvas: _Canvas) -> Field2D:
    """Return what the endoscope lets through: a square with cut corners, black outside, and its panel."""
    size = canvas.size
    axis = (np.arange(size, dtype=np.float32) * 2 + 1) / size - 1
    x, y = np.abs(axis)[None, :], np.abs(axis)[:, None]
    edge = np.maximum(np.maximum(x, y), (x + y) * 0.72)
    visible = _rise(edge, 0.99, 0.93) * (1 - 0.35 * _rise(edge, 0.55, 1.0))
    if canvas.patient.has_panel:
        visible = visible * (1 - ((axis[None, :] < -0.35) & (axis[:, None] > 0.4)).astype(np.float32))
    return visible
