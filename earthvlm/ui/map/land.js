// The land under the map, which world_map.js draws: `props.land` is Natural Earth as TopoJSON.

function drawLand() {
    const land = topojson.feature(props.land, props.land.objects.land);
    const shapes = land.features ? land.features.map((part) => part.geometry) : [land.geometry];
    const polygons = shapes.flatMap((s) => (s.type === "Polygon" ? [s.coordinates] : s.coordinates));
    for (const turn of COPIES)
        L.polygon(
            polygons.map((rings) => rings.map((ring) => unwrap(ring, turn))),
            { className: "land", interactive: false, noClip: true }
        ).addTo(map);
}

function unwrap(ring, turn) {
    // A ring over the date line goes on beyond 180 degrees instead of jumping back.
    let shift = turn;
    const places = ring.map(([longitude, latitude], i) => {
        if (i) {
            const step = longitude - ring[i - 1][0];
            if (step > 180) shift -= 360;
            else if (step < -180) shift += 360;
        }
        return [Math.max(latitude, -MERCATOR_LATITUDE), longitude + shift];
    });
    if (shift !== turn) {
        // Antarctica goes round the pole, and is closed along the lower edge of the map.
        places.push([-MERCATOR_LATITUDE, places[places.length - 1][1]]);
        places.push([-MERCATOR_LATITUDE, places[0][1]]);
    }
    return places;
}
