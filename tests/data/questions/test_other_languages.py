"""Which questions count as being of another language."""

from __future__ import annotations

import pytest

from earthvlm.data.questions import overview, scenes, templates, unanswerable
from earthvlm.data.questions.other_languages import seems_english

NAMES = ("São Paulo", "Río Negro", "the Po delta", "Las Casas", "Loch Ness", "Český Krumlov")


def texts_of(value: object) -> list[str]:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        return [text for part in value for text in texts_of(part)]
    return [value] if isinstance(value, str) else []


def test_english_questions_count_as_english():
    wordings = [
        vars(module)[name]
        for module in (templates, overview, scenes, unanswerable)
        for name in vars(module)
        if name.isupper() and name.strip("_") not in ("LANGUAGES", "OTHER_LANGUAGES")
    ]
    english = texts_of(wordings)
    assert len(english) > 500
    assert [text for text in english if not seems_english(text)] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_foreign_name_in_an_english_question_does_not_count(name):
    assert seems_english(f"Is there water near {name}?")


FOREIGN = (
    *(
        "水？",
        "有河流吗",
        "中间是什么",
        "Wo liegt der See?",
        "Ist hier ein Fluss?",
        "wieviel wasser",
    ),
    *("¿Cuántas casas?", "Quelle est la couverture dominante ?", "où est le lac", "dit is wat?"),
    *("Qual è la copertura principale?", "Kde je řeka?", "Jaki jest dominujący typ terenu?"),
    *("Hur stor är sjön?", "dónde hay nubes", "Где река?", "هل يوجد نهر؟", "川はありますか"),
)


@pytest.mark.parametrize("question", FOREIGN)
def test_other_languages_are_recognised(question):
    assert not seems_english(question)


def test_nearly_all_that_training_declines_is_recognised():
    questions = [text for language in unanswerable.OTHER_LANGUAGES for text in language]
    missed = [text for text in questions if seems_english(text)]
    assert len(missed) <= 0.02 * len(questions)
