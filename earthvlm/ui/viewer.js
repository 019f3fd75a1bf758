// Shows one scene on a Leaflet map whose coordinates are metres: its picture, and maps over it.
// It runs once for each viewer, with Gradio's `element`, `props`, `trigger` and `watch`; what
// `props.value` holds is written in scene_viewer.py. viewer_parts.js and viewer_values.js go on in
// the same scope, the body of `showScene` (page_parts.py).
const L = window.L; // another part of the page may load a copy of its own
const LARGEST_PIXEL = 48; // CSS pixels
const find = (what) => element.querySelector(what);
const figure = find('.viewer'), frame = find('.viewport');
let map = null, layers = {}, scene = null;
let isWhole = true; // not zoomed in, so that it is fitted again when the frame changes

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Which scene is shown; other bands and maps of a scene keep the place and the zoom.
const sceneKey = (value) => value?.key ?? null;

function openMap() {
  map?.remove();
  frame.replaceChildren();
  layers = {};
  isWhole = true;
  const metres = scene.metres ?? 1;
  const crs = L.extend({}, L.CRS.Simple, {
    transformation: new L.Transformation(1 / metres, 0, -1 / metres, 0),
  });
  const bounds = L.latLngBounds([[-scene.height * metres, 0], [0, scene.width * metres]]);
  map = L.map(frame, {
    crs, zoomSnap: 0, zoomDelta: 0.7, wheelPxPerZoomLevel: 100, maxBounds: bounds,
    maxBoundsViscosity: 1, zoomControl: false, attributionControl: false, dragging: false,
    zoomAnimation: !matchMedia('(prefers-reduced-motion: reduce)').matches,
  });
  map.sceneBounds = bounds;
  if (scene.metres) L.control.scale({imperial: false, maxWidth: 110}).addTo(map);
  addControl('topleft', find('template').content.firstElementChild.cloneNode(true));
  if (scene.north !== null) addControl('topright', makeNorth(scene.north));
  fit();
  map.on('zoomend', showZoom);
  map.on('moveend', showCentre);
  map.on('mousemove', (event) => { showPlace(event.latlng); moveBox(event.latlng); });
  map.on('mouseout', () => showPlace(null));
  map.on('click', (event) => choosePart(event.latlng) || addProfile(event.latlng));
  map.whenReady(showZoom); // at once, or when a hidden tab is shown
}

function addControl(position, content) {
  const control = new (L.Control.extend({onAdd: () => content}))({position});
  L.DomEvent.disableClickPropagation(content);
  control.addTo(map);
}

function makeNorth(degrees) {
  const arrow = make('span', {textContent: '↑'});
  arrow.style.transform = `rotate(${degrees}deg)`;
  const north = make('div', {className: 'north', title: 'North'}, arrow, 'N');
  north.setAttribute('role', 'img');
  north.setAttribute('aria-label', `North is ${Math.round(degrees)} degrees right of the top`);
  return north;
}

// The whole scene at the smallest zoom; one of its pixels at the largest.
function fit() {
  const size = map.getSize();
  if (!size.x || !size.y) return;
  const zoom = Math.log2(Math.min(size.x / scene.width, size.y / scene.height));
  map.setMinZoom(Math.min(zoom, Math.log2(LARGEST_PIXEL)));
  map.setMaxZoom(Math.max(zoom, Math.log2(LARGEST_PIXEL)));
  map.invalidateSize({animate: false});
  if (isWhole) map.setView(map.sceneBounds.getCenter(), zoom, {animate: false});
}

// Enlarged pixels have sharp edges; reduced ones are averaged by the browser. One finger scrolls the
// page until there is something to move.
function showZoom() {
  isWhole = map.getZoom() <= map.getMinZoom() + 1e-3;
  frame.classList.toggle('enlarged', 2 ** map.getZoom() * devicePixelRatio > 1.001);
  frame.classList.toggle('zoomed', !isWhole);
  frame.dataset.zoom = map.getZoom().toFixed(2);
  map.dragging[isWhole ? 'disable' : 'enable']();
}

function setLayer(name, url, options) {
  if (!url) {
    layers[name]?.remove();
    delete layers[name];
  } else if (layers[name]) {
    layers[name].options.alt = options.alt;
    layers[name].setUrl(url);
    if (layers[name].getElement()) layers[name].getElement().alt = options.alt;
  } else {
    layers[name] = L.imageOverlay(url, map.sceneBounds, options).addTo(map);
  }
}

