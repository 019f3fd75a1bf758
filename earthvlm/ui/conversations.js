// Conversations are kept in this browser alone. The server writes the one that is shown into
// #stored; here it is stored under its identifier, the entry of the browser's history gets that
// identifier, and the address names the scene and the last question. To show another conversation,
// its identifier is put into the history and #restore is clicked, which sends it to the server.
const PREFIX = 'earthvlm.talk.';
const MOST = 30;
let written = '';

function read(key) {
  try { return JSON.parse(localStorage.getItem(key)); } catch { return null; }
}

function readAll() {
  let keys = [];
  try { keys = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX)); } catch {}
  return keys.map((key) => ({key, ...read(key)})).filter((each) => each.messages)
    .sort((one, other) => (other.time ?? 0) - (one.time ?? 0));
}

// A browser may forbid storage, or have no room.
function keep(talk) {
  try {
    if (!lastQuestion(talk)) localStorage.removeItem(PREFIX + talk.talk);
    else localStorage.setItem(PREFIX + talk.talk, JSON.stringify({...talk, time: Date.now()}));
    for (const old of readAll().slice(MOST)) localStorage.removeItem(old.key);
  } catch {}
}

function lastQuestion(talk) {
  const asked = talk.messages.filter((message) => message.role === 'user');
  return talk.question || asked.at(-1)?.content || '';
}

function firstQuestion(talk) {
  return talk.messages[0]?.content || talk.question;
}

function addressOf(talk) {
  const address = new URL(location.href), question = lastQuestion(talk);
  address.searchParams.delete('scene');
  address.searchParams.delete('q');
  // Another visitor does not have this visitor's file.
  if (talk.image_id) address.searchParams.set('scene', talk.image_id);
  if (talk.image_id && question) address.searchParams.set('q', question);
  return address;
}

// A conversation without messages is not stored, but its entry of the history begins it again.
function remember(talk) {
  const before = history.state?.talk, untouched = !before && !location.search;
  const state = {
    ...history.state,
    talk: talk.talk,
    start: JSON.stringify({...talk, messages: [], question: ''}),
  };
  const address = untouched && !lastQuestion(talk) ? location.href : addressOf(talk);
  if (before && before !== talk.talk) history.pushState(state, '', address);
  else history.replaceState(state, '', address);
}

function list() {
  const select = document.querySelector('#talks select');
  if (!select) return;
  const talks = readAll(), shown = history.state?.talk;
  const options = talks.map((talk) => new Option(`${firstQuestion(talk)} (${talk.title})`, talk.talk));
  if (!talks.some((talk) => talk.talk === shown)) options.unshift(new Option('New conversation', ''));
  select.replaceChildren(...options);
  select.value = talks.some((talk) => talk.talk === shown) ? shown : '';
}

function follow() {
  const text = document.querySelector('#stored [data-talk]')?.textContent ?? '';
  if (!text || text === written) return;
  written = text;
  const talk = JSON.parse(text);
  keep(talk);
  remember(talk);
  list();
}

const restore = () => document.querySelector('#restore')?.click();
addEventListener('popstate', () => {
  if (history.state?.talk) restore();
  list();
});
addEventListener('storage', list);
document.addEventListener('change', (event) => {
  const chosen = event.target.closest('#talks select')?.value;
  const talk = chosen && read(PREFIX + chosen);
  if (!talk) return;
  remember(talk);
  restore();
});
new MutationObserver(() => {
  follow();
  if (!document.querySelector('#talks select')?.dataset.listed) {
    list();
    const select = document.querySelector('#talks select');
    if (select) select.dataset.listed = 'true';
  }
}).observe(document, {subtree: true, childList: true, characterData: true});
