"""Whether words are of another language than English, by their letters and some common words.

Chat learns from the same questions of other languages; a search compares words with English
sentences, and finds something for any words.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from earthvlm.data.questions.unanswerable import OTHER_LANGUAGES

LEAST_LETTERS = 3  # of a word that tells a language
# Words of these questions that English has too, or names of places begin with.
_ALSO_ENGLISH = frozenset(
    "ada air bina bos casas case che das data date den des dia die domine dove est este haut hay "
    "her hier hol hot hus image imagine jest kar land las les man mana nori occupation orman san "
    "sol superior tag tam ten tierra till tipo van var was wat water".split()
)
# Further words that join what a search names, and some of what it names.
_MORE = frozenset(
    "und mit ein eine einen einem einer neben zwischen ohne nahe fluss stadt meer berge felder "
    "une avec sans près rivière ville montagnes champs una cerca junto río ciudad campos montañas "
    "vicino fiume città montagne campi uma com perto cidade montanhas een naast rivier stad bergen "
    "jezioro rzeka miasto obok ett och sjö järvi joki nehir göl řeka město".split()
)
_WORD = re.compile(r"[^\W\d_]+")


def seems_english(text: str) -> bool:
    """Return False for letters that English has not, and for a common word of another language."""
    words = _WORD.findall(text.lower())
    foreign = _foreign_words()
    return not any(word in foreign or not _is_latin(word) for word in words)


@cache
def _foreign_words() -> frozenset[str]:
    asked = " ".join(question for questions in OTHER_LANGUAGES for question in questions).lower()
    words = {word for word in _WORD.findall(asked) if len(word) >= LEAST_LETTERS}
    return _MORE | (words - _ALSO_ENGLISH)


def _is_latin(word: str) -> bool:
    return all(unicodedata.name(letter, "").startswith("LATIN") for letter in word)
