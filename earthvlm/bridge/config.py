"""The files of a saved bridge, and the configuration from which it is built again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from earthvlm.models.adapter_config import PEFT_CONFIG_FILE, AdapterConfig
from earthvlm.models.text_encoder import SENTENCE_MODEL_ID, SENTENCE_MODEL_REVISION
from earthvlm.scenes.analysis.distribution_shift import TrainingStatistics
from earthvlm.scenes.bands import BANDS
from earthvlm.storage.files import sha256

FORMAT_VERSION = 1

CONFIG_FILE = "config.json"
FUSION_FILE = "fusion.safetensors"
SEGMENTATION_FILE = "segmentation.safetensors"
ENCODER_FILE = "encoder.safetensors"
VISION_FILE = "vision.safetensors"
LANGUAGE_FILE = "language_model.safetensors"
ADAPTER_FOLDER = "adapter"
ADAPTER_FILE = f"{ADAPTER_FOLDER}/adapter_model.safetensors"
ADAPTER_CONFIG_FILE = f"{ADAPTER_FOLDER}/{PEFT_CONFIG_FILE}"
# The files that a bridge is loaded from.
BRIDGE_FILES = (
    CONFIG_FILE,
    FUSION_FILE,
    SEGMENTATION_FILE,
    ENCODER_FILE,
    VISION_FILE,
    LANGUAGE_FILE,
    ADAPTER_FILE,
    ADAPTER_CONFIG_FILE,
)
# Files that are published with them, for people to read.
CARD_FILE = "README.md"
CURVE_FILE = "loss_curve.png"
LOG_FILE = "training_log.json"
EVAL_RESULTS_FILE = ".eval_results/earthvlm.yaml"
SAMPLES_FOLDER = "samples"
PUBLISHED_FILES = (
    *(*BRIDGE_FILES, CARD_FILE, EVAL_RESULTS_FILE, CURVE_FILE, LOG_FILE),
    f"{SAMPLES_FOLDER}/*.png",
)
# Files that a push replaces or deletes, those of adapters in PEFT's other formats included.
OWNED_FILES = (*PUBLISHED_FILES, f"{ADAPTER_FOLDER}/adapter_model*")

# Entries that describe a bridge and change neither embeddings nor answers.
DESCRIPTIVE_ENTRIES = (
    *("trained_on", "training", "training_tiles"),
    *("format_version", "earthvlm_version"),
)
# Entries added to format 1 later: while they are off, bridges keep the revision that they had.
LATER_ENTRIES = ("scene_context", "english_only", "segmentation_head")
REVISION_LENGTH = 12  # hexadecimal digits
# What readers should keep in mind about answers.
LIMITS = (
    "Answers can be wrong. The model names broad land cover and rounded shares; single objects, "
    "names of places and changes in time are beyond it."
)


def sample_picture(folder: Path, image: str) -> Path:
    """Return the path of a validation tile's picture in the folder of a trained bridge."""
    return folder / SAMPLES_FOLDER / f"{Path(image).stem}.png"


