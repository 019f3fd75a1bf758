// Where the pointer is, the reflectance there, and spectral profiles of pixels that were clicked.
// The server sends reflectance in blocks of pixels, each once, when the pointer rests in it.
const RESTING_MS = 120, WAITING_MS = 6000, MOST_PROFILES = 3;
const NO_VALUE = -32768;
const PROFILE_COLOURS = ['#0f8a5f', '#c2571a', '#5b4bc4'];
let blocks = new Map(), waiting = new Map(), profiles = [], pointed = null, resting = null;

function forgetPixels() {
  [blocks, waiting, profiles, pointed] = [new Map(), new Map(), [], null];
  showReadout();
}

function toPixel(latlng) {
  const metres = scene.metres ?? 1;
  const [column, row] = [latlng.lng / metres, -latlng.lat / metres];
  if (column < 0 || row < 0 || column >= scene.width || row >= scene.height) return null;
  return {column: Math.floor(column), row: Math.floor(row)};
}

// Longitude and latitude between the corners of a lattice over the scene, which scene_viewer.py made.
function locate({column, row}) {
  if (!scene.lattice) return null;
  const cells = scene.lattice.length - 1;
  const x = (column + 0.5) / scene.width * cells, y = (row + 0.5) / scene.height * cells;
  const left = Math.min(Math.floor(x), cells - 1), top = Math.min(Math.floor(y), cells - 1);
  return [0, 1].map((axis) => {
    const at = (down, across) => scene.lattice[top + down][left + across][axis];
    const upper = at(0, 0) + (at(0, 1) - at(0, 0)) * (x - left);
    const lower = at(1, 0) + (at(1, 1) - at(1, 0)) * (x - left);
    return upper + (lower - upper) * (y - top);
  });
}

function describePlace(pixel) {
  const place = locate(pixel);
  if (!place) return `column ${pixel.column}, row ${pixel.row}`;
  const longitude = (place[0] + 540) % 360 - 180;
  return `${Math.abs(place[1]).toFixed(5)}° ${place[1] < 0 ? 'S' : 'N'}, `
    + `${Math.abs(longitude).toFixed(5)}° ${longitude < 0 ? 'W' : 'E'}`;
}

const blockNumber = ({column, row}) =>
  Math.floor(row / scene.block) * Math.ceil(scene.width / scene.block)
  + Math.floor(column / scene.block);

// Reflectance, 0 to 1, by band; null until it has arrived, {} where there are no data.
function valuesAt(pixel) {
  const found = blocks.get(blockNumber(pixel));
  if (!found) return null;
  const [x, y] = [pixel.column % scene.block, pixel.row % scene.block];
  const start = (y * found.width + x) * scene.bands.length;
  return Object.fromEntries(scene.bands.map((band, index) => [band.name, found.values[start + index]])
    .filter(([, value]) => value !== NO_VALUE).map(([name, value]) => [name, value / 10000]));
}

function askFor(pixel) {
  const number = blockNumber(pixel);
  if (blocks.has(number) || Date.now() - (waiting.get(number) ?? 0) < WAITING_MS) return;
  waiting.set(number, Date.now());
  trigger('select', {block: number});
}

function receive(pixels) {
  if (!pixels || pixels.key !== sceneKey(scene)) return;
  const bytes = Uint8Array.from(atob(pixels.values), (letter) => letter.charCodeAt(0));
  blocks.set(pixels.block, {width: pixels.width, values: new Int16Array(bytes.buffer)});
  waiting.delete(pixels.block);
  showReadout();
  showProfiles();
}

function showPlace(latlng) {
  pointed = latlng && toPixel(latlng);
  clearTimeout(resting);
  if (pointed) resting = setTimeout(askFor, RESTING_MS, pointed);
  showReadout();
}

// Who moves the picture by keys points at its centre.
function showCentre() {
  if (!frame.classList.contains('keyed')) return;
  showPlace(map.getCenter());
  moveBox(map.getCenter());
}

