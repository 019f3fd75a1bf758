"""Text from an action, saved by the browser as a file; API clients get the text itself."""

from __future__ import annotations

# To be formatted with the file's name and its media type.
SAVE_TEXT = """(text) => {{
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {{type: '{kind};charset=utf-8'}}));
  link.download = '{name}';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}}"""
