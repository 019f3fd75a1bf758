"""OlmoEarth, Ai2's foundation encoder for Sentinel-2: from scenes to tokens."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from earthvlm.models.olmoearth_loading import MODALITY, load_network, resolve_model_id
from earthvlm.scenes.bands import BANDS, REFLECTANCE_SCALE
from earthvlm.scenes.scene import Scene

if TYPE_CHECKING:
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.datatypes import (
        MaskedOlmoEarthSample,
    )

    from earthvlm.models.language.moondream2_vision import PictureCrops

# The authors recommend inputs of at most 128 x 128 pixels; larger scenes are cut into crops.
CROP_SIZE = 128
PATCH_SIZE = 8
# v1.3 was trained on windows of 16 pixels in small patches; its features are the location tokens of
# its pooler (the package's searchlight.py).
POOLED_CROP_SIZE = 16
POOLED_PATCH_SIZES = (2, 1)  # the first is the default
RESOLUTION = 10  # metres, of the bands OlmoEarth was trained on
# Patches that are encoded at once: few enough for a CPU's caches, many enough for a GPU.
PATCHES_AT_ONCE = {"cpu": 2048, "cuda": 65_536}
# OlmoEarth needs a date. Scenes without one get the middle of a northern summer.
DEFAULT_TIMESTAMP = (15, 6, 2020)  # day, month counted from 0, year


@dataclass(frozen=True)
class PreparedScene:
    """A scene as the encoder takes it, made on the CPU, for example by a data loader's worker.

    Attributes:
        pixels: float32 `[H, W, 12]`, normalized, edges repeated so that patches divide H and W.
        timestamp: day, month counted from 0, year.
        patch_size: pixels along a patch's side.
        picture: true colours for the language model's own vision tower, where it is used.
    """

    pixels: Tensor
    timestamp: tuple[int, int, int]
    patch_size: int
    picture: PictureCrops | None = None


@dataclass(frozen=True)
class SceneTokens:
    """The encoder's tokens of a batch of scenes, padded to the scene with most tokens.

    Attributes:
        tokens: `[B, N, D]`, row by row over the scene; versions with several band sets have that
            many neighbouring tokens for each patch.
        positions: `[B, N, 2]`, each token's row and column in its scene, from 0 to 1.
        mask: bool `[B, N]`, True where there is a token, False where there is padding.
        grids: the rows and columns of patches of each scene.
    """

    tokens: Tensor
    positions: Tensor
    mask: Tensor
    grids: tuple[tuple[int, int], ...]

    def to(self, device: torch.device) -> SceneTokens:
        """Copy the tensors to a device."""
        tokens, positions, mask = (t.to(device) for t in (self.tokens, self.positions, self.mask))
        return SceneTokens(tokens, positions, mask, self.grids)


class OlmoEarthEncoder(nn.Module):
    """Encodes Sentinel-2 scenes with OlmoEarth's own encoder and normalizer.

    Args:
        model_id: an `olmoearth_pretrain_minimal.ModelID`, its value ("OlmoEarth-v1-Nano") or its
            name in any case, a folder with `config.json` and `weights.pth`, or "random-v1.2-nano"
            for that network with random weights.
        bands: the bands the encoder was trained on; others count as missing even where a scene
            has them.
        patch_size: pixels along a patch's side; 8 by default, and 2 for v1.3, which takes 1 or 2.
        revision: of the model's Hub repository; the newest by default.

    Raises:
        ValueError: for an unknown model id, or a patch size that the version does not take.
    """

    def __init__(
        self,
        model_id: str,
        bands: Sequence[str] = BANDS,
        patch_size: int | None = None,
        revision: str | None = None,
    ) -> None:
        super().__init__()
        from olmoearth_pretrain_minimal import NormalizerV1, NormalizerV1_1

        self.model_id = resolve_model_id(model_id)
        self.bands = tuple(bands)
        self.network: Any  # the package has no types
        self.network, self.revision = load_network(self.model_id, revision or None)
        # v1 splits the bands into three sets, every later version keeps one.
        self.band_sets = self.network.tokenization_config.get_num_bandsets(MODALITY)
        self.normalizer = NormalizerV1() if self.band_sets > 1 else NormalizerV1_1()
        self.dim: int = self.network.embedding_size
        # v1 and v1.1 have position embeddings for squares only; later versions use RoPE.
        self.needs_squares = "rope" not in self.network.position_encoding
        self.is_pooled = self.network.attention_pooler is not None
        self.crop_size = POOLED_CROP_SIZE if self.is_pooled else CROP_SIZE
        self.patch_size = patch_size or (POOLED_PATCH_SIZES[0] if self.is_pooled else PATCH_SIZE)
        self.check_patch_size(self.patch_size)

    def check_patch_size(self, patch_size: int) -> None:
        """Raise ValueError for a patch size that this version of OlmoEarth does not take."""
        if self.is_pooled and patch_size not in POOLED_PATCH_SIZES:
            raise ValueError(
                f"{self.model_id} takes patches of 1 or 2 pixels to a side, not {patch_size}."
            )

    def count_patches(self, scene: Scene, patch_size: int | None = None) -> int:
        """Count the patches of a scene; each has one token for each band set."""
        patch = patch_size or self.patch_size
        return -(-scene.height // patch) * -(-scene.width // patch)

    def prepare(self, scene: Scene, patch_size: int | None = None) -> PreparedScene:
        """Normalize a scene as the model version was trained, missing bands included.

        patch_size: in place of the encoder's own.
        """
        reflectance = scene.reflectance.copy()
        for index, band in enumerate(BANDS):
            if band not in self.bands:
                reflectance[..., index] = np.nan
        pixels = self._normalize(reflectance)
        patch = patch_size or self.patch_size
        rows, columns = (-side % patch for side in pixels.shape[:2])
        if rows or columns:
            pixels = np.pad(pixels, ((0, rows), (0, columns), (0, 0)), mode="edge")
        date = scene.date
        timestamp = DEFAULT_TIMESTAMP if date is None else (date.day, date.month - 1, date.year)
        return PreparedScene(torch.from_numpy(pixels.astype(np.float32)), timestamp, patch)

    def _normalize(self, reflectance: np.ndarray) -> np.ndarray:
        """Normalize `[H, W, 12]`, changing it; a missing band is NaN throughout."""
        from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.constants import Modality

        # The package warns of missing bands, which the scene's notes already name.
        if self.band_sets > 1:  # v1 takes them from their neighbours
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Up to .* bands were")
                return self.normalizer.normalize(Modality.SENTINEL2_L2A, reflectance)
        # Filled as the package does, because no filter holds while several threads prepare scenes.
        missing = np.isnan(reflectance[0, 0])
        reflectance[..., missing] = 0
        normalized = self.normalizer.normalize(Modality.SENTINEL2_L2A, reflectance)
        normalized[..., missing] = 0
        return normalized

    def normalized_range(self) -> tuple[Tensor, Tensor]:
        """Return what reflectance 0 and 1 become in `PreparedScene.pixels`, `[12]` each."""
        ends = np.array([[[0.0]], [[REFLECTANCE_SCALE]]], np.float32).repeat(len(BANDS), 2)
        black, white = self._normalize(ends)[:, 0]
        return torch.from_numpy(black), torch.from_numpy(white)

    def forward(self, scenes: Sequence[PreparedScene], in_bfloat16: bool = False) -> SceneTokens:
        """Encode scenes of any sizes, each with the patch size it was prepared for.

        in_bfloat16: let the CPU multiply the feed-forward matrices in it; see
            `multiplies_bfloat16`.
        """
        patches = [scene.patch_size for scene in scenes]
        grids = [
            (scene.pixels.shape[0] // patch, scene.pixels.shape[1] // patch)
            for scene, patch in zip(scenes, patches, strict=True)
        ]
        crops = defaultdict(list)  # patch and size in patches -> (scene, top, left) in patches
        for index, ((height, width), patch) in enumerate(zip(grids, patches, strict=True)):
            down, across = (_plan_step(side, self.crop_size // patch) for side in (height, width))
            for top in range(0, height, down):
                for left in range(0, width, across):
                    size = (min(down, height - top), min(across, width - left))
                    crops[patch, *size].append((index, top, left))

        device = next(self.network.parameters()).device
        encoded: list[dict[tuple[int, int], Tensor]] = [{} for _ in scenes]
        for (patch, height, width), places in crops.items():
            count = max(1, PATCHES_AT_ONCE.get(device.type, 2048) // (height * width))
            for start in range(0, len(places), count):
                some = places[start : start + count]
                pixels = torch.stack(
                    [
                        scenes[i].pixels[
                            top * patch : (top + height) * patch,
                            left * patch : (left + width) * patch,
                        ]
                        for i, top, left in some
                    ]
                )
                timestamps = torch.tensor([scenes[i].timestamp for i, _, _ in some])
                tokens = self._encode_crops(
                    pixels.to(device, non_blocking=True), timestamps.to(device), patch, in_bfloat16
                )
                for (i, top, left), crop in zip(some, tokens, strict=True):
                    encoded[i][top, left] = crop
        return join_tokens([_join_crops(crops_of_scene) for crops_of_scene in encoded])

    def _encode_crops(
        self, pixels: Tensor, timestamps: Tensor, patch: int, in_bfloat16: bool
    ) -> Tensor:
        """Encode crops `[B, H, W, 12]` of one size to `[B, H/patch, W/patch, band sets, D]`."""
        from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.datatypes import (
            MaskedOlmoEarthSample,
        )

        height, width = (side // patch for side in pixels.shape[1:3])
        if self.needs_squares and height != width:
            more = max(height, width) * patch
            edges = (0, more - pixels.shape[2], 0, more - pixels.shape[1])
            square = nn.functional.pad(pixels.permute(0, 3, 1, 2), edges, mode="replicate")
            pixels = square.permute(0, 2, 3, 1)
        sample = MaskedOlmoEarthSample(
            timestamps=timestamps[:, None].long(),
            sentinel2_l2a=pixels[:, :, :, None],
            sentinel2_l2a_mask=torch.zeros(
                (*pixels.shape[:3], 1, self.band_sets), device=pixels.device
            ),
        )
        if self.is_pooled:
            # One location token for each patch, in the place of its one band set.
            pooled = self.network(sample, patch_size=patch, input_res=RESOLUTION, fast_pass=True)
            return pooled["location_tokens"][:, :, :, None]
        return self._attend(sample, patch, in_bfloat16)[:, :height, :width, 0]

    def _attend(self, sample: MaskedOlmoEarthSample, patch: int, in_bfloat16: bool) -> Tensor:
        """Run the network's own layers without masking, to `[B, H/p, W/p, 1, sets, D]`."""
        network = self.network
        patches = network.patch_embeddings(sample, patch)
        tokens = {MODALITY: patches[MODALITY]}
        encoded = network.composite_encodings(tokens, sample.timestamps, patch, RESOLUTION)[
            MODALITY
        ]
        # A crop has one date, and RoPE depends on distances only, so all crops share the angles of
        # the first; the network itself would compute them for each.
        first = {MODALITY: encoded[:1]}
        mask = {f"{MODALITY}_mask": patches[f"{MODALITY}_mask"][:1]}
        positions = network.build_rope_positions(
            first, mask, patch, RESOLUTION, timestamps=sample.timestamps[:1]
        )
        x = encoded.flatten(1, -2)
        for block in network.blocks:
            attended = block.attn(block.norm1(x), rope_positions=positions)
            x = x + block.drop_path(block.ls1(attended))
            # Two thirds of the multiplications. Attention is as fast in float32.
            with torch.autocast("cpu", torch.bfloat16) if in_bfloat16 else nullcontext():
                fed = block.mlp(block.norm2(x))
            x = x + block.drop_path(block.ls2(fed))
        return network.norm(x).view(encoded.shape)