function showReadout() {
  const readout = find('.readout');
  figure.classList.toggle('pointing', Boolean(pointed));
  if (!pointed) return;
  const values = valuesAt(pointed), shown = scene.shown ?? [];
  const listed = values === null ? '…' : shown.filter((band) => band in values)
    .map((band) => `${band} ${values[band].toFixed(3)}`).join('  ') || 'no data';
  readout.textContent = `${describePlace(pointed)}  ·  ${listed}`;
}

function addProfile(latlng) {
  const pixel = toPixel(latlng);
  if (!pixel || profiles.some((each) => each.column === pixel.column && each.row === pixel.row)) {
    return;
  }
  profiles = [...profiles, pixel].slice(-MOST_PROFILES);
  askFor(pixel);
  showProfiles();
}

function forgetProfiles() {
  profiles = [];
  showProfiles();
}

function showProfiles() {
  const panel = find('.profile');
  panel.hidden = !profiles.length;
  layers.marks?.remove();
  delete layers.marks;
  if (!profiles.length) return;
  const metres = scene.metres ?? 1;
  layers.marks = L.layerGroup(profiles.map((pixel, index) => L.circleMarker(
    [-(pixel.row + 0.5) * metres, (pixel.column + 0.5) * metres],
    {radius: 6, weight: 3, color: PROFILE_COLOURS[index], fill: false, interactive: false},
  ))).addTo(map);
  const lines = profiles.map((pixel) => valuesAt(pixel) ?? {});
  find('.profile svg').replaceWith(drawProfiles(lines));
  find('.profile .list').replaceChildren(...profiles.map((pixel, index) => {
    const mark = make('i');
    mark.style.background = PROFILE_COLOURS[index];
    const values = valuesAt(pixel);
    const text = values === null ? '…' : Object.entries(values)
      .map(([band, value]) => `${band} ${value.toFixed(3)}`).join(', ') || 'no data';
    return make('li', {}, mark, make('b', {textContent: describePlace(pixel)}), ` ${text}`);
  }));
}

// Reflectance over wavelength, as one line a pixel.
function drawProfiles(lines) {
  const [width, height, left, bottom] = [340, 130, 30, 22];
  const waves = scene.bands.map((band) => band.wavelength);
  const [shortest, longest] = [Math.min(...waves) - 30, Math.max(...waves) + 30];
  const most = Math.max(0.1, ...lines.flatMap((line) => Object.values(line)));
  const step = most > 0.5 ? 0.2 : most > 0.2 ? 0.1 : 0.05;
  const top = Math.ceil(most / step) * step;
  const x = (wave) => left + (wave - shortest) / (longest - shortest) * (width - left - 6);
  const y = (value) => 6 + (1 - Math.max(value, 0) / top) * (height - bottom - 6);
  const draw = (tag, attributes, text) => {
    const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text) made.textContent = text;
    return made;
  };
  const chart = draw('svg', {viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true'});
  for (let value = 0; value < top + step / 2; value += step) {
    chart.append(draw('line', {class: 'rule', x1: left, x2: width - 6, y1: y(value), y2: y(value)}));
    chart.append(draw('text', {x: left - 4, y: y(value) + 3, 'text-anchor': 'end'}, value.toFixed(2)));
  }
  for (const wave of [500, 1000, 1500, 2000]) {
    if (wave < shortest || wave > longest) continue;
    chart.append(draw('text', {x: x(wave), y: height - 6, 'text-anchor': 'middle'}, `${wave} nm`));
  }
  lines.forEach((line, index) => {
    const points = scene.bands.filter((band) => band.name in line)
      .map((band) => [x(band.wavelength), y(line[band.name])]);
    const style = {stroke: PROFILE_COLOURS[index], fill: 'none', 'stroke-width': 2};
    chart.append(draw('polyline', {...style, points: points.join(' ')}));
    for (const [cx, cy] of points) {
      chart.append(draw('circle', {cx, cy, r: 2.5, fill: PROFILE_COLOURS[index]}));
    }
  });
  return chart;
}

watch('value', render);
watch('pixels', () => receive(props.pixels));
// A viewer in a hidden tab has no size until the tab is shown.
new ResizeObserver(() => { if (map) { map.invalidateSize({animate: false}); fit(); } }).observe(frame);
render();