@dataclass(frozen=True)
class BridgeConfig:
    """The entries of a bridge's `config.json`: with the weights, all that builds it again.

    The entries that are not named here are the constructor's arguments; see `BridgeNetwork`.

    Attributes:
        scene_context: whether prompts hold facts and measurements of the scene as text; see
            `write_scene_context`.
        english_only: whether a question in another language gets `ASK_IN_ENGLISH`.
        segmentation_head: whether a head maps the land cover of each pixel; see `segment`.
        lora_r: of the adapter, whose own `adapter_config.json` decides where it says otherwise.
        lora_alpha: as `lora_r`.
        sentence_model_id: of the text encoder whose space scenes are embedded in.
        sentence_model_revision: of that text encoder.
        trained_on: a sentence on its training; empty for a bridge that was not trained.
        training: the last stage of training, with the stages before it under "earlier".
        training_tiles: statistics of the training tiles; None where nothing warns of scenes that
            are unlike them.
        format_version: of the files.
        earthvlm_version: of the package that wrote the files; empty until they are written.
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
    lora_alpha: float = 32
    num_geo_queries: int = 32
    bands: tuple[str, ...] = BANDS
    patch_size: int = 8
    embedding_patch_size: int = 8
    scene_context: bool = False
    english_only: bool = False
    segmentation_head: bool = False
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

        Raises FileNotFoundError where there is none, and ValueError for another format, a missing
        entry or an unknown one.
        """
        path = folder / CONFIG_FILE
        try:
            values = json.loads(path.read_text("utf-8"))
            version = values["format_version"]
            if version != FORMAT_VERSION:
                raise ValueError(
                    f"{path} has format {version}, and this earthvlm reads format "
                    f"{FORMAT_VERSION}: pip install 'earthvlm=={values['earthvlm_version']}'."
                )
            names = {f.name for f in fields(cls)}
            if names - set(values):
                lacking = ", ".join(sorted(names - set(values)))
                raise ValueError(f"{path} is not a bridge's configuration: it lacks {lacking}.")
            unknown = set(values) - names
            if unknown:
                raise ValueError(f"{path} has unknown entries: {', '.join(sorted(unknown))}.")
            tiles = values["training_tiles"]
            parsed = {
                "bands": tuple(values["bands"]),
                "training_tiles": tiles and TrainingStatistics.from_entry(tiles),
            }
            return cls(**values | parsed)
        except FileNotFoundError:
            if (folder / PEFT_CONFIG_FILE).is_file():
                raise ValueError(
                    f"{folder} holds a PEFT adapter, not a bridge: give the folder of a bridge, "
                    f"which has the adapter in {ADAPTER_FOLDER}/, next to {CONFIG_FILE} "
                    f"and {FUSION_FILE}."
                ) from None
            raise FileNotFoundError(f"{folder} holds no {CONFIG_FILE}: it is no bridge.") from None
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a bridge's configuration: {error}.") from error

    def write(self, folder: Path) -> None:
        """Write `config.json`."""
        (folder / CONFIG_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", "utf-8")


def list_parts(config: BridgeConfig) -> list[str]:
    """List the files that a saved bridge must have besides its configuration."""
    parts = [FUSION_FILE]
    if config.segmentation_head:
        parts.append(SEGMENTATION_FILE)
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
    """Raise FileNotFoundError that names a missing file of a saved bridge."""
    for part in list_parts(config):
        if not (folder / part).is_file():
            raise FileNotFoundError(f"The bridge at {folder} lacks its {part}.")


def read_configs(folder: Path) -> tuple[BridgeConfig, AdapterConfig | None]:
    """Read the configurations of a saved bridge, with its adapter's own rank and alpha.

    Raises what `BridgeConfig.read`, `check_parts` and `AdapterConfig.read` do.
    """
    config = BridgeConfig.read(folder)
    check_parts(folder, config)
    if not config.use_lora:
        return config, None
    adapter = AdapterConfig.read(folder / ADAPTER_CONFIG_FILE)
    return replace(config, lora_r=adapter.rank, lora_alpha=adapter.alpha), adapter


def bridge_revision(folder: str | Path) -> str:
    """Hash what determines a saved bridge's embeddings and answers, as `REVISION_LENGTH` digits.

    That is its weight files, how its adapter is scaled, and all entries of its configuration but
    DESCRIPTIVE_ENTRIES and those of LATER_ENTRIES that are off. Raises what `read_configs` does.
    """
    folder = Path(folder)
    config, adapter = read_configs(folder)
    entries = {
        name: value
        for name, value in asdict(config).items()
        if name not in DESCRIPTIVE_ENTRIES and (value or name not in LATER_ENTRIES)
    }
    if adapter is not None:
        entries |= adapter.scaling_entries()
    digest = hashlib.sha256(json.dumps(entries, sort_keys=True).encode())
    weights = [part for part in list_parts(config) if part.endswith(".safetensors")]
    for part in weights:
        digest.update(bytes.fromhex(sha256(folder / part)))
    return digest.hexdigest()[:REVISION_LENGTH]
