// The page stays hidden until it has all of these for the first time; see style/page.css.
const PARTS = [
  '#picture img', '#scene-details h2', '#examples img', '#chat .placeholder', '#prompt textarea',
];

function showWhole() {
  if (PARTS.every((part) => document.querySelector(part))) {
    document.documentElement.classList.add('whole');
  }
}

// Gradio labels the pictures of a gallery by number; this page labels them by their captions.
function namePictures() {
  for (const picture of document.querySelectorAll('.thumbnail-item:has(.caption-label)')) {
    const words = picture.querySelector('.caption-label').textContent;
    if (picture.getAttribute('aria-label') !== words) picture.setAttribute('aria-label', words);
  }
}

// The server escapes the text of messages (tabs/streaming.py), and Gradio labels and copies them in
// that form; this page labels and copies them as they are shown.
function nameMessages() {
  for (const message of document.querySelectorAll('#chat [data-testid][aria-label]')) {
    const text = message.querySelector('.message-content')?.textContent;
    const label = message.getAttribute('aria-label');
    const shown = `${label.slice(0, label.indexOf(':'))}: ${text}`;
    if (text && label !== shown) message.setAttribute('aria-label', shown);
  }
}
document.addEventListener('click', (event) => {
  const button = event.target.closest('#chat [aria-label="Copy message"]');
  const row = button?.closest('.message-buttons')?.previousElementSibling;
  if (!row) return;
  const texts = [...row.querySelectorAll('.message-content')].map((each) => each.textContent);
  setTimeout(() => navigator.clipboard.writeText(texts.join('\n')));  // after Gradio's own copy
});

// A server that restarts loses the conversation. The browser stores what the server wrote here last,
// for this tab and address, and the page restores it when it is loaded again.
let stored = '';
function storeConversation() {
  const text = document.querySelector('#stored span')?.textContent ?? '';
  if (!text || text === stored) return;
  stored = text;
  // A browser may forbid it, or have no room.
  try { sessionStorage.setItem('earthvlm' + location.search, text); } catch {}
}

new MutationObserver(() => {
  showWhole();
  namePictures();
  nameMessages();
  storeConversation();
}).observe(document, {
  subtree: true, childList: true, characterData: true,
  attributes: true, attributeFilter: ['aria-label'],
});
