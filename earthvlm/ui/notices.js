// Gradio shows a notice in a corner, over the page, for a fixed time. Here each is shown where the
// visitor acted, until the next action or until it is closed.
const PLACES = '.question, .choose, .draw, .know, .search-by, .search-similar, #filters, '
  + '.search-summary, .result, .save-results, .world-map, #pair, #changes';
// Of these the notice is the last part, of others the first.
const LAST = '.choose, .draw, .know, #filters, .result';
const seen = new WeakSet();
let acted = null;

function isShown(element) {
  return Boolean(element?.isConnected && element.offsetParent);
}

function clear() {
  document.querySelectorAll('.notice').forEach((notice) => notice.remove());
}

function findPlace() {
  const place = acted?.closest(PLACES);
  if (isShown(place)) return place;
  const open = [...document.querySelectorAll('[role="tabpanel"]')].find(isShown);
  return open?.querySelector('.question') ?? open ?? document.querySelector('main');
}

function show(text) {
  clear();
  const notice = document.createElement('div'), close = document.createElement('button');
  const sentence = document.createElement('p');
  notice.className = 'notice';
  notice.setAttribute('role', 'alert');
  sentence.textContent = text;
  close.type = 'button';
  close.textContent = '×';
  close.setAttribute('aria-label', 'Close this notice');
  close.addEventListener('click', () => notice.remove());
  notice.append(sentence, close);
  const place = findPlace();
  if (place.matches(LAST)) place.append(notice);
  else place.prepend(notice);
  notice.scrollIntoView({block: 'nearest'});
}

for (const kind of ['click', 'change', 'drop', 'keydown']) {
  document.addEventListener(kind, (event) => {
    if (kind === 'keydown' && event.key !== 'Enter') return;
    if (!event.target.closest || event.target.closest('.notice, .toast-wrap')) return;
    acted = event.target;
    clear();
  }, {capture: true});
}

document.documentElement.classList.add('shows-notices');
new MutationObserver(() => {
  for (const toast of document.querySelectorAll('[data-testid="toast-text"]')) {
    if (seen.has(toast) || !toast.textContent.trim()) continue;
    seen.add(toast);
    // Gradio puts the status of a refused upload before its sentence.
    show(toast.textContent.trim().replace(/^HTTP \d{3}: /, ''));
    toast.closest('[data-testid="toast-body"]')?.querySelector('[data-testid="toast-close"]')?.click();
  }
}).observe(document, {subtree: true, childList: true, characterData: true});
