"""What a saved bridge is: its files, and the configuration that builds it again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from earthvlm.models.text_encoder import SENTENCE_MODEL_ID, SENTENCE_MODEL_REVISION
from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.distribution_shift import TrainingStatistics

FORMAT_VERSION = 1

CONFIG_FILE = "config.json"
FUSION_FILE = "fusion.safetensors"
ENCODER_FILE = "encoder.safetensors"
VISION_FILE = "vision.safetensors"
LANGUAGE_FILE = "language_model.safetensors"
ADAPTER_FOLDER = "adapter"
ADAPTER_FILE = f"{ADAPTER_FOLDER}/adapter_model.safetensors"
ADAPTER_CONFIG_FILE = f"{ADAPTER_FOLDER}/adapter_config.json"
# What a bridge is loaded from, and what is published beside that for people to read.
BRIDGE_FILES = (
    CONFIG_FILE,
    FUSION_FILE,
    ENCODER_FILE,
    VISION_FILE,
    LANGUAGE_FILE,
    ADAPTER_FILE,
    ADAPTER_CONFIG_FILE,
)
CARD_FILE = "README.md"
CURVE_FILE = "loss_curve.png"
LOG_FILE = "training_log.json"
SAMPLES_FOLDER = "samples"
PUBLISHED_FILES = (*BRIDGE_FILES, CARD_FILE, CURVE_FILE, LOG_FILE, f"{SAMPLES_FOLDER}/*.png")
# What a repository may hold of an earlier push; PEFT names an adapter's files alike.
OWNED_FILES = (*PUBLISHED_FILES, f"{ADAPTER_FOLDER}/adapter_model*")


# Entries that tell people about a bridge and change neither an embedding nor an answer.
DESCRIPTIVE_ENTRIES = (
    *("trained_on", "training", "training_tiles"),
    *("format_version", "earthvlm_version"),
)
REVISION_LENGTH = 12


def sample_picture(folder: Path, image: str) -> Path:
    """Where the picture of a tile lies that a bridge was asked about while it was trained."""
    return folder / SAMPLES_FOLDER / f"{Path(image).stem}.png"


LIMITS = (
    "Answers can be wrong. The model names broad land cover and rounded shares; single objects, "
    "names of places and changes in time are beyond it."
)


@dataclass(frozen=True)
class BridgeConfig:
    """All that is needed to build a bridge again, beside its weights.

    bands: what the encoder was trained on; a scene's other bands are ignored.
    patch_size, embedding_patch_size: pixels to a side that a token stands for, where a scene is
        talked about and where it is embedded for search.
    trained_on: a sentence for people, empty for a bridge that was never trained.
    training_tiles: statistics of the tiles it was trained on; None warns of no unusual scene.
    earthvlm_version: the earthvlm that wrote the files; empty until they are written.
    """

    olmoearth_model_id: str
    vlm_model_id: str
    vlm_revision: str
    olmoearth_revision: str = ""
    use_vlm_vision: bool = False
    freeze_olmoearth: bool = True
    freeze_vlm_vision: bool = False
    use_lora: bool = True
    lora_r: int = 16
    lora_alpha: int = 32
    num_geo_queries: int = 32
    bands: tuple[str, ...] = BANDS
    patch_size: int = 8
    embedding_patch_size: int = 8
    sentence_model_id: str = SENTENCE_MODEL_ID
    sentence_model_revision: str = SENTENCE_MODEL_REVISION
    trained_on: str = ""
    training: dict = field(default_factory=dict)
    training_tiles: TrainingStatistics | None = None
    format_version: int = FORMAT_VERSION
    earthvlm_version: str = ""

    @classmethod
    def read(cls, folder: Path) -> BridgeConfig:
        """Read `config.json`.

        Raises FileNotFoundError where there is none, ValueError where it lacks an entry or has an
        unknown one, and for any other format than this earthvlm's.
        """
        path = folder / CONFIG_FILE
        try:
            values = json.loads(path.read_text())
            version = values["format_version"]
            if version != FORMAT_VERSION:
                raise ValueError(
                    f"{path} has format {version}, and this earthvlm reads format "
                    f"{FORMAT_VERSION}: pip install 'earthvlm=={values['earthvlm_version']}'."
                )
            names = {f.name for f in fields(cls)}
            if names - set(values):
                lacking = ", ".join(sorted(names - set(values)))
                raise ValueError(f"{path} is no bridge's configuration: it lacks {lacking}.")
            unknown = set(values) - names
            if unknown:
                raise ValueError(f"{path} has entries no bridge has: {', '.join(sorted(unknown))}.")
            tiles = values["training_tiles"]
            parsed = {
                "bands": tuple(values["bands"]),
                "training_tiles": tiles and TrainingStatistics.from_entry(tiles),
            }
            return cls(**values | parsed)
        except FileNotFoundError:
            raise FileNotFoundError(f"{folder} holds no {CONFIG_FILE}: it is no bridge.") from None
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no bridge's configuration: {error}.") from error

    def write(self, folder: Path) -> None:
        """Write `config.json`."""
        (folder / CONFIG_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")


def list_parts(config: BridgeConfig) -> list[str]:
    """The files that a saved bridge has besides its configuration."""
    parts = [FUSION_FILE]
    if config.use_lora:
        parts += [ADAPTER_CONFIG_FILE, ADAPTER_FILE]
    else:
        parts.append(LANGUAGE_FILE)
    if not config.freeze_olmoearth:
        parts.append(ENCODER_FILE)
    if config.use_vlm_vision and not config.freeze_vlm_vision:
        parts.append(VISION_FILE)
    return parts


def check_parts(folder: Path, config: BridgeConfig) -> None:
    """Raise FileNotFoundError that names the part which a saved bridge lacks."""
    for part in list_parts(config):
        if not (folder / part).is_file():
            raise FileNotFoundError(f"The bridge at {folder} lacks its {part}.")


def bridge_revision(folder: str | Path) -> str:
    """The start of a SHA-256 over all that decides a saved bridge's embeddings and answers.

    That is its weight files, and every entry of its configuration but DESCRIPTIVE_ENTRIES. Raises
    what `BridgeConfig.read` and `check_parts` do.
    """
    folder = Path(folder)
    config = BridgeConfig.read(folder)
    check_parts(folder, config)
    entries = {n: value for n, value in asdict(config).items() if n not in DESCRIPTIVE_ENTRIES}
    digest = hashlib.sha256(json.dumps(entries, sort_keys=True).encode())
    weights = [part for part in list_parts(config) if part.endswith(".safetensors")]
    for part in weights:
        with (folder / part).open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:REVISION_LENGTH]
