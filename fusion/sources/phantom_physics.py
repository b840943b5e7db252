"""The physics of the phantoms: B-mode ultrasound, its radio-frequency echoes, and screening mammograms, as sketches.

Ultrasound is the convolution model of pulse-echo imaging: dense random scatterers, weighted by the echogenicity of
the tissue, blurred by a separable point-spread function whose beam widens away from the focus (Bamber and Dickinson,
Phys. Med. Biol. 25 (1980) 463), with the attenuation of what lies above and an imperfect time-gain compensation.
Lesions follow the BI-RADS lexicon: shape, orientation, margin, echo pattern, posterior features.

Mammograms are power-law noise, spectrum 1/f^3 as measured by Burgess, Jacobson and Judy (Med. Phys. 28 (2001) 419),
shaped by a compressed breast, with masses, spicules and calcifications laid on top.

What a class shows in its lesion overlaps with the other class; gain, size, position and background never depend on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

SOUND_MM_PER_US = 1.540
SAMPLING_MHZ = 40.0
CENTRE_MHZ = 10.0
BANDWIDTH_MHZ = 6.0  # full width at half maximum of the two-way pulse
LINES = 510
APERTURE_MM = 38.0
SAMPLE_MM = SOUND_MM_PER_US / (2 * SAMPLING_MHZ)
MAMMOGRAM_SIZE = 256
ANGLES = 4096


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A plane of ultrasound: ``rows`` over ``depth_mm``, ``columns`` over ``width_mm``."""

    rows: int
    columns: int
    depth_mm: float
    width_mm: float

    @property
    def row_mm(self) -> float:
        """Depth of one row in millimetres."""
        return self.depth_mm / self.rows

    @property
    def column_mm(self) -> float:
        """Width of one column in millimetres."""
        return self.width_mm / self.columns


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """A lesion as ultrasound sees it; lengths in millimetres, levels in decibels."""

    x_mm: float
    z_mm: float
    radius_mm: float
    """Radius of the circle of the same area."""
    aspect: float
    """Width over height."""
    tilt: float
    """Radians."""
    lobes: float
    """Size of the slow undulation of the contour, as a part of the radius."""
    spikes: float
    """Height of the angular corners and spicules, as a part of the radius."""
    edge_mm: float
    """Width over which the margin fades."""
    contrast_db: float
    """Echogenicity relative to fibroglandular tissue."""
    texture_db: float
    """Standard deviation of the internal echoes."""
    rim_db: float
    """Thin bright line where the beam meets the margin at a right angle."""
    halo_db: float
    """Broad echogenic rind."""
    path_db_per_mm: float
    """Change of the echo per millimetre of lesion above it: negative shadows, positive enhances."""


def draw_lesion(rng: np.random.Generator, malignant: bool, grid: Grid) -> Lesion:
    """Draw a lesion within ``grid``; depth, size and contrast have one distribution for both classes."""
    # An atypical lesion shows one feature of the other class, which keeps the classes from being separable.
    shape, margin, posterior = rng.random(3) > (0.12, 0.08, 0.25) if malignant else rng.random(3) < (0.12, 0.08, 0.25)
    radius = rng.uniform(0.11, 0.19) * min(grid.width_mm, grid.depth_mm)
    return Lesion(
        x_mm=rng.uniform(0.28, 0.72) * grid.width_mm,
        z_mm=rng.uniform(0.30, 0.58) * grid.depth_mm,
        radius_mm=radius,
        aspect=rng.uniform(0.70, 1.10) if shape else rng.uniform(1.25, 2.0),
        tilt=rng.normal(0, 0.15),
        lobes=rng.uniform(0.03, 0.10),
        spikes=rng.uniform(0.25, 0.50) if margin else rng.uniform(0.0, 0.04),
        edge_mm=rng.uniform(0.3, 0.9) if margin else rng.uniform(0.15, 0.35),
        contrast_db=-rng.uniform(12, 19),
        texture_db=rng.uniform(2.0, 4.0) if margin else rng.uniform(0.6, 2.0),
        rim_db=rng.uniform(0, 4) if margin else rng.uniform(6, 13),
        halo_db=rng.uniform(2, 7) if margin else rng.uniform(0, 2),
        path_db_per_mm=rng.uniform(-0.9, 0.1) if posterior else rng.uniform(-0.1, 0.5),
    )


