"""What a search asks for: words with a minus, scenes as examples, and filters."""

import datetime
from functools import partial

import numpy as np
import pytest

from earthvlm.data.questions.scene_sentences import SEARCHED_AS
from earthvlm.embeddings.dataset import write_embedding_dataset
from earthvlm.embeddings.filters import parse_bbox, parse_date
from earthvlm.search.index import SceneFilter, SceneIndex
from earthvlm.search.query import Words, parse_words
from earthvlm.search.relevance import combine_examples, sample_background
from tests.support.made_scenes import PROVENANCE, get_ids, make_rows, make_vectors, mix_vectors


@pytest.mark.parametrize(
    ("text", "wanted", "unwanted"),
    [
        ("a river -city", "a river", ("city",)),
        ('a river -"bare soil" -city', "a river", ("bare soil", "city")),
        ("-city a river", "a river", ("city",)),
        ("-city", "", ("city",)),
        ("built-up land - with trees", "built-up land - with trees", ()),
        ('"open water" near forest', "open water near forest", ()),
        ("10 -20 degrees", "10 degrees", ("20",)),
        ('a river -"city', "a river - city", ()),
        ("--city", "--city", ()),
    ],
)
def test_a_minus_is_read_where_a_word_starts(text, wanted, unwanted):
    assert parse_words(text) == Words(wanted, unwanted)


def test_dates_and_boxes_are_read_from_text():
    assert parse_date(" 2020-02-29 ") == datetime.date(2020, 2, 29)
    assert parse_bbox("170, -20, −170.5, 0") == (170, -20, -170.5, 0)
    assert parse_bbox("4 47\t16,55") == (4, 47, 16, 55)


@pytest.mark.parametrize("text", ["29.2.2020", "2021-02-29", "20200229", "yesterday", ""])
def test_what_is_no_date_is_explained(text):
    with pytest.raises(ValueError, match="is no date as in 2020-06-30"):
        parse_date(text)


@pytest.mark.parametrize(
    "text",
    ["", "4, 47, 16", "4, 47, 16, 55, 0", "4, 55, 16, 47", "181, 0, 4, 1", "a b c d", "nan 0 1 1"],
)
def test_what_is_no_box_is_explained(text):
    with pytest.raises(ValueError, match="west, south, east and north in degrees.*was given$"):
        parse_bbox(text)


@pytest.fixture
def index(tmp_path):
    """Twelve scenes on a line of latitude, from 150 degrees east to 150 degrees west."""
    rows = make_rows(12)
    for number, row in enumerate(rows):
        row["longitude"] = (150 + 60 / 11 * number + 180) % 360 - 180
        row["latitude"] = -60.0 + 10 * number
        row["date"] = datetime.date(2020, number + 1, 15)
        row["source"] = "ESA, L2A" if number % 2 else "Other"
    rows[11] |= {"longitude": None, "date": None, "source": None}
    write_embedding_dataset(tmp_path, rows, *PROVENANCE)
    return SceneIndex.from_pretrained(tmp_path)


def numbers(results) -> list[int]:
    return sorted(int(image_id.removeprefix("tile_")) for image_id in get_ids(results))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, list(range(12))),
        ({"bbox": (-180, -90, 180, 90)}, list(range(11))),
        ({"bbox": (140, -90, 180, 90)}, [0, 1, 2, 3, 4, 5]),
        ({"bbox": (170, -90, -170, 90)}, [4, 5, 6, 7]),  # across the date line
        ({"bbox": (170, -20, -170, 0)}, [4, 5, 6]),  # edges are inside
        ({"first_date": datetime.date(2020, 10, 15)}, [9, 10]),
        ({"last_date": datetime.date(2020, 2, 14)}, [0]),
        ({"source": "esa"}, [1, 3, 5, 7, 9]),
        ({"source": "esa", "split": "examples"}, [3, 9]),
        ({"bbox": (0, 0, 1, 1)}, []),
    ],
)
def test_filters_decide_who_takes_part(index, where, expected):
    where = SceneFilter(**where)
    assert numbers(index.browse(where=where)) == expected
    found = index.search(make_vectors(1, 9)[0], k=12, where=where)
    assert numbers(found) == expected
    assert [result.scene_rank for result in found] == list(range(1, len(found) + 1))


