// Choosing a part of an image that is shown as an overview, and the order of bands without names.
let choosing = false, chosenBox = null;

function showParts() {
  const panel = find('.parts'), parts = scene.parts;
  stopChoosing();
  panel.hidden = !parts;
  if (!parts) return;
  find('.parts .of-overview').hidden = !parts.shrink;
  find('[data-do="overview"]').hidden = Boolean(parts.shrink);
  const select = find('.parts select');
  if (select.options.length) return;
  select.append(...parts.sides.map((side) =>
    make('option', {value: side, textContent: `${side} × ${side}`})));
  select.value = parts.sides[1];
}

// While a part is chosen, a frame of its size follows the pointer, or stays in the middle for keys.
function startChoosing() {
  choosing = true;
  find('[data-do="choose"]').setAttribute('aria-pressed', 'true');
  frame.classList.add('choosing');
  frame.focus();
  moveBox(map.getCenter());
}

function stopChoosing() {
  choosing = false;
  chosenBox?.remove();
  chosenBox = null;
  find('[data-do="choose"]').setAttribute('aria-pressed', 'false');
  frame.classList.remove('choosing');
}

function moveBox(latlng) {
  if (!choosing) return;
  const metres = scene.metres ?? 1;
  const half = Number(find('.parts select').value) / scene.parts.shrink / 2 * metres;
  const inside = (at, pixels) => {
    const most = pixels * metres;
    return Math.min(Math.max(at, Math.min(half, most / 2)), Math.max(most - half, most / 2));
  };
  const x = inside(latlng.lng, scene.width), y = inside(-latlng.lat, scene.height);
  const corners = [[-(y - half), x - half], [-(y + half), x + half]];
  if (chosenBox) chosenBox.setBounds(corners);
  else {
    const style = {color: '#fff', weight: 2, fillOpacity: 0.15, interactive: false};
    chosenBox = L.rectangle(corners, style).addTo(map);
  }
}

// Returns whether the click chose a part, and so is not for anything else.
function choosePart(latlng) {
  if (!choosing) return false;
  const metres = scene.metres ?? 1, side = Number(find('.parts select').value);
  stopChoosing();
  trigger('part', {column: latlng.lng / metres, row: -latlng.lat / metres, side});
  return true;
}

function showOrders() {
  find('.orders').hidden = !scene.orders;
  figure.classList.toggle('asking', Boolean(scene.orders));
  find('.orders .of').textContent = scene.orders_of ?? '';
  find('.orders .list').replaceChildren(...(scene.orders ?? []).map((order, index) => {
    const pictures = order.pictures.map((picture) => make('figure', {},
      make('img', {src: picture.source, alt: picture.alt}),
      make('figcaption', {textContent: picture.alt})));
    const button = make('button', {type: 'button', className: 'order'},
      make('b', {textContent: order.name}), make('span', {}, ...pictures));
    button.dataset.order = index;
    return button;
  }));
}
