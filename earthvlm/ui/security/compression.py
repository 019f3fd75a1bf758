"""Compresses the page, its configuration and its list of endpoints.

Gradio compresses answers by the suffix of their path alone, and these have none.
"""

from __future__ import annotations

from typing import Any

from gradio.brotli_middleware import BrotliMiddleware

PATHS = ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json")


class PageCompression(BrotliMiddleware):
    """Middleware that compresses the answers at PATHS by brotli or gzip, as the browser accepts."""

    def _is_compressible_file_type(self, scope: Any) -> bool:
        path = scope.get("path", "")
        return path in PATHS or path.rstrip("/") in PATHS