def _plan_step(side: int, largest: int) -> int:
    """The length of crops along a side: nearly equal ones, since in a narrow one little is seen."""
    return -(-side // -(-side // largest))


def _join_crops(crops: dict[tuple[int, int], Tensor]) -> Tensor:
    """Join the tokens of a scene's crops, by where they begin, `[rows, columns, band sets, D]`."""
    tops, lefts = (sorted({place[axis] for place in crops}) for axis in (0, 1))
    return torch.cat([torch.cat([crops[top, left] for left in lefts], dim=1) for top in tops])


def join_tokens(scenes: Sequence[Tensor]) -> SceneTokens:
    """Pad the tokens of scenes into a batch, each of `[rows, columns, band sets, D]`."""
    tokens, positions = [], []
    for scene in scenes:
        height, width, band_sets = scene.shape[:3]
        tokens.append(scene.flatten(0, 2))
        row = (torch.arange(height, device=scene.device) + 0.5) / height
        column = (torch.arange(width, device=scene.device) + 0.5) / width
        place = torch.stack(torch.meshgrid(row, column, indexing="ij"), dim=-1)
        positions.append(place.flatten(0, 1).repeat_interleave(band_sets, dim=0))
    pad = nn.utils.rnn.pad_sequence
    lengths = torch.tensor([len(t) for t in tokens], device=tokens[0].device)
    padded = pad(tokens, batch_first=True)
    mask = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
    grids = tuple((scene.shape[0], scene.shape[1]) for scene in scenes)
    return SceneTokens(padded, pad(positions, batch_first=True), mask, grids)
