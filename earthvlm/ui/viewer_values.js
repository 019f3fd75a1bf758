// Where the pointer is, the reflectance there, and spectral profiles of pixels that were clicked.
const MOST_PROFILES = 3;
const PROFILE_COLOURS = ['#0f8a5f', '#c2571a', '#5b4bc4'];
let pixels = null, profiles = [], pointed = null, resting = null;

function forgetPixels() {
  [pixels, profiles, pointed] = [new Pixels(scene), [], null];
  showReadout();
}

function toPixel(latlng) {
  const metres = scene.metres ?? 1;
  return pixels.at(latlng.lng / metres, -latlng.lat / metres);
}

function askFor(pixel) {
  const block = pixels.wanted(pixel);
  if (block !== null) trigger('select', {block});
}

function receive(sent) {
  if (!sent || sent.key !== sceneKey(scene)) return;
  pixels.receive(sent);
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
  readout.textContent = `${pixels.place(pointed)}  ·  ${pixels.list(pointed, scene.shown)}`;
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
  const lines = profiles.map((pixel) => pixels.values(pixel) ?? {});
  find('.profile svg').replaceWith(drawProfiles(lines));
  find('.profile .list').replaceChildren(...profiles.map((pixel, index) => {
    const mark = make('i');
    mark.style.background = PROFILE_COLOURS[index];
    const text = pixels.list(pixel, scene.bands.map((band) => band.name), ', ');
    return make('li', {}, mark, make('b', {textContent: pixels.place(pixel)}), ` ${text}`);
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
