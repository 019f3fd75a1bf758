// An online map over the bundled one, where the owner of the server has named one. The bundled map
// is drawn below it: it fills what does not load, and its names are hidden only over what did.

export function addOnlineMap(map, frame, { address, credit }) {
    map.createPane("online").style.zIndex = 230;
    const tiles = L.tileLayer(address, { pane: "online", attribution: credit });
    const update = () => {
        const loaded = tiles.getContainer()?.querySelector(".leaflet-tile-loaded");
        frame.classList.toggle("online", Boolean(loaded));
    };
    tiles.on("tileload tileerror load", update);
    tiles.addTo(map);
}