DATE, BOX = datetime.date(2020, 1, 1), (-180, -90, 180, 90)


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ({}, ""),
        ({"split": "tiles"}, ""),
        ({"first_date": DATE}, "1 scene without a date was left out."),
        ({"last_date": datetime.date(2020, 1, 1)}, "1 scene without a date was left out."),
        ({"bbox": BOX, "first_date": DATE}, "1 scene without a place or date was left out."),
        ({"bbox": BOX, "split": "examples"}, ""),  # which the one without a place is not of
        ({"source": "esa", "bbox": BOX}, "1 scene without a source or place was left out."),
    ],
)
def test_a_search_says_what_lacks_the_filtered_value(index, where, sentence):
    where = SceneFilter(**where)
    assert index.search(make_vectors(1, 9)[0], k=3, where=where).warning == sentence
    assert index.browse(where=where).warning == sentence


def test_scenes_that_another_filter_excludes_are_not_counted(tmp_path):
    rows = make_rows(4)
    for row, date in zip(rows, (None, None, None, DATE), strict=True):
        row["date"] = date
    write_embedding_dataset(tmp_path, rows, *PROVENANCE)
    where = SceneFilter(first_date=DATE, bbox=(12.5, 50, 20, 55))  # east of the first
    found = SceneIndex.from_pretrained(tmp_path).browse(where=where)
    assert found.warning == "2 scenes without a date were left out."


@pytest.mark.parametrize(
    "words",
    [
        "ein See neben Wald",
        "forêt près d'une rivière",
        "bosque cerca de la ciudad",
        "jezioro obok lasu",
        "озеро в лесу",
        "森のそばの湖",
    ],
)
def test_words_of_another_language_get_a_hint(index, embed_words, words):
    embed_words(make_vectors(1, 9)[0])
    assert index.search(words, k=1).warning.endswith("search in English.")


def test_english_words_and_names_get_no_hint(index, embed_words):
    embed_words(make_vectors(1, 9)[0])
    texts = ("a lake -city", "Las Vegas", "Rio de Janeiro", "São Paulo", "Ötztal", "B08")
    for words in (*texts, *(words for each in SEARCHED_AS.values() for words in each)):
        assert index.search(words, k=1).warning == "", words


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            {"bbox": (0, 10, 1, 5)},
            "a bounding box is west, south, east and north.*0, 10, 1, 5 was given",
        ),
        ({"bbox": (16, 47, 4, 55)}, "348 degrees wide.*swap west and east"),
        ({"bbox": (0, 0, 181, 5)}, "longitudes from -180 to 180"),
        ({"bbox": (0, 0, float("nan"), 5)}, "a bounding box is"),
        ({"bbox": (0, 0, 1)}, "a bounding box is"),
        (
            {"first_date": datetime.date(2021, 1, 1), "last_date": datetime.date(2020, 1, 1)},
            "2021-01-01, is after the last, 2020-01-01",
        ),
        ({"split": "val"}, "no split 'val'; choose one of examples, tiles"),
        ({"source": "NASA"}, "^no source of .* contains 'NASA'; one of its sources is 'ESA, L2A'$"),
    ],
)
def test_filters_that_cannot_be_are_refused(index, where, message):
    with pytest.raises(ValueError, match=message):
        index.search(make_vectors(1, 9)[0], where=SceneFilter(**where))


def test_a_result_finds_its_like_without_a_bridge(index):
    result = index.get("tile_03")
    found = index.search(result, k=12)
    assert get_ids(found) == [
        image_id
        for image_id in get_ids(index.search(index.table.vectors("scene")[3], k=12))
        if image_id != "tile_03"
    ]
    assert len(found) == 11
    with pytest.raises(ValueError, match="no scene 'tile_99'"):
        index.get("tile_99")


