"""The tools for programs: their types, their documentation, and a map as data."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from gradio.utils import get_return_types
from gradio_client.utils import python_type_to_json_schema
from PIL import Image

from earthvlm.scenes.land_cover import COVERS, NO_DATA, CoverMap
from earthvlm.ui.security.mcp_messages import read_docstring
from earthvlm.ui.tools.api import Tools, write_map

TOOLS = (Tools.describe_scene, Tools.ask_scene, Tools.search_scenes)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_tools_have_types_and_whole_sentences(tool):
    (result,) = get_return_types(tool)
    schema = python_type_to_json_schema(result)
    assert schema["type"] == "object" and set(schema["required"]) == set(schema["properties"])
    assert all(schema["properties"].values())
    text, arguments = read_docstring(tool)
    assert ". Returns: " in text and "  " not in text
    annotated = set(tool.__annotations__) - {"request", "return"}
    assert set(arguments) == annotated
    for told in arguments.values():
        assert told[0].isupper() and told.endswith(".")


def test_a_map_is_written_as_places_in_its_covers():
    classes = np.full((4, 6), COVERS.index("water"), np.uint8)
    classes[:, 0], classes[0, 5] = COVERS.index("cloud"), NO_DATA
    written = write_map(CoverMap(classes))
    read = np.array(Image.open(io.BytesIO(base64.b64decode(written["png"]))))
    np.testing.assert_array_equal(read, classes)
    assert written["covers"] == list(COVERS) and (written["width"], written["height"]) == (6, 4)
    assert written["shares"]["water"] == pytest.approx(19 / 23, abs=1e-4)
