// Countries, waters and names below the scenes: Natural Earth's 1:50 million as TopoJSON, and towns.

export const COPIES = [-360, 0, 360]; // degrees; the world is drawn three times, to pan across 180
export const MERCATOR_LATITUDE = 85.05;
const LABEL_ROOM = 8; // pixels between two names
const MAX_LABELS = 60;
// How many of the largest towns are candidates for a name at a zoom level.
const TOWNS_AT_ZOOM = (zoom) => Math.round(16 * 2 ** (1.4 * Math.max(zoom - 2, 0)));
const COUNTRY_WIDTH = 70; // pixels; narrower countries have no name
const RIVER_WIDTH = 160; // pixels; rivers that take less of the world's map have no name
const LAKE_WIDTH = 30; // pixels
const COUNTRIES_UNTIL = 7.5; // the zoom level from which countries have no name

export async function drawBase(map, base) {
    for (const [name, order] of [["land", 210], ["waters", 220], ["names", 440]])
        map.createPane(name).style.zIndex = order;
    map.getPane("names").style.pointerEvents = "none";
    map.getPane("names").setAttribute("aria-hidden", "true");
    const read = async (name) => (await fetch(base + name)).json();
    const [world, waters, towns] =
        await Promise.all(["countries-50m.json", "waters-50m.json", "towns.json"].map(read));
    const countries = topojson.feature(world, world.objects.countries).features;
    drawAreas(map, countries, "land", "land");
    const [lakes, rivers] = ["lakes", "rivers"].map((layer) =>
        topojson.feature(waters, waters.objects[layer]).features.filter((each) => each.geometry));
    drawAreas(map, lakes, "waters", "lake");
    drawLines(map, rivers);
    const named = ({ properties }) => properties.name;
    const readMore = async () => towns.push(...await read("small-towns.json"));
    nameThings(map, {
        countries: countries.map(placeArea).filter((each) => each.at),
        lakes: lakes.filter(named).map(placeArea),
        rivers: listRivers(rivers.filter(named)), towns, readMore,
    });
}

function drawAreas(map, features, pane, className) {
    const renderer = L.svg({ pane, padding: 0.4 });
    for (const { geometry } of features) {
        if (!geometry) continue;
        const polygons = geometry.type === "Polygon" ? [geometry.coordinates] : geometry.coordinates;
        for (const offset of COPIES)
            L.polygon(
                polygons.map((rings) => rings.map((ring) => unwrap(ring, offset))),
                { className, interactive: false, renderer, pane, smoothFactor: 1.2 }
            ).addTo(map);
    }
}

function drawLines(map, features) {
    const renderer = L.svg({ pane: "waters", padding: 0.4 });
    const lines = features.flatMap(({ geometry }) => geometry.type === "LineString" ? [geometry.coordinates] : geometry.coordinates);
    for (const offset of COPIES)
        L.polyline(
            lines.map((line) => line.map(([x, y]) => [y, x + offset])),
            { className: "river", interactive: false, renderer, pane: "waters" }
        ).addTo(map);
}

function unwrap(ring, offset) {
    // A ring that crosses the date line continues beyond 180 degrees instead of jumping back.
    let shift = offset;
    const coordinates = ring.map(([longitude, latitude], i) => {
        if (i) {
            const step = longitude - ring[i - 1][0];
            if (step > 180) shift -= 360;
            else if (step < -180) shift += 360;
        }
        return [Math.max(latitude, -MERCATOR_LATITUDE), longitude + shift];
    });
    if (shift !== offset) {
        // Antarctica surrounds the pole; close its ring along the lower edge of the map.
        coordinates.push([-MERCATOR_LATITUDE, coordinates[coordinates.length - 1][1]]);
        coordinates.push([-MERCATOR_LATITUDE, coordinates[0][1]]);
    }
    return coordinates;
}

