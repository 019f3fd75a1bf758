// The Compare tab: two scenes that are zoomed and moved together, one over the other with a divider or
// side by side, and the maps of change. Gradio provides `element` and `watch`, and runs this for each.
const view = {zoom: 1, x: 0, y: 0, split: 50};
const MAX_ZOOM = 16;
const find = (what) => element.querySelector(what);

function place() {
  const port = find('.port');
  if (!port) return;
  const [width, height] = [port.clientWidth, port.clientHeight];
  view.x = Math.min(0, Math.max(width * (1 - view.zoom), view.x));
  view.y = Math.min(0, Math.max(height * (1 - view.zoom), view.y));
  for (const picture of element.querySelectorAll('.port img'))
    picture.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
  find('.ports').classList.toggle('zoomed', view.zoom > 1);
  find('.pair-view').style.setProperty('--split', `${view.split}%`);
  const divider = find('.divider');
  if (divider) divider.value = view.split;
}

function zoom(factor, at) {
  const port = find('.port');
  const point = at ?? {x: port.clientWidth / 2, y: port.clientHeight / 2};
  const before = view.zoom;
  view.zoom = Math.min(MAX_ZOOM, Math.max(1, view.zoom * factor));
  view.x = point.x - (point.x - view.x) * view.zoom / before;
  view.y = point.y - (point.y - view.y) * view.zoom / before;
  place();
}

const zooms = {
  in: () => zoom(1.6),
  out: () => zoom(1 / 1.6),
  whole: () => { Object.assign(view, {zoom: 1, x: 0, y: 0}); place(); },
};

function press(button, siblings) {
  for (const each of siblings) each.setAttribute('aria-pressed', String(each === button));
}

function choose(button) {
  if (button.dataset.zoom) zooms[button.dataset.zoom]();
  if (button.dataset.mode) {
    find('.pair-view').dataset.mode = button.dataset.mode;
    press(button, element.querySelectorAll('[data-mode][aria-pressed]'));
    place();
  }
  if (button.dataset.cover) {
    press(button, element.querySelectorAll('button[data-cover]'));
    for (const map of element.querySelectorAll('img[data-cover]'))
      map.hidden = map.dataset.cover !== button.dataset.cover;
  }
}

// Where in its port an event is.
function position(event) {
  const port = event.target.closest('.port') ?? find('.port');
  const box = port.getBoundingClientRect();
  return {x: event.clientX - box.x, y: event.clientY - box.y, width: box.width};
}

element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button) choose(button);
});
element.addEventListener('input', (event) => {
  if (!event.target.classList.contains('divider')) return;
  view.split = Number(event.target.value);
  place();
});
element.addEventListener('keydown', (event) => {
  if (!event.target.classList.contains('ports')) return;
  const moves = {ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40]};
  const signs = {'+': 'in', '=': 'in', '-': 'out', '0': 'whole'};
  if (moves[event.key] && view.zoom > 1) {
    view.x += moves[event.key][0];
    view.y += moves[event.key][1];
    place();
  } else if (signs[event.key]) zooms[signs[event.key]]();
  else return;
  event.preventDefault();
});
// The wheel scrolls the page; with Ctrl held, or by a pinch on a touchpad, it zooms.
element.addEventListener('wheel', (event) => {
  if (!event.ctrlKey || !event.target.closest('.port')) return;
  event.preventDefault();
  zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, position(event));
}, {passive: false});
element.addEventListener('dblclick', (event) => {
  if (event.target.closest('.port')) zoom(2, position(event));
});

// One finger or the mouse moves the divider, or the scenes where they are zoomed; two fingers zoom.
const held = new Map();
let apart = 0;
element.addEventListener('pointerdown', (event) => {
  if (!event.target.closest('.port')) return;
  held.set(event.pointerId, event);
  apart = 0;
  event.target.closest('.ports').setPointerCapture(event.pointerId);
});
element.addEventListener('pointermove', (event) => {
  const last = held.get(event.pointerId);
  if (!last) return;
  held.set(event.pointerId, event);
  if (held.size === 2) {
    const [a, b] = [...held.values()];
    const distance = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    if (apart) zoom(distance / apart, position(event));
    apart = distance;
  } else if (view.zoom > 1) {
    view.x += event.clientX - last.clientX;
    view.y += event.clientY - last.clientY;
    place();
  } else if (find('.pair-view').dataset.mode === 'swipe') {
    const {x, width} = position(event);
    view.split = Math.round(Math.min(100, Math.max(0, 100 * x / width)));
    place();
  }
});
for (const end of ['pointerup', 'pointercancel'])
  element.addEventListener(end, (event) => { held.delete(event.pointerId); apart = 0; });

// Other bands keep the zoom and the divider; another pair starts afresh.
let shown = find('.pair-view')?.dataset.name;
watch('value', () => {
  const name = find('.pair-view')?.dataset.name;
  if (name !== shown) Object.assign(view, {zoom: 1, x: 0, y: 0, split: 50});
  shown = name;
  place();
});
place();
