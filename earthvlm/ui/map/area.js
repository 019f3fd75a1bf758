// The area that a search is limited to: drawn, of the view, or removed.

const MIN_SIDE = 4; // pixels; a smaller box is a click

export function addAreaButtons(map, frame, trigger) {
    let rectangle = null, active = false, start = null;
    const labels = {
        view: "Search in this view", draw: "Draw an area", clear: "Remove the area",
    };
    const buttons = {};
    const bar = L.control({ position: "topright" });
    bar.onAdd = () => {
        const container = L.DomUtil.create("div", "leaflet-bar map-buttons");
        for (const [name, label] of Object.entries(labels)) {
            buttons[name] = L.DomUtil.create("button", "", container);
            buttons[name].type = "button";
            buttons[name].textContent = label;
        }
        L.DomEvent.disableClickPropagation(container);
        return container;
    };
    bar.addTo(map);
    buttons.clear.hidden = true;

    const show = (bbox) => {
        if (rectangle) rectangle.remove();
        rectangle = null;
        buttons.clear.hidden = !bbox;
        if (!bbox) return;
        const [west, south, east, north] = bbox;
        const bounds = [[south, west], [north, east < west ? east + 360 : east]];
        rectangle = L.rectangle(bounds, { className: "bbox", interactive: false }).addTo(map);
    };
    const setActive = (on) => {
        active = on;
        buttons.draw.setAttribute("aria-pressed", String(on));
        frame.classList.toggle("drawing", on);
        map.dragging[on ? "disable" : "enable"]();
    };
    buttons.view.addEventListener("click", () => {
        const view = map.getBounds();
        trigger("apply", {
            bbox: [view.getWest(), Math.max(view.getSouth(), -90), view.getEast(),
                Math.min(view.getNorth(), 90)],
        });
    });
    buttons.draw.addEventListener("click", () => setActive(!active));
    buttons.clear.addEventListener("click", () => {
        show(null);
        trigger("clear", {});
    });
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
        if (start) show(corners(event));
    });
    frame.addEventListener("pointerup", (event) => {
        if (!start) return;
        const [dx, dy] = [event.clientX - start.pixels[0], event.clientY - start.pixels[1]];
        const bbox = corners(event);
        start = null;
        // The click that ends the drawing is none on the map.
        setTimeout(() => setActive(false));
        if (Math.min(Math.abs(dx), Math.abs(dy)) < MIN_SIDE) show(null);
        else trigger("apply", { bbox });
    });
    return { show, bounds: () => rectangle?.getBounds() };
}