// The land-cover map arrives as one number a pixel, and the covers that are switched on are drawn.
const covers = {of: null, numbers: null, shown: new Set(), opacity: 60};
async function drawCovers() {
  const key = find('.covers-key'), given = scene.covers;
  key.hidden = !given;
  if (!given) {
    covers.of = null;
    setLayer('covers', null);
    return;
  }
  if (covers.of !== given.picture + given.shown) {
    const image = make('img', {src: given.picture});
    await image.decode();
    if (given !== scene.covers) return;
    covers.of = given.picture + given.shown;
    covers.shown = new Set(given.shown);
    const canvas = make('canvas', {width: image.naturalWidth, height: image.naturalHeight});
    const context = canvas.getContext('2d', {willReadFrequently: true});
    context.drawImage(image, 0, 0);
    covers.numbers = context.getImageData(0, 0, canvas.width, canvas.height);
    listCovers(given);
  }
  paintCovers(given);
}

function listCovers(given) {
  find('.covers-key .mark').textContent = given.source;
  find('.covers-key .mark').classList.toggle('model', given.source === 'model');
  find('.covers-key .about').textContent = given.note;
  find('.covers-key .list').replaceChildren(...given.covers.map((cover) => {
    const colour = make('i');
    colour.style.background = `rgb(${cover.colour})`;
    const button = make('button', {type: 'button', className: 'cover'}, colour, `${cover.name} `,
      make('b', {textContent: cover.share}));
    button.dataset.cover = cover.number;
    return make('li', {}, button);
  }));
}

function paintCovers(given) {
  const {width, height, data} = covers.numbers;
  const canvas = make('canvas', {width, height}), context = canvas.getContext('2d');
  const pixels = context.createImageData(width, height);
  const colours = new Map(given.covers.map((cover) => [cover.number, cover.colour]));
  for (let at = 0; at < data.length; at += 4) {
    const colour = covers.shown.has(data[at]) && colours.get(data[at]);
    if (colour) pixels.data.set([...colour, 255], at);
  }
  context.putImageData(pixels, 0, 0);
  const opacity = covers.opacity / 100;
  const options = {alt: 'Land-cover map', className: 'covers', zIndex: 2, opacity};
  setLayer('covers', canvas.toDataURL(), options);
  find('.opacity').value = covers.opacity;
  element.querySelectorAll('.cover').forEach((button) => button.setAttribute(
    'aria-pressed', String(covers.shown.has(Number(button.dataset.cover)))));
}

// Areas with less attention than usual are darkened, those with more are warmed; the legend in
// scene.css has the same colours.
let attentionOf = null, word = -1;
function drawAttention() {
  const given = scene.attention, panel = find('.words');
  panel.hidden = !given;
  const fingerprint = given && given.maps.join();
  if (fingerprint !== attentionOf) {
    [attentionOf, word] = [fingerprint, -1];
    if (given) listWords(given.words);
    else find('.words .list').replaceChildren();
  }
  if (!given || word === -2) setLayer('attention', null);
  else {
    const values = atob(given.maps[word + 1] ?? given.maps[0]);
    const canvas = make('canvas', {width: given.columns, height: given.rows});
    const context = canvas.getContext('2d');
    const pixels = context.createImageData(given.columns, given.rows);
    for (let i = 0; i < values.length; i++) {
      const value = values.charCodeAt(i) / 255;
      pixels.data.set(value > 0.5
        ? [255, 190, 40, 300 * (value - 0.5)]
        : [8, 10, 60, 380 * (0.5 - value)], 4 * i);
    }
    context.putImageData(pixels, 0, 0);
    const options = {alt: 'Attention map', className: 'attention', zIndex: 3};
    setLayer('attention', canvas.toDataURL(), options);
  }
  element.querySelectorAll('.word').forEach((button) =>
    button.setAttribute('aria-pressed', String(Number(button.dataset.word) === word)));
}

function listWords(words) {
  const buttons = ['Whole answer', ...words, 'Hide'].map((text, index, all) => {
    const button = make('button', {type: 'button', className: 'word', textContent: text});
    button.dataset.word = index === all.length - 1 ? -2 : index - 1;
    return button;
  });
  find('.words .list').replaceChildren(...buttons.flatMap((button) => [button, ' ']));
}

function shareLink() {
  const address = new URL(location.href);
  const asked = [...document.querySelectorAll('#chat [data-testid="user"]')].at(-1);
  address.search = '';
  address.searchParams.set('scene', scene.link);
  if (asked) address.searchParams.set('q', asked.innerText.trim());
  return address.href;
}

