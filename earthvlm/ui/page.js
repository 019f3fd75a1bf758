// The page stays hidden until it has all of these for the first time; see style/page.css.
const PARTS = [
  '#picture img', '#scene-details h2', '#examples img', '#chat .placeholder', '#prompt textarea',
];

function showWhole() {
  const page = document.documentElement.classList;
  if (page.contains('whole') || !PARTS.every((part) => document.querySelector(part))) return;
  page.add('whole');
  watchPinned();
}

// Gradio labels the pictures of a gallery by number; this page labels them by their captions.
function namePictures() {
  for (const picture of document.querySelectorAll('.thumbnail-item:has(.caption-label)')) {
    const words = picture.querySelector('.caption-label').textContent;
    if (picture.getAttribute('aria-label') !== words) picture.setAttribute('aria-label', words);
  }
}

// A message without what was measured, which stands below an answer.
function readMessage(message) {
  const copy = message.cloneNode(true);
  copy.querySelectorAll('.compared').forEach((part) => part.remove());
  return copy.textContent;
}

// The server escapes the text of messages (tabs/streaming.py), and Gradio labels and copies them in
// that form; this page labels and copies them as they are shown.
function nameMessages() {
  for (const message of document.querySelectorAll('#chat [data-testid][aria-label]')) {
    const content = message.querySelector('.message-content');
    const text = content && readMessage(content);
    const label = message.getAttribute('aria-label');
    const shown = `${label.slice(0, label.indexOf(':'))}: ${text}`;
    if (text && label !== shown) message.setAttribute('aria-label', shown);
  }
}
document.addEventListener('click', (event) => {
  const button = event.target.closest('#chat [aria-label="Copy message"]');
  const row = button?.closest('.message-buttons')?.previousElementSibling;
  if (!row) return;
  const texts = [...row.querySelectorAll('.message-content')].map(readMessage);
  setTimeout(() => navigator.clipboard.writeText(texts.join('\n')));  // after Gradio's own copy
});

document.addEventListener('click', (event) => {
  if (!event.target.closest('a.skip')) return;
  event.preventDefault();
  document.querySelector('#tabs [role="tab"]')?.click();  // the question is in the first tab
  requestAnimationFrame(() => document.querySelector('#prompt textarea')?.focus());
});

// Send and Stop take each other's place, and who uses the keyboard stays there.
let used = false;
document.addEventListener('click', (event) => {
  used = Boolean(event.target.closest('#send, #stop'));
});
function keepFocus() {
  if (!used || document.activeElement !== document.body) return;
  document.querySelector('#stop, #send')?.focus({preventScroll: true});
}

// In one column the page scrolls with the conversation, so a new question moves it to the top,
// below the picture; the answer grows below the question.
let asked = 0;
function followQuestions() {
  const before = asked;
  asked = document.querySelectorAll('#chat [data-testid="user"]').length;
  if (asked > before) showQuestion();
}
function showQuestion() {
  if (!matchMedia('(max-width: 999.9px)').matches) return;
  const questions = document.querySelectorAll('#chat [data-testid="user"]');
  questions[questions.length - 1]?.scrollIntoView({block: 'start'});
}
// The legend of a map comes with the first word of an answer and makes the picture's part higher.
let pinned = null;
const heights = new ResizeObserver(() => {
  document.documentElement.style.setProperty('--pinned', `${pinned.offsetHeight}px`);
  if (document.querySelector('#stop')?.offsetParent) showQuestion();
});
function watchPinned() {
  const part = [...document.querySelectorAll('.see, .pinned')]
    .find((each) => getComputedStyle(each).position === 'sticky');
  if (!part || part === pinned) return;
  heights.disconnect();
  heights.observe(pinned = part);
}
addEventListener('resize', watchPinned);

new MutationObserver(() => {
  showWhole();
  namePictures();
  nameMessages();
  keepFocus();
  followQuestions();
}).observe(document, {
  subtree: true, childList: true, characterData: true,
  attributes: true, attributeFilter: ['aria-label'],
});