def draw_lesions(rng: np.random.Generator, malignant: bool, grid: Grid, count: int) -> list[Lesion]:
    """Draw ``count`` lesions of one class side by side; several are smaller, so that they fit."""
    lesions = []
    for k in range(count):
        lesion = draw_lesion(rng, malignant, grid)
        if count > 1:
            x_mm = grid.width_mm * (k + 0.5 + rng.uniform(-0.1, 0.1)) / count
            lesion = replace(lesion, x_mm=x_mm, radius_mm=lesion.radius_mm * 1.3 / count)
        lesions.append(lesion)
    return lesions


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: tuple[float, float]) -> Image:
    """Return Gaussian noise of unit variance and the given correlation lengths, ``[rows, columns]`` float32.

    Gaussian bumps on a lattice as fine as ``sigma``: two thin matrix products instead of a filter over every pixel.
    """

    def bumps(size: int, width: float) -> Image:
        width = max(width, 0.5)
        centres = np.arange(-3, size / width + 4, dtype=np.float32)
        weights = np.exp(-0.5 * (np.arange(size, dtype=np.float32)[:, None] / width - centres) ** 2)
        return (weights / np.sqrt((weights**2).sum(1, keepdims=True))).astype(np.float32)

    down, across = bumps(shape[0], sigma[0]), bumps(shape[1], sigma[1])
    lattice = rng.standard_normal((down.shape[1], across.shape[1]), dtype=np.float32)
    return (down @ lattice @ across.T).astype(np.float32, copy=False)


def _step(x: NDArray[np.floating]) -> Image:
    return (0.5 + 0.5 * np.tanh(2 * x)).astype(np.float32)


def _layers_db(rng: np.random.Generator, grid: Grid) -> Image:
    """Return the echogenicity of skin, subcutaneous fat, fibroglandular tissue and pectoral muscle in decibels."""
    shape = (grid.rows, grid.columns)

    def noise(z_mm: float, x_mm: float) -> Image:
        return smooth_noise(rng, shape, (z_mm / grid.row_mm, x_mm / grid.column_mm))

    def septa(z_mm: float, x_mm: float, width: float) -> Image:
        """Return thin bright sheets: the zero lines of a smooth field, fading in and out along their way."""
        sheets = np.exp(-((noise(z_mm, x_mm) / width) ** 2)) * _step(noise(2, 4) + 0.3)
        return sheets.astype(np.float32)

    z = (np.arange(grid.rows, dtype=np.float32) * np.float32(grid.row_mm))[:, None]
    x = np.linspace(-1, 1, grid.columns, dtype=np.float32)[None, :]
    skin = rng.uniform(0.6, 1.5)
    fat_end = grid.depth_mm * rng.uniform(0.15, 0.40) + rng.normal(0, 1.2) * x + rng.normal(0, 1.2) * x**2
    muscle_start = grid.depth_mm * rng.uniform(0.62, 0.90) + rng.normal(0, 1.5) * x + rng.normal(0, 1.0) * x**2
    lateral = smooth_noise(rng, (1, grid.columns), (1, 4 / grid.column_mm))
    fat_end = fat_end + 1.2 * lateral

    fat = -10 + 1.2 * noise(1.2, 2.5) + rng.uniform(7, 13) * septa(1.1, 7.0, 0.09)
    gland = rng.uniform(-2, 2) + 2.6 * noise(0.20, 2.6) + 2.6 * noise(1.8, 3.0) - 8 * _step(noise(0.7, 1.5) - 1.7)
    gland = gland + rng.uniform(3, 8) * septa(0.7, 6.0, 0.14)
    muscle = -9 + 3.4 * noise(0.18, 7.0) + 1.5 * noise(1.5, 5.0) + 8 * septa(0.8, 10.0, 0.08)
    in_gland, in_muscle = _step((z - fat_end) / 0.5), _step((z - muscle_start) / 0.4)
    level = fat + (gland - fat) * in_gland
    level = level + (muscle - level) * in_muscle
    level = level + 9 * np.exp(-(((z - muscle_start) / 0.35) ** 2))
    # The planes of tissue undulate: each column is shifted in depth, the skin is not.
    shift_mm = (1.0 * noise(6, 6) + rng.normal(0, 1.5) * x + rng.normal(0, 2) * x**2) * _step((z - skin - 3) / 3)
    rows = np.arange(grid.rows)[:, None] + np.rint(shift_mm / grid.row_mm).astype(int)
    level = np.take_along_axis(level, np.clip(rows, 0, grid.rows - 1), axis=0)
    level = level + (3 - level) * (1 - _step((z - skin) / 0.3))
    return (level + 7 * np.exp(-(((z - skin) / 0.15) ** 2))).astype(np.float32)


