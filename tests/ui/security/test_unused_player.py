"""The video player of Gradio that the page does not load."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from earthvlm.ui.security import unused_player


def test_the_player_is_answered_with_its_exports_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(unused_player, "ASSETS", tmp_path)
    script = "var a={};function b(){}" + "b();" * 1000 + "export{a as n,b as r,b as default};\n"
    (tmp_path / "hls-X1_y.js").write_text(script)
    (tmp_path / "hls-other.js").write_text("play()")
    app = Starlette()
    unused_player.leave_out_player(app)
    client = TestClient(app)
    answer = client.get("/assets/hls-X1_y.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "export { cannotPlay as n, cannotPlay as r, cannotPlay as default };" in answer.text
    assert client.get("/assets/hls-other.js").status_code == 404  # Gradio's own route is below


def test_this_version_of_gradio_has_a_player():
    found = unused_player.write_stand_ins(unused_player.ASSETS)
    if not found and not list(unused_player.ASSETS.glob("Gallery-*.js")):
        pytest.skip("this version of Gradio names its scripts otherwise")
    assert len(found) == 1
