// Draws the land of world_map.js's map; `props.land` is Natural Earth as TopoJSON.

function drawLand() {
    const land = topojson.feature(props.land, props.land.objects.land);
    const shapes = land.features ? land.features.map((part) => part.geometry) : [land.geometry];
    const polygons = shapes.flatMap((s) => (s.type === "Polygon" ? [s.coordinates] : s.coordinates));
    for (const offset of COPIES)
        L.polygon(
            polygons.map((rings) => rings.map((ring) => unwrap(ring, offset))),
            { className: "land", interactive: false, noClip: true }
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