def _shadows_db(rng: np.random.Generator, grid: Grid) -> Image:
    """Return what overlying structures and the operator's gain take away, whatever the lesion: decibels."""
    z = np.linspace(0, 1, grid.rows, dtype=np.float32)[:, None]
    x = np.linspace(0, 1, grid.columns, dtype=np.float32)[None, :]
    level = -rng.uniform(2, 30) * z ** rng.uniform(1, 2.5) + rng.normal(0, 3) * (x - 0.5) + rng.normal(0, 2) * z
    for _ in range(rng.integers(0, 4)):  # Cooper's ligaments, poor contact
        start, centre, width = rng.uniform(0, 0.7), rng.uniform(0, 1), rng.uniform(0.02, 0.10)
        drift = rng.normal(0, 0.15) * (z - start)
        profile = np.exp(-0.5 * ((x - centre - drift) / width) ** 2)
        level = level - rng.uniform(3, 14) * profile * _step((z - start) / 0.12)
    if rng.random() < 0.3:  # a bright band, as under a cyst or a fat lobule
        band = np.exp(-0.5 * ((x - rng.uniform(0, 1)) / rng.uniform(0.04, 0.1)) ** 2)
        level = level + rng.uniform(2, 6) * band * _step((z - rng.uniform(0.2, 0.7)) / 0.1)
    return level.astype(np.float32)


def _contour(rng: np.random.Generator, lesion: Lesion) -> Image:
    """Return the radius of the lesion's contour at ``ANGLES`` directions from -pi, relative to its mean radius."""
    angle = np.linspace(-np.pi, np.pi, ANGLES, endpoint=False)
    radius = 1 / np.sqrt((np.cos(angle) ** 2) / lesion.aspect + (np.sin(angle) ** 2) * lesion.aspect)
    for k in (2, 3, 4):
        radius = radius + lesion.lobes / (k - 1) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    for k in range(4, 13):  # microlobulation; the modulus makes corners
        wave = np.abs(np.cos(k / 2 * angle + rng.uniform(0, np.pi))) - 0.64
        radius = radius + lesion.spikes * rng.uniform(0.1, 0.6) * wave * (4 / k) ** 0.5
    for direction in rng.uniform(-np.pi, np.pi, int(rng.integers(3, 8))):  # spicules
        gap = np.abs((angle - direction + np.pi) % (2 * np.pi) - np.pi)
        radius = radius + lesion.spikes * rng.uniform(0.3, 1.4) * np.maximum(0, 1 - gap / rng.uniform(0.12, 0.35))
    return np.maximum(radius, 0.3).astype(np.float32)


def echo_map(rng: np.random.Generator, grid: Grid, lesions: Sequence[Lesion]) -> tuple[Image, list[Mask]]:
    """Return the mean echo level in decibels, ``[rows, columns]`` float32, and the mask of each lesion.

    The lesions' contours are drawn anew from ``rng``: two calls with one lesion are two planes through it.
    """
    level = _layers_db(rng, grid)
    shadows = _shadows_db(rng, grid)
    masks: list[Mask] = []
    z = (np.arange(grid.rows, dtype=np.float32) * grid.row_mm)[:, None]
    x = (np.arange(grid.columns, dtype=np.float32) * grid.column_mm)[None, :]
    for lesion in lesions:
        u, v = x - lesion.x_mm, z - lesion.z_mm
        cos, sin = np.float32(np.cos(lesion.tilt)), np.float32(np.sin(lesion.tilt))
        angle = np.arctan2(cos * v - sin * u, cos * u + sin * v)
        direction = ((angle + np.float32(np.pi)) * np.float32(ANGLES / (2 * np.pi))).astype(int) % ANGLES
        outwards = np.hypot(u, v) - np.float32(lesion.radius_mm) * _contour(rng, lesion)[direction]
        inside = _step(-outwards / lesion.edge_mm)
        texture = smooth_noise(rng, level.shape, (0.9 / grid.row_mm, 1.1 / grid.column_mm))
        level = level + lesion.halo_db * np.exp(-(((outwards - 0.8) / 1.1) ** 2))
        level = level + (lesion.contrast_db + lesion.texture_db * texture - level) * inside
        level = level + lesion.rim_db * np.square(np.sin(angle) ** 2) * np.exp(-(((outwards - 0.2) / 0.3) ** 2))
        path_mm = np.cumsum(inside, axis=0, dtype=np.float32) * np.float32(grid.row_mm)
        shadows = shadows + lesion.path_db_per_mm * path_mm * (1 - inside)
        masks.append(outwards < 0)
    return (level + shadows).astype(np.float32), masks


