// The map of an index, for gr.HTML; Gradio provides `element`, `props`, `trigger` and `watch`.
// Events: "select" {index: row, value: row} after a click on a scene, "apply" {bbox: [west, south,
// east, north]} after a bounding box was drawn (its longitudes may exceed 180), "clear" after it was
// removed.

const POINT_RADIUS = 2; // pixels
const CLICK_RADIUS = 9;
const COPIES = [-360, 0, 360]; // degrees; the world is drawn three times, to pan across 180 degrees
const MERCATOR_LATITUDE = 85.05;
const MIN_BBOX_SIDE = 4; // pixels; a smaller box is a click
const MARKER_SIZE = 22; // pixels; results closer together share a marker

const frame = element.querySelector(".world-map");
const map = L.map(frame, {
    zoomControl: true, attributionControl: true, preferCanvas: false,
    minZoom: 1, maxZoom: 14, zoomSnap: 0.25, worldCopyJump: true,
    maxBounds: [[-88, -540], [88, 540]], boxZoom: false,
});
map.attributionControl.setPrefix('<a href="https://leafletjs.com" target="_blank">Leaflet</a>');
map.attributionControl.addAttribution("Land: Natural Earth");
map.setView([20, 0], 1);

drawLand();
const points = { coordinates: new Float32Array(), rows: new Int32Array() };
const dots = addDots();
const markers = L.layerGroup().addTo(map);
let results = [];
let shownGroups = "";
map.on("zoomend", showResults);
let rectangle = null;
let fittedTo = "";
const bboxButtons = addBboxButtons();

show(props.value);
watch("value", () => show(props.value));
// A map in a hidden tab has no size until the tab is shown.
new ResizeObserver(() => {
    map.invalidateSize();
    if (frame.clientWidth) fit(props.value);
}).observe(frame);

function show(value) {
    if (!value) return;
    points.coordinates = new Float32Array(decode(value.points));
    points.rows = new Int32Array(decode(value.rows));
    dots.redraw();
    results = value.results;
    shownGroups = "";
    map.closePopup();
    showResults();
    showBbox(value.bbox);
    fit(value);
}

function decode(text) {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
}

function fit(value) {
    // Once per set of results or points, so that the view stays where the visitor moved it.
    const key = value && JSON.stringify([value.results, value.count, value.bbox]);
    if (!value || key === fittedTo || !frame.clientWidth) return;
    fittedTo = key;
    const coordinates = value.results.length
        ? value.results.map((scene) => [scene.latitude, scene.longitude])
        : Array.from(points.rows, (_, i) => [points.coordinates[2 * i + 1], points.coordinates[2 * i]]);
    if (value.bbox) map.fitBounds(rectangle.getBounds(), { padding: [30, 30] });
    else if (coordinates.length)
        map.fitBounds(L.latLngBounds(coordinates), { padding: [30, 30], maxZoom: 9 });
}

function showResults() {
    const groups = groupResults();
    const key = JSON.stringify(groups.map((group) => group.map((scene) => scene.rank)));
    if (key === shownGroups) return;
    shownGroups = key;
    const focused = Number(document.activeElement?.closest?.(".result-marker")?.dataset.rank);
    markers.clearLayers();
    // The best result is drawn last, on top.
    for (const group of groups.reverse())
        for (const offset of COPIES) {
            const marker = addMarker(group, offset);
            if (offset === 0 && group.some((scene) => scene.rank === focused))
                marker.getElement().focus({ preventScroll: true });
        }
}

// Groups of results that overlap at this zoom; the best result of each group is first.
function groupResults() {
    const world = 256 * 2 ** map.getZoom();
    const groups = [];
    for (const scene of results) {
        const position = { x: scene.longitude / 360 + 0.5, y: mercator(scene.latitude) };
        const overlapping = groups.find((group) => {
            const dx = group.position.x - position.x;
            const distance = Math.hypot(dx - Math.round(dx), group.position.y - position.y);
            return distance * world < MARKER_SIZE;
        });
        if (overlapping) overlapping.scenes.push(scene);
        else groups.push({ position, scenes: [scene] });
    }
    return groups.map((group) => group.scenes);
}

