// The map of an index. The page loads this module when the map is first seen; `props`, `trigger` and
// `watch` are Gradio's. Events: "select" and "similar" {index: row} to open a scene and to find others
// like it, "peek" {index: row} to get its picture in props.peeked, "apply" {bbox: [west, south, east,
// north]} for an area (its longitudes may exceed 180), "clear" when the area was removed.
// props.basemap {address, credit} is an online map, if there is one.

import { drawBase } from "./base_map.js";
import { addAreaButtons } from "./area.js";
import { addOnlineMap } from "./online_map.js";
import { addScenes } from "./scenes.js";

const LIBRARIES = ["leaflet.js", "topojson-client.js", "supercluster.js"];
const STYLES = ["leaflet.css", "world_map.css"];
const MAX_FIT = 12; // the zoom level beyond which results are not magnified

export async function drawMap(element, props, trigger, watch, base) {
    await Promise.all([...LIBRARIES.map((name) => load("script", base + name)),
        ...STYLES.map((name) => load("link", base + name))]);
    const frame = element.querySelector(".world-map");
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label",
        "World map: arrow keys move, plus and minus zoom, Tab goes from scene to scene");
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const map = L.map(frame, {
        zoomControl: true, attributionControl: true, minZoom: frame.clientWidth > 800 ? 2 : 1,
        maxZoom: 16, zoomSnap: 0.25,
        worldCopyJump: true, maxBounds: [[-88, -540], [88, 540]], boxZoom: false,
        zoomAnimation: !still, fadeAnimation: !still, inertia: !still,
    });
    // Leaflet has no option for the animation of a pan.
    if (still) map.panBy = (offset, options) =>
        L.Map.prototype.panBy.call(map, offset, { ...options, animate: false });
    map.attributionControl.setPrefix('<a href="https://leafletjs.com" target="_blank">Leaflet</a>');
    map.attributionControl.addAttribution("Map: Natural Earth. Towns: GeoNames, CC BY 4.0");
    L.control.scale({ imperial: false, maxWidth: 110, position: "topleft" }).addTo(map);
    map.setView([25, 5], 2);
    if (props.basemap) addOnlineMap(map, frame, props.basemap);

    const area = addAreaButtons(map, frame, trigger);
    const scenes = addScenes(map, trigger, () => props.peeked);
    let fittedTo = "", isNew = false;
    const show = (value) => {
        if (!value) return;
        area.show(value.bbox);
        scenes.show(value);
        isNew = true;
        fit(value);
    };
    // Once per set of scenes, so that the view stays where the visitor moved it.
    const fit = (value) => {
        if (!isNew || !frame.clientWidth) return;
        isNew = false;
        const located = scenes.find(value.located);
        const key = JSON.stringify([value.results, value.count, value.bbox, value.own]);
        if (located) scenes.locate(located);
        else if (key !== fittedTo) {
            const bounds = value.bbox ? area.bounds() : scenes.bounds();
            if (bounds?.isValid()) map.fitBounds(bounds, { padding: [40, 40], maxZoom: MAX_FIT });
        }
        fittedTo = key;
    };
    show(props.value);
    watch("value", () => show(props.value));
    watch("peeked", () => scenes.peeked());
    // A map in a hidden tab has no size until the tab is shown.
    new ResizeObserver(() => {
        map.invalidateSize();
        fit(props.value);
    }).observe(frame);
    await drawBase(map, base);
    frame.dataset.drawn = "true";
}

function load(kind, address) {
    if (address.endsWith("leaflet.js") && window.L) return null; // the viewer has it
    return new Promise((resolve, reject) => {
        const tag = document.createElement(kind);
        if (kind === "link") Object.assign(tag, { rel: "stylesheet", href: address });
        else tag.src = address;
        tag.onload = resolve;
        tag.onerror = () => reject(new Error(`${address} cannot be loaded`));
        document.head.append(tag);
    });
}