def _beam(field: Image, focus: float, sigma: tuple[float, float]) -> Image:
    """Blur across the lines: ``sigma[0]`` columns at the relative depth ``focus``, towards ``sigma[1]`` away from it.

    The two filtered fields are mixed row by row, which is linear and so keeps the speckle fully developed.
    """
    away = np.abs(np.linspace(0, 1, len(field)) - focus)[:, None] / max(focus, 1 - focus)
    near, far = (np.sqrt(np.clip(part, 0, 1)).astype(np.float32) for part in (1 - away, away))
    narrow, wide = (
        ndimage.gaussian_filter1d(field, s, axis=1, mode="nearest", truncate=3) * np.float32(np.sqrt(s)) for s in sigma
    )
    return narrow * near + wide * far


@dataclass(frozen=True, kw_only=True)
class Display:
    """How the scanner shows the envelope."""

    range_db: float
    """Width of the grey scale."""
    gain_db: float
    """Level of fibroglandular tissue above the black end."""
    gamma: float
    """Exponent of the grey map."""


def draw_display(rng: np.random.Generator) -> Display:
    """Draw an operator's setting, the same for every class."""
    return Display(range_db=rng.uniform(42, 58), gain_db=rng.uniform(22, 36), gamma=rng.uniform(1.0, 1.5))


def b_mode(rng: np.random.Generator, level_db: Image, grid: Grid, display: Display) -> NDArray[np.uint8]:
    """Return the B-mode image of the echo levels ``level_db``, ``[rows, columns]`` uint8.

    Works at base band: complex scatterers, so that the modulus is the envelope. Its power is smoothed over about a
    resolution cell, which stands for the compounding and speckle reduction of clinical scanners.
    """
    amplitude = np.power(10, level_db / 20, dtype=np.float32)
    axial = max(0.10 / grid.row_mm, 0.6)
    lateral = (max(0.13 / grid.column_mm, 0.6), max(0.30 / grid.column_mm, 1.0))
    focus = rng.uniform(0.3, 0.6)
    power = np.zeros_like(amplitude)
    for _ in range(2):  # real and imaginary part
        field = amplitude * rng.standard_normal(amplitude.shape, dtype=np.float32)
        field = ndimage.gaussian_filter1d(field, axial, axis=0, mode="nearest", truncate=3)
        power += _beam(field, focus, lateral) ** 2
    power = ndimage.gaussian_filter(power, (1.2 * axial, 1.6 * lateral[0]), mode="nearest", truncate=2)
    power *= np.float32(axial * 2 * np.pi)
    grey = np.clip((10 * np.log10(power + 1e-6) + display.gain_db) / display.range_db, 0, 1) ** display.gamma
    return (255 * grey).astype(np.uint8)