function addMarker(group, offset) {
    const [best] = group;
    const more = group.length > 1 ? `<small>+${group.length - 1}</small>` : "";
    const label = group.length > 1
        ? `List ${group.length} scenes; the best has rank ${best.rank}`
        : `${best.rank}: ${best.name}`;
    const marker = L.marker([best.latitude, best.longitude + offset], {
        icon: L.divIcon({
            className: "result-marker", html: best.rank + more, iconSize: [MARKER_SIZE, MARKER_SIZE],
        }),
        title: label,
        keyboard: offset === 0,
        zIndexOffset: 1000 - best.rank,
    });
    const activate = () => (group.length > 1 ? listScenes(group, marker) : open(best));
    marker.on("click", activate);
    marker.on("keypress", (event) => event.originalEvent.key === "Enter" && activate());
    marker.addTo(markers);
    const icon = marker.getElement();
    icon.dataset.rank = best.rank;
    if (offset === 0) icon.setAttribute("aria-label", label);
    else icon.setAttribute("aria-hidden", "true");
    return marker;
}

function open(scene) {
    trigger("select", { index: scene.row, value: scene.row });
}

function listScenes(group, marker) {
    const list = L.DomUtil.create("ol", "result-list");
    for (const scene of group) {
        const button = L.DomUtil.create("button", "", L.DomUtil.create("li", "", list));
        button.type = "button";
        L.DomUtil.create("b", "", button).textContent = scene.rank;
        const text = L.DomUtil.create("span", "", button);
        text.textContent = scene.name;
        if (scene.caption) L.DomUtil.create("small", "", text).textContent = scene.caption;
        button.addEventListener("click", () => {
            map.closePopup();
            open(scene);
        });
    }
    const popup = L.popup({
        maxWidth: 280, maxHeight: 250, offset: [0, -MARKER_SIZE / 4],
        autoPanPaddingTopLeft: [5, 85], // below the buttons
    })
        .setLatLng(marker.getLatLng())
        .setContent(list);
    popup.on("add", () => {
        const dialog = popup.getElement();
        dialog.setAttribute("role", "dialog");
        dialog.setAttribute("aria-label", `${group.length} results here`);
        dialog.addEventListener("keydown", (event) => event.key === "Escape" && map.closePopup(popup));
        list.querySelector("button").focus({ preventScroll: true });
    });
    // Return the keyboard focus to the marker.
    popup.on("remove", () => marker.getElement()?.focus({ preventScroll: true }));
    popup.openOn(map);
}

function addDots() {
    const Dots = L.GridLayer.extend({
        createTile(coords) {
            const tile = L.DomUtil.create("canvas");
            const size = this.getTileSize();
            const ratio = window.devicePixelRatio || 1;
            tile.width = size.x * ratio;
            tile.height = size.y * ratio;
            const pen = tile.getContext("2d");
            pen.scale(ratio, ratio);
            pen.fillStyle = getComputedStyle(frame).getPropertyValue("--dot");
            const world = 256 * 2 ** coords.z;
            const left = coords.x * size.x, top = coords.y * size.y;
            // Many overlapping points are drawn translucent, which shows their density.
            const many = points.rows.length > 20000;
            pen.globalAlpha = many ? 0.35 : 0.75;
            for (let i = 0; i < points.rows.length; i++) {
                const y = mercator(points.coordinates[2 * i + 1]) * world - top;
                if (y < -POINT_RADIUS || y > size.y + POINT_RADIUS) continue;
                let x = (points.coordinates[2 * i] / 360 + 0.5) * world - left;
                x -= Math.floor((x + POINT_RADIUS) / world) * world; // the copy in or right of here
                if (x > size.x + POINT_RADIUS) continue;
                if (many) {
                    pen.fillRect(x - 1.5, y - 1.5, 3, 3); // several times as fast as a disc
                    continue;
                }
                pen.beginPath();
                pen.arc(x, y, POINT_RADIUS, 0, 7);
                pen.fill();
            }
            return tile;
        },
    });
    map.on("click", (event) => {
        const row = nearest(event.latlng);
        if (row !== null) trigger("select", { index: row, value: row });
    });
    map.on("mousemove", (event) => {
        frame.style.cursor = nearest(event.latlng) === null ? "" : "pointer";
    });
    map.createPane("dots").style.zIndex = 450; // above the land, below the markers
    return new Dots({ pane: "dots", updateWhenZooming: false }).addTo(map);
}

