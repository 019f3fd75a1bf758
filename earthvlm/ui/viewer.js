// Zooms and moves one scene's picture, and draws its attention map. Gradio runs this once for each
// viewer. The HTML inside `element` is replaced with each scene, so events are handled on `element`.
const view = {zoom: 1, x: 0, y: 0, word: -1, opacity: null};
const find = (what) => element.querySelector(what);

function place() {
  const sheet = find('.sheet'), port = find('.viewport');
  if (!sheet) return;
  const room = {x: port.clientWidth * (view.zoom - 1), y: port.clientHeight * (view.zoom - 1)};
  view.x = Math.min(0, Math.max(-room.x, view.x));
  view.y = Math.min(0, Math.max(-room.y, view.y));
  sheet.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
  port.classList.toggle('zoomed', view.zoom > 1);
}

function zoom(factor, at) {
  const port = find('.viewport').getBoundingClientRect();
  const point = at || {x: port.width / 2, y: port.height / 2};
  const before = view.zoom;
  view.zoom = Math.min(12, Math.max(1, view.zoom * factor));
  view.x = point.x - (point.x - view.x) * view.zoom / before;
  view.y = point.y - (point.y - view.y) * view.zoom / before;
  place();
}

// Darken areas with less attention than usual, and warm those with more.
function overlay() {
  const figure = find('.viewer'), canvas = find('canvas');
  if (!figure) return;
  const shown = figure.dataset.maps && view.word !== -2;
  canvas.hidden = !shown;
  if (!shown) return;
  const {columns, rows, maps} = JSON.parse(figure.dataset.maps);
  const values = atob(maps[view.word + 1] || maps[0]);
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext('2d'), pixels = context.createImageData(columns, rows);
  for (let i = 0; i < columns * rows; i++) {
    const value = values.charCodeAt(i) / 255;
    pixels.data.set(value > 0.5
      ? [255, 190, 40, 220 * (value - 0.5)]
      : [8, 10, 30, 380 * (0.5 - value)], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
  element.querySelectorAll('.word').forEach((word) =>
    word.setAttribute('aria-pressed', String(Number(word.dataset.word) === view.word)));
}

// How much of the land-cover map is seen; other bands of a scene keep it.
function showCovers() {
  const slider = find('.opacity'), covers = find('.covers');
  if (!slider) { view.opacity = null; return; }
  if (view.opacity !== null) slider.value = view.opacity;
  covers.style.opacity = slider.value / 100;
}

// The link downloads the picture that is shown.
function offerPicture() {
  const picture = find('.sheet img');
  if (picture) find('a.tool').href = picture.src;
}

function shareLink() {
  const address = new URL(location.href);
  const asked = [...document.querySelectorAll('#chat [data-testid="user"]')].at(-1);
  address.search = '';
  address.searchParams.set('scene', find('.viewer').dataset.scene);
  if (asked) address.searchParams.set('q', asked.innerText.trim());
  return address.href;
}

const actions = {
  'zoom-in': () => zoom(1.6),
  'zoom-out': () => zoom(1 / 1.6),
  whole: () => { Object.assign(view, {zoom: 1, x: 0, y: 0}); place(); },
  link: async (button) => {
    const link = shareLink();
    try { await navigator.clipboard.writeText(link); } catch { prompt('Copy this link:', link); }
    button.classList.add('done');
    setTimeout(() => button.classList.remove('done'), 1500);
  },
};

element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.do) actions[button.dataset.do](button);
  if (button.dataset.word) { view.word = Number(button.dataset.word); overlay(); }
});
element.addEventListener('input', (event) => {
  if (!event.target.classList.contains('opacity')) return;
  view.opacity = event.target.value;
  showCovers();
});
element.addEventListener('keydown', (event) => {
  if (!event.target.classList.contains('viewport')) return;
  const moves = {ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40]};
  const signs = {'+': 'zoom-in', '=': 'zoom-in', '-': 'zoom-out', '0': 'whole'};
  if (moves[event.key] && view.zoom > 1) {
    view.x += moves[event.key][0];
    view.y += moves[event.key][1];
    place();
  } else if (signs[event.key]) actions[signs[event.key]]();
  else return;
  event.preventDefault();
});
// The wheel scrolls the page; with Ctrl held, or by a pinch, it zooms the picture.
element.addEventListener('wheel', (event) => {
  const port = event.target.closest('.viewport');
  if (!port || !event.ctrlKey) return;
  event.preventDefault();
  const box = port.getBoundingClientRect();
  zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, {x: event.clientX - box.x, y: event.clientY - box.y});
}, {passive: false});
element.addEventListener('dblclick', (event) => {
  const port = event.target.closest('.viewport');
  if (!port) return;
  const box = port.getBoundingClientRect();
  zoom(2, {x: event.clientX - box.x, y: event.clientY - box.y});
});
let held = null;
element.addEventListener('pointerdown', (event) => {
  const port = event.target.closest('.viewport');
  if (!port || view.zoom === 1) return;
  held = {x: event.clientX - view.x, y: event.clientY - view.y};
  port.setPointerCapture(event.pointerId);
});
element.addEventListener('pointermove', (event) => {
  if (!held) return;
  view.x = event.clientX - held.x;
  view.y = event.clientY - held.y;
  place();
});
for (const end of ['pointerup', 'pointercancel']) {
  element.addEventListener(end, () => { held = null; });
}

// Other bands of a scene keep the zoom and the word; another scene or answer resets them.
const seen = () => [find('.viewer')?.dataset.name, find('.viewer')?.dataset.maps];
let [scene, maps] = seen();
watch('value', () => {
  const [newScene, newMaps] = seen();
  if (newScene !== scene) Object.assign(view, {zoom: 1, x: 0, y: 0, opacity: null});
  if (newMaps !== maps) view.word = -1;
  [scene, maps] = [newScene, newMaps];
  draw();
});
function draw() {
  place();
  overlay();
  showCovers();
  offerPicture();
}
draw();
