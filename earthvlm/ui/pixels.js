// Where the pixels of a scene are, and their reflectance, which the server sends in blocks of pixels,
// each once. scene: what `describe_pixels` of scene_viewer.py returns.
const RESTING_MS = 120; // how long the pointer rests before values are asked for
const WAITING_MS = 6000;
const NO_VALUE = -32768;

class Pixels {
  constructor(scene) {
    this.scene = scene;
    this.blocks = new Map();
    this.asked = new Map();
  }

  // The pixel at a position in pixels from the top left, null outside of the scene.
  at(column, row) {
    const {width, height} = this.scene;
    if (column < 0 || row < 0 || column >= width || row >= height) return null;
    return {column: Math.floor(column), row: Math.floor(row)};
  }

  number({column, row}) {
    const {block, width} = this.scene;
    return Math.floor(row / block) * Math.ceil(width / block) + Math.floor(column / block);
  }

  // The number of the block to ask the server for; null where it has been sent, or will be.
  wanted(pixel) {
    const number = this.number(pixel);
    if (this.blocks.has(number)) return null;
    if (Date.now() - (this.asked.get(number) ?? 0) < WAITING_MS) return null;
    this.asked.set(number, Date.now());
    return number;
  }

  receive({block, width, values}) {
    const bytes = Uint8Array.from(atob(values), (letter) => letter.charCodeAt(0));
    this.blocks.set(block, {width, values: new Int16Array(bytes.buffer)});
    this.asked.delete(block);
  }

  // Reflectance, 0 to 1, by band; null until it has arrived, {} where there are no data.
  values(pixel) {
    const found = this.blocks.get(this.number(pixel));
    if (!found) return null;
    const {block, bands} = this.scene;
    const start = ((pixel.row % block) * found.width + pixel.column % block) * bands.length;
    return Object.fromEntries(bands.map(({name}, index) => [name, found.values[start + index]])
      .filter(([, value]) => value !== NO_VALUE).map(([name, value]) => [name, value / 10000]));
  }

  // The reflectance in some bands as text.
  list(pixel, names, separator = '  ') {
    const values = this.values(pixel);
    if (!values) return '…';
    return names.filter((name) => name in values)
      .map((name) => `${name} ${values[name].toFixed(3)}`).join(separator) || 'no data';
  }

  // Longitude and latitude between the corners of a lattice over the scene.
  locate({column, row}) {
    const {lattice, width, height} = this.scene;
    if (!lattice) return null;
    const cells = lattice.length - 1;
    const x = (column + 0.5) / width * cells, y = (row + 0.5) / height * cells;
    const left = Math.min(Math.floor(x), cells - 1), top = Math.min(Math.floor(y), cells - 1);
    return [0, 1].map((axis) => {
      const at = (down, across) => lattice[top + down][left + across][axis];
      const upper = at(0, 0) + (at(0, 1) - at(0, 0)) * (x - left);
      const lower = at(1, 0) + (at(1, 1) - at(1, 0)) * (x - left);
      return upper + (lower - upper) * (y - top);
    });
  }

  place(pixel) {
    const place = this.locate(pixel);
    if (!place) return `column ${pixel.column}, row ${pixel.row}`;
    const longitude = (place[0] + 540) % 360 - 180;
    return `${Math.abs(place[1]).toFixed(5)}° ${place[1] < 0 ? 'S' : 'N'}, `
      + `${Math.abs(longitude).toFixed(5)}° ${longitude < 0 ? 'W' : 'E'}`;
  }
}
