"""How large the encoders are: width, parameters, memory, tokens a patch.

python -m benchmarks.models

Networks are sketched with their published shapes and no numbers, so neither the Hub nor memory is
needed. Moondream2's full size is measured by benchmarks.moondream2.
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
