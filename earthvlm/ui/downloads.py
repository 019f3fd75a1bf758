"""Content from an action, saved by the browser as a file, or copied; API clients get it itself."""

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
# Copies text, with the page's address where that opens the scene again; the button says so a while.
COPY_QUOTE = """async (content) => {
  const address = new URL(location.href);
  const text = address.searchParams.has('scene') ? `${content}\\n${address.href}` : content;
  try { await navigator.clipboard.writeText(text); } catch { prompt('Copy this text:', text); }
  const button = document.querySelector('#quote');
  button.classList.add('done');
  setTimeout(() => button.classList.remove('done'), 2500);
}"""
