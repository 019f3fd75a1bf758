"""Draw what training images lack: snow, burnt ground, water, deserts, clouds, smoke, other light.

Every function takes pixels `[H, W, 12]` (reflectance x 10000, NaN in missing bands) and their
PixelLabels, and returns both changed; `vary` applies a random few of them in the order in which
light passes them: the ground, its slopes and shadows, the air, the sensor.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage, special

from earthvlm.data.augmentation import IS_VISIBLE, PATH_RADIANCE, TEN_METRE, fractal_noise
from earthvlm.data.drawn.spectra import WAVELENGTH, draw_spectrum
from earthvlm.data.pixel_labels import PixelLabels, cover_set
from earthvlm.scenes.bands import BANDS, TRUE_COLOUR_WHITE
from earthvlm.scenes.reflectance import normalized_difference

Labelled = tuple[np.ndarray, PixelLabels]

RED, NEAR_INFRARED = BANDS.index("B04"), BANDS.index("B08")
RED_EDGE = np.isin(BANDS, ("B05", "B06", "B07"))
SHORT_WAVE = np.isin(BANDS, ("B11", "B12"))
# The part of a pixel from which a drawn cover can be its label, and from which it is.
CAN_BE, IS = 0.25, 0.65
# Chances of `vary`, one after the other.
GROUND = {"water": 0.2, "snow": 0.12, "burnt": 0.1, "desert": 0.12, "wet": 0.06}
CLEAR_SKY, OVERCAST = 0.5, 0.25
# The part of lakes with a dry shore, as reservoirs have it.
DRY_SHORE = 0.35


def vary(pixels: np.ndarray, labels: PixelLabels, rng: np.random.Generator) -> Labelled:
    """Draw random phenomena over a scene, and take bands away."""
    draw = rng.random()
    for name, chance in GROUND.items():
        if draw < chance:
            pixels, labels = DRAW_GROUND[name](pixels, labels, rng)
            break
        draw -= chance
    if rng.random() < 0.15:
        pixels = shade_terrain(pixels, rng)
    pixels = change_light(pixels, rng)
    if rng.random() > CLEAR_SKY:
        sky = (draw_clouds, draw_clouds, draw_haze, draw_smoke, draw_shadow)[rng.integers(5)]
        pixels, labels = sky(pixels, labels, rng)
    if rng.random() < 0.2:  # a level-1C product
        pixels = pixels + PATH_RADIANCE * np.float32(rng.uniform(0.3, 1.3))
    if rng.random() < 0.15:
        pixels = ndimage.gaussian_filter(pixels, (rng.uniform(0.4, 1.0),) * 2, axes=(0, 1))
    return drop_bands(np.maximum(pixels, 0).astype(np.float32), rng), labels


def blend(
    pixels: np.ndarray, spectrum: np.ndarray, amount: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Cover the part `amount` `[H, W]` of each pixel by a textured surface of a spectrum."""
    height, width = amount.shape
    large = fractal_noise(height, width, rng) * rng.uniform(0.02, 0.15)
    fine = rng.normal(0, rng.uniform(0.01, 0.06), (height, width))
    # Some of what lay there shows as lighter and darker places.
    brightness = np.nanmean(pixels, axis=2)
    relief = np.log(np.maximum(brightness, 50) / np.maximum(brightness.mean(), 50))
    texture = np.exp(large + fine + rng.uniform(0, 0.4) * relief.clip(-1, 1))[..., None]
    surface = spectrum * texture.astype(np.float32)
    part = amount[..., None].astype(np.float32)
    return pixels * (1 - part) + surface * part