def radio_frequency(rng: np.random.Generator, level_db: Image, samples: int, gain_db: float) -> NDArray[np.int16]:
    """Return echoes sampled at 40 MHz of a 10 MHz pulse, ``[samples, lines]`` int16.

    ``level_db`` ``[rows, lines]`` may be coarser in depth. ``gain_db`` is the envelope of fibroglandular tissue in
    decibels over one count. The first three rows hold the switching transient that the real recordings show.
    """
    at = np.linspace(0, len(level_db) - 1, samples, dtype=np.float32)
    low = np.minimum(at.astype(int), len(level_db) - 2)
    level = level_db[low] + (level_db[low + 1] - level_db[low]) * (at - low)[:, None].astype(np.float32)
    reflectivity = np.power(10, (level + np.float32(gain_db)) / 20, dtype=np.float32)
    reflectivity *= rng.standard_normal(level.shape, dtype=np.float32)
    sigma_us = np.sqrt(8 * np.log(2)) / (2 * np.pi * BANDWIDTH_MHZ)
    t_us = np.arange(-12, 13) / SAMPLING_MHZ
    pulse = np.exp(-0.5 * (t_us / sigma_us) ** 2) * np.cos(2 * np.pi * CENTRE_MHZ * t_us)
    pulse = (pulse / np.sqrt((pulse**2).sum())).astype(np.float32)
    echoes = _beam(
        ndimage.convolve1d(reflectivity, pulse, axis=0, mode="constant"), rng.uniform(0.35, 0.55), (2.0, 4.5)
    )
    echoes += 8 * rng.standard_normal(echoes.shape, dtype=np.float32)  # thermal noise of the receiver
    counts = np.clip(np.rint(echoes), -25000, 25000).astype(np.int16)
    starts = np.array([[0, -6548, -17424], [0, -3867, -10290], [0, -6548, -23971], [0, -8730, -23971]], np.int16)
    counts[:3] = starts[rng.integers(len(starts), size=counts.shape[1])].T
    return counts


@dataclass(frozen=True, kw_only=True)
class Breast:
    """What all views of one breast share; lengths in pixels of 256."""

    malignant: bool
    height: float
    depth: float
    density: float
    """Threshold of the fibroglandular field: higher is denser."""
    finding: str
    """``spiculated``, ``distortion``, ``circumscribed``, ``calcification`` or ``none``."""
    radius: float
    contrast: float
    microcalcifications: bool


def draw_breast(rng: np.random.Generator, malignant: bool) -> Breast:
    """Draw one breast; negatives are mostly normal screens, some with a benign finding."""
    if malignant:
        finding = str(rng.choice(["spiculated", "distortion"], p=[0.8, 0.2]))
    else:
        finding = str(rng.choice(["circumscribed", "calcification", "none"], p=[0.45, 0.15, 0.40]))
    return Breast(
        malignant=malignant,
        height=rng.uniform(85, 122),
        depth=rng.uniform(95, 190),
        density=rng.normal(0, 0.6),
        finding=finding,
        radius=rng.uniform(12, 24),
        contrast=rng.uniform(0.16, 0.30),
        microcalcifications=malignant and bool(rng.random() < 0.4),
    )


