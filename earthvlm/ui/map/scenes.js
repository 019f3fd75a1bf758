// The scenes of an index on the map: clusters that open, footprints, numbered results, and a card
// with a scene's picture. supercluster groups what would overlap.

import { COPIES, MERCATOR_LATITUDE } from "./base_map.js";

const CLUSTER_RADIUS = 46; // pixels
const CLUSTERED_UNTIL = 14; // a zoom level; beyond, scenes of one place are listed
// What can be chosen is at least 24 pixels wide and high, and does not lie on another (WCAG 2.5.8).
const TARGET = 24; // pixels
const GAP = 3; // pixels between two markers
const LETTER = 7.2, PADDING = 14; // pixels, of the text of a marker
const OUTLINE_WIDTH = 48; // pixels; from this size on a footprint takes the place of its marker
const RESULT_OUTLINE_WIDTH = 8; // pixels; from this size on a result's is drawn around its rank,
const CHOSEN_OUTLINE_WIDTH = 80; // and from this size on it can be chosen, too
const LOCATED_ZOOM = 10;
const PEEK_MS = 120; // how long the pointer rests on a scene before its picture is asked for
const LISTED = 40;
const NEAR_KM = 100;
const OWN_SCENE = -1; // in place of a row

export function addScenes(map, trigger, readPeeked) {
    map.createPane("outlines").style.zIndex = 430;
    const outlines = L.layerGroup().addTo(map), markers = L.layerGroup().addTo(map);
    let scenes = new Map(), clusters = null, results = [], own = null;
    let open = null; // the card that was shown last: {content, scene}
    let shown = null; // the popup that was opened last
    const pictures = new Map(); // by row, as the server sent them
    let waiting = null; // the timer of a picture that is about to be asked for
    let taken = []; // the places of the markers, {x, y, w, h} in pixels

    const show = (value) => {
        const coordinates = new Float32Array(decode(value.points));
        const rows = new Int32Array(decode(value.rows));
        scenes = new Map([...rows].map((row, i) => [row, {
            row, at: [coordinates[2 * i + 1], coordinates[2 * i]],
            name: value.names[i] ?? "A scene", outline: value.outlines[i] ?? [],
        }]));
        const ranked = new Set(value.results.map((each) => each.row));
        results = value.results.map((each) => ({
            row: each.row, rank: each.rank, name: each.name, at: [each.latitude, each.longitude],
            outline: scenes.get(each.row)?.outline ?? [],
        }));
        own = value.own ?? null;
        // Without the extent, a tile counts 512 pixels, and Leaflet's have 256.
        clusters = new Supercluster({
            radius: CLUSTER_RADIUS, extent: 256, maxZoom: CLUSTERED_UNTIL,
        });
        clusters.load([...scenes.values()].filter((scene) => !ranked.has(scene.row)).map((scene) => ({
            type: "Feature", properties: { row: scene.row },
            geometry: { type: "Point", coordinates: [scene.at[1], scene.at[0]] },
        })));
        map.closePopup();
        draw();
    };

    const draw = () => {
        if (!clusters) return;
        const focused = document.activeElement?.closest?.("[data-key]")?.dataset.key;
        markers.clearLayers();
        outlines.clearLayers();
        taken = [];
        drawResults();
        if (own) drawOwn();
        drawClusters();
        if (focused) markers.eachLayer((each) => {
            const icon = each.getElement();
            if (icon?.dataset.key === focused) icon.focus({ preventScroll: true });
        });
    };

    const drawClusters = () => {
        const view = map.getBounds().pad(0.1);
        const south = Math.max(view.getSouth(), -MERCATOR_LATITUDE);
        const north = Math.min(view.getNorth(), MERCATOR_LATITUDE);
        const zoom = Math.round(map.getZoom());
        for (const each of clusters.getClusters([-180, south, 180, north], zoom)) {
            const [longitude, latitude] = each.geometry.coordinates;
            for (const offset of COPIES) {
                const at = [latitude, longitude + offset];
                if (!view.contains(at)) continue;
                if (each.properties.cluster) addCluster(each, at, offset);
                else addScene(scenes.get(each.properties.row), at, offset);
            }
        }
    };

    const addCluster = (each, at, offset) => {
        const count = each.properties.point_count;
        const size = TARGET + 2 + 7 * Math.log10(count);
        const label = `${count} scenes here: open`;
        addMarker(findRoom(at, size), offset, "cluster", each.properties.point_count_abbreviated, size, label,
            `c${each.id}`, (marker) => {
                const zoom = clusters.getClusterExpansionZoom(each.id);
                if (zoom <= CLUSTERED_UNTIL) map.setView(at, Math.max(zoom, map.getZoom() + 1));
                else list(clusters.getLeaves(each.id, LISTED).map((leaf) =>
                    scenes.get(leaf.properties.row)), marker);
            });
    };

    const addScene = (scene, at, offset) => {
        if (!drawOutline(scene, offset, "footprint"))
            addMarker(findRoom(at, TARGET), offset, "dot", "", TARGET, scene.name, `s${scene.row}`,
                (marker) => card(scene, marker.getLatLng(), marker), scene);
    };

    const occupy = (at, w, h = TARGET) => {
        const { x, y } = map.latLngToContainerPoint(at);
        taken.push({ x, y, w, h });
        return at;
    };
    // A marker that would lie on another is drawn below it.
    const findRoom = (at, size) => {
        const { x, y: wanted } = map.latLngToContainerPoint(at);
        let y = wanted;
        const below = taken.filter((each) => Math.abs(each.x - x) < (each.w + size) / 2 + GAP)
            .sort((one, other) => one.y - other.y);
        for (const each of below)
            if (Math.abs(each.y - y) < (each.h + size) / 2 + GAP) y = each.y + (each.h + size) / 2 + GAP;
        taken.push({ x, y, w: size, h: size });
        return y === wanted ? at : map.containerPointToLatLng([x, y]);
    };

    const drawOutline = (scene, offset, className, isAlone = true) => {
        const rings = scene.outline.map((ring) => ring.map(([x, y]) => [y, x + offset]));
        if (!rings.length) return false;
        const bounds = L.latLngBounds(rings.flat());
        if (!map.getBounds().pad(0.1).intersects(bounds)) return false;
        const [west, east] = [bounds.getNorthWest(), bounds.getNorthEast()].map((corner) =>
            map.latLngToContainerPoint(corner).x);
        if (east - west < (scene.rank ? RESULT_OUTLINE_WIDTH : OUTLINE_WIDTH)) return false;
        const interactive = isAlone && (!scene.rank || east - west >= CHOSEN_OUTLINE_WIDTH);
        const shape = L.polygon(rings.map((ring) => [ring]), { className, pane: "outlines", interactive });
        shape.addTo(outlines);
        if (interactive) activate(shape, scene, () => card(scene, bounds.getCenter(), shape), offset);
        return true;
    };

    const drawResults = () => {
        for (const group of groupResults(map, results)) {
            const [best] = group;
            const label = group.length > 1
                ? `${group.length} results here, the best has rank ${best.rank}: list them`
                : `Result ${best.rank}: ${best.name}`;
            for (const offset of COPIES) {
                for (const scene of group)
                    drawOutline(scene, offset, "footprint result", group.length === 1);
                const text = nameGroup(group);
                const [size, name] = group.length > 1
                    ? [null, "result-marker wide"] : [TARGET, "result-marker"];
                const at = occupy([best.at[0], best.at[1] + offset], widthOf(text));
                addMarker(at, offset, name, text, size,
                    label, `r${best.rank}`, (marker) => group.length > 1 ? list(group, marker)
                        : card(best, marker.getLatLng(), marker), group.length > 1 ? null : best);
            }
        }
    };

    const drawOwn = () => {
        for (const offset of COPIES)
            addMarker(findRoom([own.latitude, own.longitude + offset], TARGET), offset, "own", "★", TARGET,
                `The scene in Chat: ${own.name}`, "own", () => {});
    };

    const addMarker = (at, offset, className, text, size, label, key, chosen, scene = null) => {
        const icon = L.divIcon({ className, html: "", iconSize: size && [size, size] });
        const marker = L.marker(at, {
            icon, keyboard: offset === 0, zIndexOffset: className === "dot" ? 0 : 500,
        }).addTo(markers);
        const drawn = marker.getElement();
        drawn.textContent = text;
        if (offset === 0) Object.assign(drawn.dataset, { key }), drawn.setAttribute("aria-label", label);
        else drawn.setAttribute("aria-hidden", "true");
        if (!scene) {
            drawn.title = label;
            marker.on("click", () => chosen(marker));
            marker.on("keypress", (event) => event.originalEvent.key === "Enter" && chosen(marker));
        } else activate(marker, scene, () => chosen(marker), offset);
        return marker;
    };

    // The pointer or the keyboard shows a scene's name and picture, a click or Enter its card.
    const activate = (layer, scene, chosen, offset) => {
        const drawn = layer.getElement();
        const hint = () => describe(scene);
        layer.bindTooltip(hint, { direction: "top", className: "map-hint", opacity: 1 });
        const look = () => {
            clearTimeout(waiting);
            waiting = setTimeout(() => ask(scene.row), PEEK_MS);
            layer.openTooltip();
        };
        layer.on("mouseover", look);
        layer.on("mouseout", () => clearTimeout(waiting));
        layer.on("click", (event) => { L.DomEvent.stopPropagation(event); chosen(); });
        if (offset !== 0) return;
        drawn.setAttribute("tabindex", "0");
        drawn.setAttribute("role", "button");
        drawn.setAttribute("aria-label", drawn.getAttribute("aria-label") ?? scene.name);
        drawn.dataset.key ??= `s${scene.row}`;
        drawn.addEventListener("focus", look);
        drawn.addEventListener("blur", () => layer.closeTooltip());
        drawn.addEventListener("keydown", (event) => {
            if (event.key !== "Enter" && event.key !== " ") return;
            event.preventDefault();
            chosen();
        });
    };

    const ask = (row) => {
        if (!pictures.has(row)) trigger("peek", { index: row });
    };
    const peeked = () => {
        const picture = readPeeked();
        if (!picture) return;
        pictures.set(picture.row, picture);
        const refresh = (layer) => layer.getTooltip()?.isOpen() && layer.getTooltip().update();
        markers.eachLayer(refresh);
        outlines.eachLayer(refresh);
        if (open?.scene.row === picture.row) fill(open);
    };

    const describe = (scene) => {
        const box = document.createElement("div");
        addPicture(box, pictures.get(scene.row));
        L.DomUtil.create("span", "", box).textContent = titleOf(scene);
        return box;
    };

    const card = (scene, at, opener) => {
        const content = L.DomUtil.create("div", "map-card");
        opener?.closeTooltip?.();
        open = { content, scene };
        fill(open);
        const actions = {
            "Open in Chat": () => trigger("select", { index: scene.row, value: scene.row }),
            "Scenes like this": () => trigger("similar", { index: scene.row }),
        };
        showPopup(content, at, scene.name, actions, opener);
        ask(scene.row);
    };
    const fill = ({ content, scene }) => {
        const picture = pictures.get(scene.row);
        content.querySelector(".map-picture")?.remove();
        const box = L.DomUtil.create("div", "map-picture");
        addPicture(box, picture);
        L.DomUtil.create("b", "", box).textContent = titleOf(scene);
        if (picture?.caption) L.DomUtil.create("p", "", box).textContent = picture.caption;
        content.prepend(box);
    };

    const list = (group, marker) => {
        const content = L.DomUtil.create("div", "map-card"), items = L.DomUtil.create("ol", "", content);
        for (const scene of group) {
            const button = L.DomUtil.create("button", "", L.DomUtil.create("li", "", items));
            button.type = "button";
            button.textContent = titleOf(scene);
            button.addEventListener("click", () => card(scene, marker.getLatLng(), marker));
        }
        showPopup(content, marker.getLatLng(), `${group.length} scenes here`, {}, marker);
    };

    const showPopup = (content, at, label, actions, opener) => {
        const bar = L.DomUtil.create("div", "map-actions", content);
        const popup = L.popup({ maxWidth: 260, maxHeight: 320, autoPanPaddingTopLeft: [5, 95] });
        for (const [text, act] of Object.entries(actions)) {
            const button = L.DomUtil.create("button", "", bar);
            button.type = "button";
            button.textContent = text;
            button.addEventListener("click", () => { map.closePopup(popup); act(); });
        }
        popup.setLatLng(at).setContent(content);
        popup.on("add", () => {
            const dialog = popup.getElement();
            dialog.setAttribute("role", "dialog");
            dialog.setAttribute("aria-label", label);
            dialog.addEventListener("keydown", (event) =>
                event.key === "Escape" && map.closePopup(popup));
            content.querySelector("button")?.focus({ preventScroll: true });
        });
        // Markers are drawn again whenever the map moves, so the opener is found by its key.
        const key = opener?.getElement?.()?.dataset.key;
        popup.on("remove", () => key && map.getContainer()
            .querySelector(`[data-key="${key}"]`)?.focus({ preventScroll: true }));
        shown = popup;
        popup.openOn(map);
    };

    // Any other spot: search around it, or for scenes like the one nearest to it. A click next to an
    // open card closes that alone.
    let closes = false;
    map.on("preclick", () => { closes = Boolean(shown?.isOpen()); });
    map.on("click", ({ latlng }) => {
        if (closes || map.getContainer().classList.contains("drawing")) return;
        const [nearest, km] = findNearest(latlng);
        const content = L.DomUtil.create("div", "map-card");
        const box = L.DomUtil.create("div", "map-picture", content);
        L.DomUtil.create("b", "", box).textContent = "Search from here";
        const actions = {
            [`Scenes within ${NEAR_KM} km`]: () => trigger("apply", { bbox: around(latlng) }),
        };
        if (nearest) {
            L.DomUtil.create("p", "", box).textContent =
                `The nearest scene is ${km < 10 ? km.toFixed(1) : Math.round(km)} km away.`;
            actions["Scenes like the nearest one"] = () => trigger("similar", { index: nearest.row });
        }
        showPopup(content, latlng, "Search from here", actions, null);
    });
    const findNearest = (latlng) => {
        let best = null, least = Infinity;
        const here = L.latLng(latlng.lat, latlng.lng).wrap();
        for (const scene of scenes.values()) {
            const distance = here.distanceTo(scene.at);
            if (distance < least) [best, least] = [scene, distance];
        }
        return [best, least / 1000];
    };

    map.on("moveend", draw);
    return {
        show, peeked,
        find: (row) => row === OWN_SCENE ? own && { own: true, at: [own.latitude, own.longitude] }
            : results.find((each) => each.row === row) ?? scenes.get(row), // a result tells its rank
        bounds: () => {
            const shown = results.length ? results : [...scenes.values()];
            return L.latLngBounds([...shown.map((each) => each.at),
                ...(own ? [[own.latitude, own.longitude]] : [])]);
        },
        locate: (scene) => {
            map.setView(scene.at, LOCATED_ZOOM, { animate: false });
            if (!scene.own) card(scene, L.latLng(scene.at), null);
        },
    };
}