function mercator(latitude) {
    const sine = Math.sin((latitude * Math.PI) / 180);
    return 0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI);
}

function nearest(latlng) {
    const world = 256 * 2 ** map.getZoom();
    const x = latlng.lng / 360 + 0.5, y = mercator(latlng.lat);
    let best = CLICK_RADIUS ** 2, row = null;
    for (let i = 0; i < points.rows.length; i++) {
        let dx = points.coordinates[2 * i] / 360 + 0.5 - x;
        dx = (dx - Math.round(dx)) * world;
        if (Math.abs(dx) > CLICK_RADIUS) continue;
        const dy = (mercator(points.coordinates[2 * i + 1]) - y) * world;
        const distance = dx * dx + dy * dy;
        if (distance < best) [best, row] = [distance, points.rows[i]];
    }
    return row;
}

function showBbox(bbox) {
    if (rectangle) rectangle.remove();
    rectangle = null;
    bboxButtons.clear.hidden = !bbox;
    if (!bbox) return;
    const [west, south, east, north] = bbox;
    const bounds = [[south, west], [north, east < west ? east + 360 : east]];
    rectangle = L.rectangle(bounds, { className: "bbox", interactive: false }).addTo(map);
}

function addBboxButtons() {
    const bar = L.control({ position: "topright" });
    const buttons = {};
    bar.onAdd = () => {
        const container = L.DomUtil.create("div", "leaflet-bar map-buttons");
        const labels = { draw: "Draw a bounding box", clear: "Remove the bounding box" };
        for (const [name, label] of Object.entries(labels)) {
            buttons[name] = L.DomUtil.create("button", "", container);
            buttons[name].type = "button";
            buttons[name].textContent = label;
        }
        L.DomEvent.disableClickPropagation(container);
        return container;
    };
    bar.addTo(map);
    let active = false, start = null;
    const setActive = (on) => {
        active = on;
        buttons.draw.setAttribute("aria-pressed", String(on));
        frame.classList.toggle("drawing", on);
        map.dragging[on ? "disable" : "enable"]();
    };
    buttons.draw.addEventListener("click", () => setActive(!active));
    buttons.clear.addEventListener("click", () => {
        showBbox(null);
        trigger("clear", {});
    });
    buttons.clear.hidden = true;
    frame.addEventListener("pointerdown", (event) => {
        if (!active || event.target.closest(".leaflet-control")) return;
        event.preventDefault();
        start = { pixels: [event.clientX, event.clientY], latlng: map.mouseEventToLatLng(event) };
        frame.setPointerCapture(event.pointerId);
    });
    const corners = (event) => {
        const end = map.mouseEventToLatLng(event);
        const longitudes = [start.latlng.lng, end.lng].sort((a, b) => a - b);
        const latitudes = [start.latlng.lat, end.lat].sort((a, b) => a - b);
        return [longitudes[0], latitudes[0], longitudes[1], latitudes[1]];
    };
    frame.addEventListener("pointermove", (event) => {
        if (start) showBbox(corners(event));
    });
    frame.addEventListener("pointerup", (event) => {
        if (!start) return;
        const [dx, dy] = [event.clientX - start.pixels[0], event.clientY - start.pixels[1]];
        const bbox = corners(event);
        start = null;
        setActive(false);
        if (Math.min(Math.abs(dx), Math.abs(dy)) < MIN_BBOX_SIDE) showBbox(null);
        else trigger("apply", { bbox });
    });
    return buttons;
}
