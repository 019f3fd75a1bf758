"""Spectral measurements for visitors: a summary, suggested questions, matches with a text."""

from __future__ import annotations

from earthvlm.scenes.analysis.spectral_indices import SpectralIndices, percent

# Shares below these are left out of a summary, or called none.
MIN_CLOUD_OR_SNOW, MIN_WATER = 0.05, 0.005
SUGGESTED_QUESTIONS = 5
# Words in an answer, the name of what they refer to, and the measured covers that it consists of.
_TOPICS: tuple[tuple[tuple[str, ...], str, tuple[str, ...]], ...] = (
    (("water", "lake", "river", "sea", "reservoir"), "open water", ("water",)),
    (("cloud", "haze"), "thick cloud", ("cloud",)),
    (("snow", "ice"), "snow", ("snow",)),
    (
        ("tree", "forest", "wood", "crop", "grass", "vegetation", "shrub", "field"),
        "vegetation of any kind",
        ("dense vegetation", "sparse vegetation"),
    ),
    (("built", "bare", "urban", "residential", "city"), "bare or built", ("bare or built",)),
)


def summarize_measurements(measurements: SpectralIndices | None) -> str:
    """Return a short phrase for a caption, such as "12 % water, 86 % vegetation"."""
    if measurements is None:
        return "No near infrared, so nothing was measured"
    parts = []
    for cover in ("cloud", "snow"):
        share = measurements.share(cover)
        if share >= MIN_CLOUD_OR_SNOW:
            parts.append(f"{percent(share)} {cover}")
    water, vegetation = measurements.share("water"), measurements.vegetation
    parts.append(f"{percent(water)} water" if water >= MIN_WATER else "no open water")
    parts.append(f"{percent(vegetation)} vegetation" if vegetation else "no vegetation")
    phrase = ", ".join(parts)
    return phrase[0].upper() + phrase[1:]


def suggest_questions(measurements: SpectralIndices | None) -> list[str]:
    """Return five questions that fit a scene, the most general first."""
    questions = ["Describe this scene.", "Which land cover dominates?"]
    if measurements is None:
        return [*questions, "Is there water?", "How much is built up?", "What is in the top left?"]
    fitting = []
    if measurements.share("cloud") > 0.1:
        fitting.append("Is the scene cloudy?")
    if measurements.share("snow") > 0.1:
        fitting.append("Is there snow?")
    if measurements.share("water") > 0.01:
        fitting += ["Is there water?", "Where is the water?"]
    if measurements.vegetation > 0.5:
        fitting.append("How much is covered by trees?")
    if measurements.share("bare or built") > 0.1:
        fitting.append("How much is built up?")
    spare = ["What is in the top left?", "Is there water?", "How much is cropland or grass?"]
    fitting += [question for question in spare if question not in fitting]
    return [*questions, *fitting][:SUGGESTED_QUESTIONS]


def select_measurements(text: str, measurements: SpectralIndices | None) -> list[tuple[str, float]]:
    """Return name and share, 0 to 1, of each measured cover that a question or answer mentions."""
    if measurements is None:
        return []
    words_found = text.lower()
    return [
        (name, measurements.share(*covers))
        for words, name, covers in _TOPICS
        if any(word in words_found for word in words)
        and any(cover in measurements.shares for cover in covers)
    ]
