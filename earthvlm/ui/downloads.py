"""Content from an action, saved by the browser as a file; API clients get the content itself."""

from __future__ import annotations

_SAVE = """(content) => {{
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([PARTS], {{type: 'TYPE'}}));
  link.download = '{name}';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}}"""
# To be formatted with the file's name and its media type: for text, and for bytes in base64.
SAVE_TEXT = _SAVE.replace("PARTS", "content").replace("TYPE", "{kind};charset=utf-8")
SAVE_BYTES = _SAVE.replace(
    "PARTS", "Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))"
).replace("TYPE", "{kind}")
