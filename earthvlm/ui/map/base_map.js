// Countries, waters and names below the scenes: Natural Earth's 1:50 million as TopoJSON, and towns.

export const COPIES = [-360, 0, 360]; // degrees; the world is drawn three times, to pan across 180
export const MERCATOR_LATITUDE = 85.05;
const LABEL_ROOM = 8; // pixels between two names
const MAX_LABELS = 45;
// How many of the largest towns are candidates for a name at a zoom level.
const TOWNS_AT_ZOOM = (zoom) => Math.min(12000, 12 * 2 ** (1.25 * Math.max(zoom - 2, 0)));
const COUNTRY_WIDTH = 70; // pixels; narrower countries have no name
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
    drawAreas(map, topojson.feature(waters, waters.objects.lakes).features, "waters", "lake");
    drawLines(map, topojson.feature(waters, waters.objects.rivers).features);
    nameThings(map, countries.map(placeCountry), towns);
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
    const lines = features.filter(({ geometry }) => geometry).flatMap(({ geometry }) =>
        geometry.type === "LineString" ? [geometry.coordinates] : geometry.coordinates);
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

// A country is named in the middle of its largest part.
function placeCountry({ geometry, properties }) {
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

function nameThings(map, countries, towns) {
    const layer = L.layerGroup().addTo(map);
    countries = countries.filter((each) => each.at).sort((a, b) => b.size - a.size);
    const draw = () => {
        layer.clearLayers();
        const [zoom, view] = [map.getZoom(), map.getBounds().pad(-0.02)];
        const taken = [];
        const place = (at, text, className, letter) => {
            if (!view.contains(at) || taken.length >= MAX_LABELS) return;
            const { x, y } = map.latLngToContainerPoint(at);
            const [w, h] = [text.length * letter + LABEL_ROOM, 16];
            const box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2];
            const overlaps = (other) =>
                box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3];
            if (taken.some(overlaps)) return;
            taken.push(box);
            const icon = L.divIcon({ className: `map-name ${className}`, html: "", iconSize: null });
            const marker = L.marker(at, { icon, interactive: false, keyboard: false, pane: "names" });
            marker.addTo(layer).getElement().textContent = text;
        };
        const degree = (256 * 2 ** zoom) / 360;
        if (zoom < COUNTRIES_UNTIL)
            for (const { name, at, width } of countries)
                if (width * degree > Math.max(COUNTRY_WIDTH, name.length * 5))
                    for (const offset of COPIES)
                        place([at[0], at[1] + offset], name, "country", 7.5);
        if (zoom > 3)
            for (const [name, x, y] of towns.slice(0, TOWNS_AT_ZOOM(zoom)))
                for (const offset of COPIES) place([y, x + offset], name, "town", 6.5);
    };
    map.on("moveend", draw);
    draw();
}
