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

// A server that is restarted has lost the conversation. What it last wrote here for the browser to
// keep is given back when the page is loaded again, in this tab and at this address.
let kept = '';
function keepConversation() {
  const text = document.querySelector('#kept span')?.textContent ?? '';
  if (!text || text === kept) return;
  kept = text;
  // A browser may forbid it, or have no room.
  try { sessionStorage.setItem('earthvlm' + location.search, text); } catch {}
}

new MutationObserver(() => {
  showWhole();
  namePictures();
  keepConversation();
}).observe(document, {
  subtree: true, childList: true, characterData: true,
  attributes: true, attributeFilter: ['aria-label'],
});
