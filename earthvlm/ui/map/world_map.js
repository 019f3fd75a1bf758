// The map of an index, for gr.HTML: `element`, `props`, `trigger` and `watch` are Gradio's.
// Events: "select" {index: row, value: row} for a scene, "apply" {box: [west, south, east, north]}
// for a box that was drawn (longitudes as the map has them, beyond 180 too), "clear" for none.

const POINT_RADIUS = 2; // pixels
const CLICK_RADIUS = 9;
const COPIES = [-360, 0, 360]; // the world is drawn three times, so that nothing ends at 180 degrees
const MERCATOR_LATITUDE = 85.05;
const SMALLEST_BOX = 4; // pixels a side; less is a click
const MARKER_SIZE = 22; // pixels; results that are nearer to each other share a marker

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
const points = { places: new Float32Array(), rows: new Int32Array() };
const dots = addDots();
const found = L.layerGroup().addTo(map);
let results = [];
let grouped = "";
map.on("zoomend", showResults);
let rectangle = null;
let fitted = "";
const drawing = addDrawing();

show(props.value);
watch("value", () => show(props.value));
// A map in a tab that was hidden has no size until it is shown.
new ResizeObserver(() => {
    map.invalidateSize();
    if (frame.clientWidth) fit(props.value);
}).observe(frame);

function show(value) {
    if (!value) return;
    points.places = new Float32Array(decode(value.points));
    points.rows = new Int32Array(decode(value.rows));
    dots.redraw();
    results = value.results;
    grouped = "";
    map.closePopup();
    showResults();
    showBox(value.box);
    fit(value);
}

function decode(text) {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
}

function fit(value) {
    // Once for each set of results or points, so that the view stays where a person moved it.
    const key = value && JSON.stringify([value.results, value.placed, value.box]);
    if (!value || key === fitted || !frame.clientWidth) return;
    fitted = key;
    const places = value.results.length
        ? value.results.map((scene) => [scene.latitude, scene.longitude])
        : Array.from(points.rows, (_, i) => [points.places[2 * i + 1], points.places[2 * i]]);
    if (value.box) map.fitBounds(rectangle.getBounds(), { padding: [30, 30] });
    else if (places.length)
        map.fitBounds(L.latLngBounds(places), { padding: [30, 30], maxZoom: 9 });
}

function showResults() {
    const groups = groupResults();
    const key = JSON.stringify(groups.map((group) => group.map((scene) => scene.rank)));
    if (key === grouped) return;
    grouped = key;
    const focused = Number(document.activeElement?.closest?.(".found-scene")?.dataset.rank);
    found.clearLayers();
    // The best is drawn last, above the others.
    for (const group of groups.reverse())
        for (const turn of COPIES) {
            const marker = addMarker(group, turn);
            if (turn === 0 && group.some((scene) => scene.rank === focused))
                marker.getElement().focus({ preventScroll: true });
        }
}

// Results that would hide each other at this zoom, the best of each group first.
function groupResults() {
    const world = 256 * 2 ** map.getZoom();
    const groups = [];
    for (const scene of results) {
        const place = { x: scene.longitude / 360 + 0.5, y: mercator(scene.latitude) };
        const near = groups.find((group) => {
            const dx = group.place.x - place.x;
            const apart = Math.hypot(dx - Math.round(dx), group.place.y - place.y);
            return apart * world < MARKER_SIZE;
        });
        if (near) near.scenes.push(scene);
        else groups.push({ place, scenes: [scene] });
    }
    return groups.map((group) => group.scenes);
}

function addMarker(group, turn) {
    const [best] = group;
    const more = group.length > 1 ? `<small>+${group.length - 1}</small>` : "";
    const label = group.length > 1
        ? `${group.length} scenes here, the best of them number ${best.rank}: list them`
        : `${best.rank}: ${best.name}`;
    const marker = L.marker([best.latitude, best.longitude + turn], {
        icon: L.divIcon({
            className: "found-scene", html: best.rank + more, iconSize: [MARKER_SIZE, MARKER_SIZE],
        }),
        title: label,
        keyboard: turn === 0,
        zIndexOffset: 1000 - best.rank,
    });
    const choose = () => (group.length > 1 ? listScenes(group, marker) : open(best));
    marker.on("click", choose);
    marker.on("keypress", (event) => event.originalEvent.key === "Enter" && choose());
    marker.addTo(found);
    const drawn = marker.getElement();
    drawn.dataset.rank = best.rank;
    if (turn === 0) drawn.setAttribute("aria-label", label);
    else drawn.setAttribute("aria-hidden", "true");
    return marker;
}

