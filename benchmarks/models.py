"""Print the encoders' width, parameters, memory and tokens a patch.

python -m benchmarks.models

Networks have their published shapes on torch's meta device, so neither the Hub nor memory is
needed. benchmarks.moondream2 measures Moondream2's full size.
"""

from __future__ import annotations

import torch
from olmoearth_pretrain_minimal import ModelID

from earthvlm.models.olmoearth import OlmoEarthEncoder


def main() -> None:
    print("| id | width | parameters | memory, float32 | tokens a patch |\n|---|---|---|---|---|")
    for model_id in ModelID:
        _, version, size = model_id.value.lower().split("-")
        with torch.device("meta"):
            encoder = OlmoEarthEncoder(f"random-{version.replace('_', '.')}-{size}")
        millions = sum(p.numel() for p in encoder.parameters()) / 1e6
        print(
            f"| `{model_id.value}` | {encoder.dim} | {millions:.1f} M | {4 * millions:.0f} MB | "
            f"{encoder.band_sets} |"
        )


if __name__ == "__main__":
    main()