// The browser's full screen where the page may have it, else the window.
async function fillScreen() {
  if (document.fullscreenElement) return document.exitFullscreen();
  if (figure.classList.contains('filling')) return figure.classList.remove('filling');
  try { await figure.requestFullscreen(); } catch { figure.classList.add('filling'); }
}

const actions = {
  'zoom-in': () => map.zoomIn(),
  'zoom-out': () => map.zoomOut(),
  whole: () => { isWhole = true; fit(); },
  fill: fillScreen,
  save: () => make('a', {href: scene.picture, download: `${scene.name}.${scene.kind}`}).click(),
  link: async (button) => {
    const link = shareLink();
    try { await navigator.clipboard.writeText(link); } catch { prompt('Copy this link:', link); }
    button.classList.add('done');
    setTimeout(() => button.classList.remove('done'), 1500);
  },
  forget: () => forgetProfiles(),
  choose: () => (choosing ? stopChoosing() : startChoosing()),
  overview: () => trigger('part', {column: 0, row: 0, side: 0}),
};

element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button || !scene) return;
  const {word: chosen, cover, order} = button.dataset;
  if (button.dataset.do) actions[button.dataset.do](button);
  if (order) trigger('order', {index: Number(order)});
  if (chosen) { word = Number(chosen); drawAttention(); }
  if (cover) {
    const number = Number(cover);
    if (!covers.shown.delete(number)) covers.shown.add(number);
    paintCovers(scene.covers);
  }
});
element.addEventListener('input', (event) => {
  if (event.target.classList.contains('opacity')) {
    covers.opacity = Number(event.target.value);
    layers.covers?.setOpacity(covers.opacity / 100);
  }
});
element.addEventListener('change', (event) => {
  if (!event.target.closest('.choose-bands')) return;
  const chosen = [...find('.choose-bands').querySelectorAll('select')].map((each) => each.value);
  trigger('apply', {bands: chosen.slice(0, 3), stretch: chosen[3]});
});
// Who uses the keys points at the middle of the picture; scene.css draws a cross there.
frame.addEventListener('pointermove', () => frame.classList.remove('keyed'));
frame.addEventListener('keydown', (event) => {
  if (event.target !== frame || !map) return;
  if (event.key !== 'Tab') frame.classList.add('keyed');
  if (event.key === '0') actions.whole();
  else if (event.key === 'Enter') choosePart(map.getCenter()) || addProfile(map.getCenter());
  else return;
  event.preventDefault();
});
document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape') return;
  figure.classList.remove('filling');
  stopChoosing();
});
// The wheel zooms the picture, and scrolls the page where the whole scene is in view already.
element.addEventListener('wheel', (event) => {
  const passes = event.deltaY > 0 && isWhole && !document.fullscreenElement;
  if (passes && frame.contains(event.target)) event.stopPropagation();
}, {capture: true, passive: true});

function fillSelects(choice) {
  const chooser = find('.choose-bands');
  chooser.hidden = !choice;
  if (!choice) return;
  const lists = [choice.bands, choice.bands, choice.bands, choice.stretches];
  chooser.querySelectorAll('select').forEach((select, index) => {
    const chosen = [...choice.shown, choice.stretch][index];
    select.replaceChildren(...lists[index].map((entry) => {
      const [name, label] = [entry.name ?? entry, entry.label ?? entry];
      return make('option', {value: name, textContent: label, selected: name === chosen});
    }));
  });
}

function showTexts() {
  find('figcaption').innerHTML = scene.caption ?? '';
  frame.style.aspectRatio = scene.width ? `${scene.width} / ${scene.height}` : '';
  figure.classList.toggle('empty', !scene.picture);
}

function render() {
  const before = sceneKey(scene);
  scene = props.value || {};
  showTexts();
  fillSelects(scene.choice);
  showOrders();
  if (!scene.picture) {
    map?.remove();
    map = null;
    forgetPixels();
    frame.replaceChildren();
    for (const panel of ['.parts', '.covers-key', '.words', '.profile']) find(panel).hidden = true;
    return;
  }
  if (!map || before !== sceneKey(scene)) {
    forgetPixels();
    openMap();
  }
  find('[data-do="link"]').hidden = !scene.link;
  setLayer('picture', scene.picture, {alt: scene.alt, className: 'scene', zIndex: 1});
  drawAttention();
  drawCovers();
  showParts();
  showProfiles();
}