function open(scene) {
    trigger("select", { index: scene.row, value: scene.row });
}

function listScenes(group, marker) {
    const list = L.DomUtil.create("ol", "found-list");
    for (const scene of group) {
        const button = L.DomUtil.create("button", "", L.DomUtil.create("li", "", list));
        button.type = "button";
        L.DomUtil.create("b", "", button).textContent = scene.rank;
        const told = L.DomUtil.create("span", "", button);
        told.textContent = scene.name;
        if (scene.caption) L.DomUtil.create("small", "", told).textContent = scene.caption;
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
        const box = popup.getElement();
        box.setAttribute("role", "dialog");
        box.setAttribute("aria-label", `${group.length} scenes found here`);
        box.addEventListener("keydown", (event) => event.key === "Escape" && map.closePopup(popup));
        list.querySelector("button").focus({ preventScroll: true });
    });
    // Whoever came by keyboard goes on where they were.
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
            // Points drawn one over another would hide how many there are.
            const many = points.rows.length > 20000;
            pen.globalAlpha = many ? 0.35 : 0.75;
            for (let i = 0; i < points.rows.length; i++) {
                const y = mercator(points.places[2 * i + 1]) * world - top;
                if (y < -POINT_RADIUS || y > size.y + POINT_RADIUS) continue;
                let x = (points.places[2 * i] / 360 + 0.5) * world - left;
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
    map.createPane("dots").style.zIndex = 450; // above the land, below what was found
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
        let dx = points.places[2 * i] / 360 + 0.5 - x;
        dx = (dx - Math.round(dx)) * world;
        if (Math.abs(dx) > CLICK_RADIUS) continue;
        const dy = (mercator(points.places[2 * i + 1]) - y) * world;
        const distance = dx * dx + dy * dy;
        if (distance < best) [best, row] = [distance, points.rows[i]];
    }
    return row;
}

function showBox(box) {
    if (rectangle) rectangle.remove();
    rectangle = null;
    drawing.clear.hidden = !box;
    if (!box) return;
    const [west, south, east, north] = box;
    const bounds = [[south, west], [north, east < west ? east + 360 : east]];
    rectangle = L.rectangle(bounds, { className: "box", interactive: false }).addTo(map);
}

function addDrawing() {
    const bar = L.control({ position: "topright" });
    const buttons = {};
    bar.onAdd = () => {
        const box = L.DomUtil.create("div", "leaflet-bar map-buttons");
        for (const [name, label] of [["draw", "Draw a box"], ["clear", "Remove the box"]]) {
            buttons[name] = L.DomUtil.create("button", "", box);
            buttons[name].type = "button";
            buttons[name].textContent = label;
        }
        L.DomEvent.disableClickPropagation(box);
        return box;
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
        showBox(null);
        trigger("clear", {});
    });
    buttons.clear.hidden = true;
    frame.addEventListener("pointerdown", (event) => {
        if (!active || event.target.closest(".leaflet-control")) return;
        event.preventDefault();
        start = { at: [event.clientX, event.clientY], latlng: map.mouseEventToLatLng(event) };
        frame.setPointerCapture(event.pointerId);
    });
    const corners = (event) => {
        const end = map.mouseEventToLatLng(event);
        const longitudes = [start.latlng.lng, end.lng].sort((a, b) => a - b);
        const latitudes = [start.latlng.lat, end.lat].sort((a, b) => a - b);
        return [longitudes[0], latitudes[0], longitudes[1], latitudes[1]];
    };
    frame.addEventListener("pointermove", (event) => {
        if (start) showBox(corners(event));
    });
    frame.addEventListener("pointerup", (event) => {
        if (!start) return;
        const [dx, dy] = [event.clientX - start.at[0], event.clientY - start.at[1]];
        const box = corners(event);
        start = null;
        setActive(false);
        if (Math.min(Math.abs(dx), Math.abs(dy)) < SMALLEST_BOX) showBox(null);
        else trigger("apply", { box });
    });
    return buttons;
}