def test_words_and_an_example_are_joined(tmp_path, embed_words):
    rows = make_rows(12)
    words, example = make_vectors(2, 9)
    embed_words(words)
    rows[2]["scene_embedding"] = mix_vectors(words, example, 0.5)
    rows[4]["scene_embedding"] = mix_vectors(words, -example, 0.8)
    rows[6]["scene_embedding"] = mix_vectors(-words, example, 0.2)
    for row in rows:
        row["caption"] = row["caption_embedding"] = None
    write_embedding_dataset(tmp_path, rows, *PROVENANCE)
    index = SceneIndex.from_pretrained(tmp_path)
    first = index.search(["a lake", example], k=1)[0]
    assert first.image_id == "tile_02"
    assert first.scene_similarity == pytest.approx(rows[2]["scene_embedding"] @ words, abs=1e-5)
    assert first.example_similarity == pytest.approx(rows[2]["scene_embedding"] @ example, abs=1e-5)
    assert (first.scene_rank, first.example_rank, first.caption_rank) == (2, 2, None)
    # Several examples are one vector, and are not found themselves.
    examples = np.array([rows[number]["scene_embedding"] for number in (2, 7)])
    joined = combine_examples(examples, examples[:0], partial(sample_background, index.table))
    both = index.search([index.get("tile_02"), index.get("tile_07")], k=12)
    expected = [i for i in get_ids(index.search(joined, k=12)) if i not in ("tile_02", "tile_07")]
    assert get_ids(both) == expected
    for wrong in (["a lake", "a river"], []):
        with pytest.raises(ValueError, match="one text, examples, or both"):
            index.search(wrong)


def test_a_minus_moves_what_is_unwanted_down(tmp_path):
    from earthvlm.models.text_encoder import embed_sentences

    captions = ["A river through a city.", "A river through forest.", "A dense city.", "Fields."]
    rows = [
        {"image_id": caption, "split": "tiles", "caption": caption, "caption_embedding": vector}
        for caption, vector in zip(captions, embed_sentences(captions), strict=True)
    ]
    write_embedding_dataset(tmp_path, rows, *PROVENANCE)
    index = SceneIndex.from_pretrained(tmp_path)
    assert get_ids(index.search("a river in a city", k=1)) == ["A river through a city."]
    assert get_ids(index.search("a river -city", k=1)) == ["A river through forest."]
    assert get_ids(index.search('river -"in the forest"', k=1)) == ["A river through a city."]
    assert get_ids(index.search("-city"))[0] in ("A river through forest.", "Fields.")
    with pytest.raises(ValueError, match="the search is empty"):
        index.search('""')


def test_ranks_beyond_the_depth_add_nothing(tmp_path, embed_words, monkeypatch):
    rows = make_rows(40)
    embed_words(make_vectors(1, 9)[0])
    write_embedding_dataset(tmp_path, rows, *PROVENANCE)
    index = SceneIndex.from_pretrained(tmp_path)
    whole = index.search("a lake", k=40)
    monkeypatch.setattr("earthvlm.search.index.RANK_DEPTH", 8)
    cut = index.search("a lake", k=4)
    for result in cut:
        same = next(other for other in whole if other.image_id == result.image_id)
        assert result.caption_similarity == same.caption_similarity  # of a row beyond it, too
        assert result.scene_similarity == same.scene_similarity
        assert result.caption_rank in (same.caption_rank, None)
        ranks = [r for r in (result.caption_rank, result.scene_rank) if r is not None]
        assert result.score == pytest.approx(sum(1 / (60 + rank) for rank in ranks))
    assert np.all([(r.caption_rank or 0) <= 8 and (r.scene_rank or 0) <= 8 for r in cut])
