"""Whether words are of another language than English, by their letters and some common words.

A bridge that was trained on questions in English alone answers others from what it guesses, and a
search, which compares words with English sentences, finds something for any words.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from earthvlm.data.questions.unanswerable import OTHER_LANGUAGES

LEAST_LETTERS = 3  # of a word that tells a language
# One such word tells it where there are few, because a place can have a foreign name.
FEW_WORDS = 3
# Words of these questions that English has too. The first ones tell a language next to others.
_TELLING_WITH_OTHERS = frozenset("das der des die dove est hay hier jest las les van var".split())
_ALSO_ENGLISH = _TELLING_WITH_OTHERS | frozenset(
    "ada air bina bos casas case che data date den describe dia domine este haut her hol hot hus "
    "image imagine kar land man mana nori occupation orman san sol superior tag tam ten tierra "
    "till tipo was wat water".split()
)
# Further words that join what a search names, and some of what it names.
_MORE = frozenset(
    "und mit ein eine einen einem einer neben zwischen ohne nahe fluss stadt meer berge felder "
    "une avec sans près rivière ville montagnes champs una cerca junto río ciudad campos montañas "
    "vicino fiume città montagne campi uma com perto cidade montanhas een naast rivier stad bergen "
    "jezioro rzeka miasto obok ett och sjö järvi joki nehir göl řeka město "
    "il du où quoi quel quels quelle quelles combien maison maisons lac que liegt mir zur cuánta "
    "cuántas cuántos dónde casa árboles welche wieviel gibt häuser bäume berg quanti quante quale "
    "alberi quanto quantos quantas árvores jaki jaka jakie dit".split()
)
_WORD = re.compile(r"[^\W\d_]+")


def seems_english(text: str) -> bool:
    """Return False for letters that English has not, and for common words of another language."""
    words = _WORD.findall(text.lower())
    if not all(_is_latin(word) for word in words):
        return False
    foreign = _foreign_words()
    if len(words) <= FEW_WORDS:
        return foreign.isdisjoint(words)
    marked = sum(word in foreign or not word.isascii() for word in words)
    if marked:
        marked += sum(word in _TELLING_WITH_OTHERS for word in words)
    return marked < 2


@cache
def _foreign_words() -> frozenset[str]:
    asked = " ".join(question for questions in OTHER_LANGUAGES for question in questions).lower()
    words = {word for word in _WORD.findall(asked) if len(word) >= LEAST_LETTERS}
    return _MORE | (words - _ALSO_ENGLISH)


def _is_latin(word: str) -> bool:
    return all(unicodedata.name(letter, "").startswith("LATIN") for letter in word)