def power_law_noise(rng: np.random.Generator, size: int, beta: float = 3.0) -> Image:
    """Return ``[size, size]`` noise of power spectrum 1/f^beta, zero mean, unit variance."""
    spectrum = fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    frequency = np.hypot(fft.fftfreq(size)[:, None], fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf
    field = fft.irfft2(spectrum * (np.maximum(frequency, 2 / size) ** (-beta / 2)).astype(np.float32), s=(size, size))
    return ((field - field.mean()) / field.std()).astype(np.float32)


def _spicules(rng: np.random.Generator, radius: float, r: Image, angle: Image) -> Image:
    """Return strands that radiate from the centre and fade outwards, at most 1."""
    count = int(rng.integers(9, 20))
    strands = np.zeros_like(r)
    for direction in 2 * np.pi * (np.arange(count) + rng.uniform(-0.35, 0.35, count)) / count:
        length, width = radius * rng.uniform(1.3, 3.2), rng.uniform(1.0, 2.0)
        bend, weight = rng.normal(0, 0.006), rng.uniform(0.4, 1.0)
        gap = (angle - direction - bend * r + np.pi) % (2 * np.pi) - np.pi
        across = r * np.sin(np.clip(gap, -np.pi / 2, np.pi / 2))
        strand = weight * np.exp(-0.5 * (across / width) ** 2) * np.clip(1 - r / length, 0, 1) ** 0.7
        strands = np.maximum(strands, strand)
    return strands


def _grains(
    rng: np.random.Generator, x: float, y: float, spread: float, count: int, size: tuple[float, float]
) -> Image:
    """Return bright grains of standard deviation ``size`` pixels around a point, at most about 1."""
    rows, columns = np.mgrid[:MAMMOGRAM_SIZE, :MAMMOGRAM_SIZE].astype(np.float32)
    field = np.zeros_like(rows)
    for _ in range(count):
        cx, cy, sigma = x + rng.normal(0, spread), y + rng.normal(0, spread), rng.uniform(*size)
        field = np.maximum(field, np.exp(-0.5 * ((rows - cy) ** 2 + (columns - cx) ** 2) / sigma**2))
    return field


def mammogram(rng: np.random.Generator, breast: Breast, view: str, left: bool) -> NDArray[np.uint8]:
    """Return one view of ``breast``, ``[256, 256]`` uint8; the chest wall is on the left of a left breast.

    ``view`` is ``CC`` or ``MLO`` (which shows the pectoral muscle); position, gain and background are drawn anew.
    """
    size = MAMMOGRAM_SIZE
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    oblique = view != "CC"
    middle = size / 2 + (18 if oblique else 0) + rng.normal(0, 8)
    height, depth = breast.height * rng.uniform(0.95, 1.05), breast.depth * rng.uniform(0.93, 1.07)
    sag = (12 if oblique else 0) + rng.normal(0, 5)
    y = (rows - middle - sag * np.clip(columns / depth, 0, 1)) / height
    rim = np.maximum(np.abs(y), 1e-3) ** rng.uniform(2.0, 2.6) + (columns / depth) ** rng.uniform(1.9, 2.4)
    inward = (1 - rim) * depth / 2.2  # about the distance from the skin in pixels
    thickness = np.clip(1 - np.exp(-np.maximum(inward, 0) / 9), 0, 1)

    texture = power_law_noise(rng, size)
    strands = np.exp(-((power_law_noise(rng, size, 2.6) / 0.10) ** 2))
    central = np.exp(-0.5 * ((columns - 0.45 * depth) / (0.35 * depth)) ** 2 - 0.5 * (y / 0.45) ** 2)
    gland = _step(0.35 * (texture + breast.density + 1.6 * central - 0.9))
    attenuation = 0.28 + 0.34 * gland * _step((inward - 12) / 8) + 0.05 * texture * gland + 0.05 * strands
    attenuation = attenuation + 0.012 * rng.standard_normal((size, size), dtype=np.float32)
    if oblique:
        foot, reach = rng.uniform(0.45, 0.75) * size, rng.uniform(0.22, 0.42) * size
        pectoral = _step((1 - rows / foot - columns / reach) * reach / 4)
        attenuation = attenuation + pectoral * (rng.uniform(0.55, 0.72) + 0.03 * texture - attenuation)

    # Uniform over the part of the breast that holds a lesion of any size: the same draw for every finding.
    room = np.flatnonzero((inward > 30) & (columns > 26) & (np.abs(y) < 0.8))
    spot = int(room[rng.integers(len(room))]) if len(room) else int(middle) * size + int(depth / 2)
    cy, cx = divmod(spot, size)
    r, angle = np.hypot(rows - cy, columns - cx), np.arctan2(rows - cy, columns - cx)
    radius, contrast = breast.radius * rng.uniform(0.92, 1.08), breast.contrast
    if breast.finding in ("spiculated", "distortion"):
        if breast.finding == "spiculated":
            border = radius * (0.75 + 0.12 * np.cos(3 * angle + rng.uniform(0, 6)) + 0.08 * np.cos(5 * angle))
            attenuation = attenuation + contrast * (1 + 0.2 * texture) * _step((border - r) / (0.5 * radius))
        attenuation = attenuation + 0.8 * contrast * _spicules(rng, radius, r, angle)
    elif breast.finding == "circumscribed":
        flat = 1 + 0.18 * np.cos(2 * angle + rng.uniform(0, 6))
        attenuation = attenuation + contrast * (1 + 0.1 * texture) * _step((radius * flat - r) / (0.25 * radius))
    elif breast.finding == "calcification":
        attenuation = attenuation + 0.4 * _grains(rng, cx, cy, 8, int(rng.integers(1, 5)), (1.5, 3.0))
    if breast.microcalcifications:
        attenuation = attenuation + 0.4 * _grains(rng, cx, cy, radius / 2, int(rng.integers(8, 16)), (0.6, 0.9))

    image = thickness * attenuation + 0.06 * np.exp(-(((inward - 1.5) / 1.5) ** 2))
    image = rng.uniform(0.75, 1.15) * np.maximum(image, 0) ** rng.uniform(0.85, 1.3) + rng.uniform(0, 0.04)
    if not left:
        image = image[:, ::-1]
    return (255 * np.clip(image, 0, 1)).astype(np.uint8)