def draw_patches(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw the amount of an irregular patch or several, `[H, W]` from 0 to 1."""
    level = rng.uniform(-1.3, 1.5)
    edge = rng.uniform(4, 20)
    return special.expit(edge * (fractal_noise(shape[0], shape[1], rng) - level))


def draw_water(pixels: np.ndarray, labels: PixelLabels, rng: np.random.Generator) -> Labelled:
    """Draw lakes or a river, smooth and sometimes with sun glint."""
    shape = labels.possible.shape
    if rng.random() < 0.35:
        middle = fractal_noise(shape[0], shape[1], rng)
        width = rng.uniform(0.04, 0.3)
        amount = 1 / (1 + np.exp(20 * (np.abs(middle) - width)))
    else:
        amount = draw_patches(shape, rng)
    if rng.random() < DRY_SHORE:
        shore = ndimage.grey_dilation(amount, size=2 * rng.integers(1, 5) + 1)
        pixels = blend(pixels, draw_spectrum("bare soil", rng), shore, rng)
        labels = labels.drawn(shore, "bare soil", CAN_BE, IS)
    spectrum = draw_spectrum("water", rng)
    if rng.random() < 0.15:
        spectrum = spectrum + np.float32(rng.uniform(100, 500))
    ripples = rng.normal(0, rng.uniform(3, 25), (*shape, 1)).astype(np.float32)
    large = 1 + rng.uniform(0, 0.12) * fractal_noise(shape[0], shape[1], rng)[..., None]
    part = amount[..., None].astype(np.float32)
    pixels = pixels * (1 - part) + (spectrum * large + ripples) * part
    return pixels.astype(np.float32), labels.drawn(amount, "water", CAN_BE, IS)


def draw_snow(pixels: np.ndarray, labels: PixelLabels, rng: np.random.Generator) -> Labelled:
    """Draw snow on any cover; trees stand out of it, and water often stays open."""
    shape = labels.possible.shape
    amount = np.ones(shape) if rng.random() < 0.35 else draw_patches(shape, rng)
    amount = amount * rng.uniform(0.75, 1.0)
    plants = normalized_difference(pixels[..., NEAR_INFRARED], pixels[..., RED])
    trees = np.nan_to_num(ndimage.uniform_filter(plants, 3)) > rng.uniform(0.45, 0.8)
    amount = np.where(trees, amount * rng.uniform(0.1, 0.9), amount)
    water = labels.possible == cover_set(["water"])
    if rng.random() < 0.7:
        amount = np.where(water, 0, amount)
    pixels = blend(pixels, draw_spectrum("snow or ice", rng), amount, rng)
    if rng.random() < 0.7:
        pixels = pixels * np.float32(rng.uniform(0.35, 1.0))  # a low winter sun
    if rng.random() < 0.5:
        pixels = shade_terrain(pixels, rng)
    return pixels, labels.drawn(amount, "snow or ice", 0.3, 0.6)


def draw_burnt(pixels: np.ndarray, labels: PixelLabels, rng: np.random.Generator) -> Labelled:
    """Draw a burnt area; water does not burn."""
    amount = draw_patches(labels.possible.shape, rng) * rng.uniform(0.6, 1.0)
    water = labels.possible & cover_set(["water"]) > 0
    amount = np.where(water & (pixels[..., NEAR_INFRARED] < 1000), 0, amount)
    pixels = blend(pixels, draw_spectrum("burnt land", rng), amount, rng)
    return pixels, labels.drawn(amount, "burnt land", CAN_BE, 0.55)


def draw_desert(pixels: np.ndarray, labels: PixelLabels, rng: np.random.Generator) -> Labelled:
    """Replace plants by soil or by dry plants, and leave houses and water."""
    plants = normalized_difference(pixels[..., NEAR_INFRARED], pixels[..., RED])
    cover = "bare soil" if rng.random() < 0.6 else "sparse vegetation"
    start = rng.uniform(0.05, 0.4)
    amount = ((np.nan_to_num(plants) - start) / rng.uniform(0.1, 0.3)).clip(0, 1)
    amount = amount * rng.uniform(0.85, 1.0)
    pixels = blend(pixels, draw_spectrum(cover, rng), amount, rng)
    return pixels, labels.drawn(amount, cover, CAN_BE, 0.75)


def draw_wet(pixels: np.ndarray, labels: PixelLabels, rng: np.random.Generator) -> Labelled:
    """Wet the soil of a part of the scene, which darkens it, most in the short-wave infrared."""
    plants = normalized_difference(pixels[..., NEAR_INFRARED], pixels[..., RED])
    bare = (1 - np.nan_to_num(plants) / 0.4).clip(0, 1)
    amount = draw_patches(labels.possible.shape, rng) * bare
    water = rng.uniform(0.3, 1.0) * np.interp(
        WAVELENGTH, [400, 900, 1610, 2190], [0.5, 0.6, 1, 1.4]
    )
    return (pixels * np.exp(-amount[..., None] * water)).astype(np.float32), labels


DRAW_GROUND = {
    "wet": draw_wet,
    "water": draw_water,
    "snow": draw_snow,
    "burnt": draw_burnt,
    "desert": draw_desert,
}


def shade_terrain(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light slopes towards the sun and darken those away from it; shade is blue."""
    height = fractal_noise(pixels.shape[0], pixels.shape[1], rng)
    down, right = np.gradient(height)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * down + np.sin(angle) * right
    light = (1 + rng.uniform(0.1, 0.6) * slope / (slope.std() + 1e-6)).clip(0.08, 1.8)[..., None]
    sky = 0.12 * (490 / WAVELENGTH) ** 2  # the part of the light that comes from the sky
    return (pixels * (light * (1 - sky) + sky)).astype(np.float32)


def change_light(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vary the sun's height and the sensor: one gain for all bands, and a small one for each."""
    # A winter sun leaves a third of the light of noon in June, and houses are no burnt ground then.
    gain = rng.uniform(0.25, 0.85) if rng.random() < 0.22 else np.exp(rng.normal(0, 0.12))
    gains = gain * np.exp(rng.normal(0, 0.025, len(BANDS)))
    return (pixels * gains).astype(np.float32)


def draw_clouds(pixels: np.ndarray, labels: PixelLabels, rng: np.random.Generator) -> Labelled:
    """Draw thick cloud with thin edges, of water or ice, and its shadow on the ground."""
    shape = labels.possible.shape
    if rng.random() < 0.3:  # small heaps: the middle of a larger sky
        larger = fractal_noise(3 * shape[0], 3 * shape[1], rng)
        texture = larger[: shape[0], : shape[1]] + 0.5 * fractal_noise(shape[0], shape[1], rng)
    else:
        texture = fractal_noise(shape[0], shape[1], rng)
    level = -4.0 if rng.random() < OVERCAST else rng.uniform(-1.2, 1.6)
    thickness = 1 / (1 + np.exp(-(texture - level) * rng.uniform(2.5, 9)))
    thickness = thickness * rng.uniform(0.8, 1.0)
    away = rng.integers(-20, 21, 2)
    shadow = ndimage.shift(thickness, away, order=1, mode="nearest")[..., None]
    deep = rng.uniform(0.2, 0.7) * (WAVELENGTH / 2190) ** 0.15
    pixels = pixels * (1 - deep * shadow)
    short = rng.uniform(0.15, 0.8)  # ice clouds are dark there
    curve = np.interp(WAVELENGTH, [400, 900, 1610, 2190], [1.04, 1.0, short, 0.8 * short])
    # Clouds shade themselves: their sides and undersides are grey.
    relief = fractal_noise(shape[0], shape[1], rng) * rng.uniform(0, 0.2)
    relief = relief + rng.uniform(0.02, 0.25) * texture
    brightness = rng.uniform(2500, 11_000) * (1 + relief.clip(-0.6, 0.8)[..., None])
    part = thickness[..., None]
    pixels = pixels * (1 - part) + brightness.clip(1500, None) * curve * part
    return pixels.astype(np.float32), labels.drawn(thickness, "cloud", 0.2, 0.5)


def draw_shadow(pixels: np.ndarray, labels: PixelLabels, rng: np.random.Generator) -> Labelled:
    """Draw the shadow of a cloud that is out of view."""
    shade = draw_patches(labels.possible.shape, rng)[..., None]
    deep = rng.uniform(0.3, 0.8) * (WAVELENGTH / 2190) ** 0.2
    return (pixels * (1 - deep * shade)).astype(np.float32), labels


def draw_haze(pixels: np.ndarray, labels: PixelLabels, rng: np.random.Generator) -> Labelled:
    """Draw thin cloud or haze through which the ground shows, stronger in the blue."""
    texture = fractal_noise(pixels.shape[0], pixels.shape[1], rng)
    opacity = (rng.uniform(0.05, 0.45) + rng.uniform(0, 0.2) * texture).clip(0, 0.8)
    by_wavelength = np.minimum((490 / WAVELENGTH) ** rng.uniform(0.1, 1.4), 1)
    part = opacity[..., None] * by_wavelength
    veil = rng.uniform(2500, 5500) * np.interp(WAVELENGTH, [400, 900, 2190], [1.04, 1.0, 0.6])
    pixels = pixels * (1 - part) + veil * part
    return pixels.astype(np.float32), labels.drawn(opacity, "cloud", 0.4, 2.0)


def draw_smoke(pixels: np.ndarray, labels: PixelLabels, rng: np.random.Generator) -> Labelled:
    """Draw a plume of smoke: bluish grey, and clear in the short-wave infrared."""
    plume = draw_patches(labels.possible.shape, rng)
    opacity = (plume * rng.uniform(0.2, 0.9))[..., None]
    part = opacity * np.minimum((490 / WAVELENGTH) ** rng.uniform(1.2, 2.5), 1)
    pixels = pixels * (1 - part) + rng.uniform(1500, 3500) * part
    return pixels.astype(np.float32), labels.drawn(opacity[..., 0], "cloud", 0.45, 2.0)


def drop_bands(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Take bands away as other sources lack them: photos, four bands, no short-wave infrared."""
    draw = rng.random()
    if draw < 0.2:
        return make_photo(pixels, rng)
    if draw < 0.24:
        dropped = ~IS_VISIBLE
    elif draw < 0.30:
        dropped = ~TEN_METRE
    elif draw < 0.34:
        dropped = SHORT_WAVE
    elif draw < 0.40:
        dropped = RED_EDGE | np.isin(BANDS, rng.choice(["B11", "B12", ""], 1))
    elif draw < 0.45:  # one band of a source is often broken or left out
        dropped = np.isin(BANDS, rng.choice(["B11", "B12", "B12", "B05"], 1))
    elif draw < 0.5:
        dropped = ~IS_VISIBLE & (rng.random(len(BANDS)) < 0.3)
    else:
        return pixels
    return np.where(dropped, np.nan, pixels).astype(np.float32)


def make_photo(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make an 8-bit picture of the visible bands, with some viewer's brightness and contrast."""
    unit = pixels / TRUE_COLOUR_WHITE
    if rng.random() < 0.6:
        unit = np.maximum(unit * rng.uniform(0.6, 2.0), 0) ** rng.uniform(0.65, 1.15)
    levels = np.rint(unit.clip(0, 1) * 255) / 255 * TRUE_COLOUR_WHITE
    return np.where(IS_VISIBLE, levels, np.nan).astype(np.float32)
