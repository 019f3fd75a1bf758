// Until all of these are there the page is not shown; see style/page.css. Only the first time:
// what is shown later comes and goes.
const PARTS = [
  '#picture img', '#facts h2', '#examples img', '#chat .placeholder', '#prompt textarea',
];

function showWhole() {
  if (PARTS.every((part) => document.querySelector(part))) {
    document.documentElement.classList.add('whole');
  }
}

// Gradio names the pictures of a gallery by number; here the words below each say what it is.
function namePictures() {
  for (const picture of document.querySelectorAll('.thumbnail-item:has(.caption-label)')) {
    const words = picture.querySelector('.caption-label').textContent;
    if (picture.getAttribute('aria-label') !== words) picture.setAttribute('aria-label', words);
  }
}

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
  storeConversation();
}).observe(document, {
  subtree: true, childList: true, characterData: true,
  attributes: true, attributeFilter: ['aria-label'],
});
