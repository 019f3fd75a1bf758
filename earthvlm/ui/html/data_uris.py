"""Pictures as data URIs, so that they reach the page without a request of their own."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image


def make_data_uri(picture: Image.Image, kind: str, **options: Any) -> str:
    """Return a picture as a data URI.

    kind: "png", "jpeg" or "webp". options: as `Image.save` takes them.
    """
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
