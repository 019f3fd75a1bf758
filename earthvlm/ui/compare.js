// The Compare tab: two scenes that are zoomed and moved together, one over the other with a divider or
// side by side, and the maps of change. `element`, `props`, `trigger` and `watch` are Gradio's; the
// page runs this for each of its two components. pixels.js goes before it, in one scope.
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
  const drawn = port.clientWidth * view.zoom * devicePixelRatio;
  find('.ports').classList.toggle('zoomed', view.zoom > 1);
  find('.ports').classList.toggle('enlarged', drawn > Number(find('.port img').getAttribute('width')) * 1.001);
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

// Where in its port a place on the page is; ports lie next to each other, or one over the other.
function position({clientX, clientY}) {
  const ports = [...element.querySelectorAll('.port')];
  const boxes = ports.map((port) => port.getBoundingClientRect());
  const at = Math.max(0, boxes.findIndex((box) => clientX >= box.left && clientX <= box.right));
  return {at, x: clientX - boxes[at].x, y: clientY - boxes[at].y, width: boxes[at].width};
}

// Places and reflectance of the pixels that are pointed at: one of each scene where both show the
// same ground, else of one scene alone.
let scenes = [], pointed = [], resting = null;

function point(where) {
  clearTimeout(resting);
  const overlie = Boolean(find('.divider'));
  const image = where && element.querySelectorAll('.port img')[where.at];
  pointed = scenes.map((each, index) => {
    if (!where || (index !== where.at && !overlie)) return null;
    const column = (where.x - view.x) / view.zoom / image.clientWidth * each.scene.width;
    const row = (where.y - view.y) / view.zoom / image.clientHeight * each.scene.height;
    return each.at(column, row);
  });
  resting = setTimeout(ask, RESTING_MS);
  showValues();
}

function ask() {
  const blocks = scenes.map((each, index) => pointed[index] && each.wanted(pointed[index]));
  if (blocks.some((block) => block !== null)) trigger('select', {blocks});
}

function showValues() {
  const shown = scenes.map((each, index) => [each, pointed[index]]).filter(([, pixel]) => pixel);
  if (!shown.length) return; // the last values stay
  const [[first, pixel]] = shown;
  find('.values').textContent = [first.place(pixel), ...shown.map(([each, at]) =>
    `${each.scene.name}: ${each.list(at, each.scene.shown)}`)].join('\n');
}

function receive(sent) {
  sent?.forEach((block, index) => {
    if (block && block.key === scenes[index]?.scene.key) scenes[index].receive(block);
  });
  showValues();
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
  const port = find('.port');
  const moves = {ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40]};
  const signs = {'+': 'in', '=': 'in', '-': 'out', '0': 'whole'};
  if (moves[event.key] && view.zoom > 1) {
    view.x += moves[event.key][0];
    view.y += moves[event.key][1];
    place();
  } else if (signs[event.key]) zooms[signs[event.key]]();
  else return;
  event.preventDefault();
  event.target.classList.add('keyed'); // who uses the keys points at the middle
  point({at: 0, x: port.clientWidth / 2, y: port.clientHeight / 2});
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

// One finger or the mouse moves the divider, or the scenes where they are zoomed; two fingers zoom and
// move them.
const held = new Map();
const middle = (events) => ({
  clientX: events.reduce((sum, each) => sum + each.clientX, 0) / events.length,
  clientY: events.reduce((sum, each) => sum + each.clientY, 0) / events.length,
});
const distance = ([a, b]) => (b ? Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) : 0);

element.addEventListener('pointerdown', (event) => {
  if (!event.target.closest('.port')) return;
  held.set(event.pointerId, event);
  event.target.closest('.ports').setPointerCapture(event.pointerId);
  find('.ports').classList.remove('keyed');
  point(position(event));
});
element.addEventListener('pointermove', (event) => {
  if (!held.has(event.pointerId)) {
    if (event.target.closest('.port')) point(position(event));
    return;
  }
  const before = [...held.values()];
  held.set(event.pointerId, event);
  const now = [...held.values()];
  const at = position(middle(now));
  if (now.length > 1 || view.zoom > 1) {
    view.x += middle(now).clientX - middle(before).clientX;
    view.y += middle(now).clientY - middle(before).clientY;
    zoom(now.length > 1 ? distance(now) / (distance(before) || 1) : 1, at);
  } else if (find('.pair-view').dataset.mode === 'swipe') {
    view.split = Math.round(Math.min(100, Math.max(0, 100 * at.x / at.width)));
    place();
  }
  point(position(event));
});
for (const end of ['pointerup', 'pointercancel'])
  element.addEventListener(end, (event) => held.delete(event.pointerId));

// Other bands keep the zoom, the divider and what was read; another pair starts afresh.
function showPairOfScenes() {
  const given = JSON.parse(find('.pair-view')?.dataset.scenes ?? '[]');
  const isSame = given.length === scenes.length
    && given.every((scene, index) => scene.key === scenes[index].scene.key);
  if (isSame) given.forEach((scene, index) => { scenes[index].scene = scene; });
  else {
    scenes = given.map((scene) => new Pixels(scene));
    pointed = [];
    Object.assign(view, {zoom: 1, x: 0, y: 0, split: 50});
  }
  place();
  showValues();
}
watch('value', showPairOfScenes);
watch('pixels', () => receive(props.pixels));
new ResizeObserver(place).observe(element);
showPairOfScenes();