// A country or a lake is named in the middle of its largest part.
function placeArea({ geometry, properties }) {
    const polygons = geometry.type === "Polygon" ? [geometry.coordinates] : geometry.coordinates;
    let best = { size: 0 };
    for (const polygon of polygons) {
        const ring = unwrap(polygon[0], 0).map(([y, x]) => [x, y]);
        let size = 0, x = 0, y = 0, west = 180, east = -180;
        for (let i = 0; i < ring.length - 1; i++) {
            const [[x1, y1], [x2, y2]] = [ring[i], ring[i + 1]];
            const cross = x1 * y2 - x2 * y1;
            [size, x, y] = [size + cross / 2, x + (x1 + x2) * cross, y + (y1 + y2) * cross];
            [west, east] = [Math.min(west, x1), Math.max(east, x1)];
        }
        if (Math.abs(size) > best.size)
            best = { size: Math.abs(size), at: [y / (6 * size), x / (6 * size)], width: east - west };
    }
    return { name: properties.name, ...best };
}

// A river is named where it comes nearest to the middle of the view; some are several features.
function listRivers(features) {
    const rivers = new Map();
    for (const { geometry, properties: { name } } of features) {
        const lines = geometry.type === "LineString" ? [geometry.coordinates] : geometry.coordinates;
        rivers.set(name, [...(rivers.get(name) ?? []), ...lines.flat()]);
    }
    return [...rivers].map(([name, points]) => {
        const [xs, ys] = [0, 1].map((axis) => points.map((each) => each[axis]));
        const [width, height] = [xs, ys].map((all) => Math.max(...all) - Math.min(...all));
        return { name, points, width: Math.hypot(width, height) };
    });
}

function nameThings(map, { countries, lakes, rivers, towns, readMore }) {
    const layer = L.layerGroup().addTo(map);
    countries.sort((a, b) => b.size - a.size);
    let hasAll = false;
    const draw = () => {
        layer.clearLayers();
        const [zoom, bounds] = [map.getZoom(), map.getBounds().pad(-0.02)];
        const [west, south, east, north] = [bounds.getWest(), bounds.getSouth(),
            bounds.getEast(), bounds.getNorth()];
        const isSeen = (y, x) => x > west && x < east && y > south && y < north;
        const taken = [];
        const place = (y, x, text, className, letter) => {
            if (!isSeen(y, x) || taken.length >= MAX_LABELS) return;
            const at = map.latLngToContainerPoint([y, x]);
            const [w, h] = [text.length * letter + LABEL_ROOM, 16];
            const box = [at.x - w / 2, at.y - h / 2, at.x + w / 2, at.y + h / 2];
            const overlaps = (other) =>
                box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3];
            if (taken.some(overlaps)) return;
            taken.push(box);
            const icon = L.divIcon({ className: `map-name ${className}`, html: "", iconSize: null });
            const marker =
                L.marker([y, x], { icon, interactive: false, keyboard: false, pane: "names" });
            marker.addTo(layer).getElement().textContent = text;
        };
        const placeCopies = (y, x, ...label) => {
            for (const offset of COPIES) place(y, x + offset, ...label);
        };
        const degree = (256 * 2 ** zoom) / 360;
        if (zoom < COUNTRIES_UNTIL)
            for (const { name, at: [y, x], width } of countries)
                if (width * degree > Math.max(COUNTRY_WIDTH, name.length * 5))
                    placeCopies(y, x, name, "country", 7.5);
        for (const { name, at: [y, x], width } of lakes)
            if (width * degree > LAKE_WIDTH) placeCopies(y, x, name, "water", 6);
        const candidates = towns.slice(0, TOWNS_AT_ZOOM(zoom));
        const half = Math.ceil(candidates.length / 2);
        const placeTowns = (some) => {
            if (zoom > 3) for (const [name, x, y] of some) placeCopies(y, x, name, "town", 6.5);
        };
        // The larger towns first; rivers have many places for their names.
        placeTowns(candidates.slice(0, half));
        const { lat, lng } = map.getCenter();
        for (const { name, points, width } of rivers) {
            if (width * degree < RIVER_WIDTH) continue;
            let best = null, least = Infinity;
            for (const offset of COPIES)
                for (const [x, y] of points) {
                    const distance = Math.hypot(y - lat, x + offset - lng);
                    if (distance < least && isSeen(y, x + offset))
                        [best, least] = [[y, x + offset], distance];
                }
            if (best) place(...best, name, "water", 6);
        }
        placeTowns(candidates.slice(half));
        if (!hasAll && TOWNS_AT_ZOOM(zoom) > towns.length) {
            hasAll = true;
            readMore().then(draw, () => { hasAll = false; });
        }
    };
    map.on("moveend", draw);
    draw();
}