function titleOf(scene) {
    return scene.rank ? `${scene.rank}: ${scene.name}` : scene.name;
}

// picture: as the server sent it, if it has arrived.
function addPicture(box, picture) {
    if (picture?.source) box.append(Object.assign(new Image(), { src: picture.source, alt: "" }));
}

function nameGroup(group) {
    return group.length > 1 ? `${group.length} results` : String(group[0].rank);
}

function widthOf(text) {
    return Math.max(TARGET, LETTER * text.length + PADDING);
}

// Results whose markers overlap at this zoom; the best of each group is first.
function groupResults(map, results) {
    const groups = [];
    const width = widthOf(`${results.length} results`) + GAP;
    for (const scene of results) {
        const position = map.latLngToLayerPoint(scene.at);
        const overlaps = ({ position: { x, y } }) =>
            Math.abs(x - position.x) < width && Math.abs(y - position.y) < TARGET + GAP;
        const group = groups.find(overlaps);
        if (group) group.scenes.push(scene);
        else groups.push({ position, scenes: [scene] });
    }
    // The best result is drawn last, on top.
    return groups.map((group) => group.scenes).reverse();
}

function around({ lat, lng }) {
    const degrees = NEAR_KM / 111.2, width = degrees / Math.max(Math.cos((lat * Math.PI) / 180), 0.05);
    return [lng - width, Math.max(lat - degrees, -90), lng + width, Math.min(lat + degrees, 90)];
}

function decode(text) {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
}
