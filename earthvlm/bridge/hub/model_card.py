"""The model card of a bridge, written from its configuration, training log and evaluation."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from earthvlm.bridge.base_models import find_base_models, find_language_model
from earthvlm.bridge.config import (
    ADAPTER_FOLDER,
    CARD_FILE,
    CURVE_FILE,
    LANGUAGE_FILE,
    LIMITS,
    LOG_FILE,
    BridgeConfig,
    bridge_revision,
    sample_picture,
)
from earthvlm.metrics.results import MetricResult, as_markdown
from earthvlm.models.language.moondream2 import MOONDREAM_ID
from earthvlm.models.language.smollm2 import EMBEDDED_MODEL_ID
from earthvlm.storage.hub import BUNDLED

OLMOEARTH_LICENCE = "https://github.com/allenai/olmoearth_pretrain/blob/main/LICENSE"
TAGS = ["earth-observation", "geospatial", "lora", "olmoearth", "remote-sensing", "sentinel-2"]
TASK = ("image-text-to-text", "Image-Text-to-Text")
CHATEARTHNET = (
    "ChatEarthNet (Yuan et al., 2024) is under CC-BY-4.0; where the bridge was trained on it, name "
    "its authors."
)


def write_bridge_card(
    folder: Path,
    repo_id: str,
    results: dict | None = None,
    notes: str = "",
    samples: str = "",
) -> None:
    """Write README.md into a saved bridge's folder.

    Args:
        folder: of the bridge.
        repo_id: where the bridge will be, or "bundled".
        results: of `read_results`.
        notes: Markdown on its data and limits.
        samples: Markdown with answers in addition to those of its log.

    Raises:
        ValueError: for results of another bridge.
    """
    config = BridgeConfig.read(folder)
    revision = bridge_revision(folder)
    if results is not None and results["bridge"] != revision:
        raise ValueError(
            f"The results are of bridge {results['bridge']}, and this bridge is {revision}: "
            "evaluate it with `earthvlm evaluate --output`."
        )
    name = "The bridge that earthvlm bundles" if repo_id == BUNDLED else repo_id.rpartition("/")[2]
    metrics = [MetricResult(**entry) for entry in results["metrics"]] if results else []
    split = results["split"] if results else ""
    released = not config.olmoearth_model_id.startswith("random-")
    data = ModelCardData(
        language="en",
        license="other" if released else "apache-2.0",
        license_name="olmoearth-artifact-license" if released else None,
        license_link=OLMOEARTH_LICENCE if released else None,
        library_name="earthvlm",
        pipeline_tag=TASK[0],
        tags=[tag for tag in TAGS if config.use_lora or tag != "lora"],
        base_model=[model.repository for model in find_base_models(config) if model.repository]
        or None,
        datasets=_datasets(config) or None,
        model_name=name,
        eval_results=[_as_result(metric, results or {}) for metric in metrics] or None,
    )
    parts = [
        f"# {name}",
        _summary(config, revision),
        _how_to_use(repo_id, config),
        "## Evaluation\n\n" + (_table(metrics, split) if results else "Not evaluated yet."),
        _samples(folder),
        samples,
        _training(config, folder),
        notes.strip(),
        _licences(config, released),
    ]
    text = "\n\n".join(part for part in parts if part)
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n").save(folder / CARD_FILE)


def _datasets(config: BridgeConfig) -> list[str]:
    """List the Hub's datasets that any run trained on."""
    named = [run["dataset"].split(", ") for run in _runs(config) if run["dataset"]]
    return sorted({name for names in named for name in names})


def _runs(config: BridgeConfig) -> list[dict]:
    """List the training runs, the last one last; none for a bridge that was not trained."""
    last = config.training
    return [*last["earlier"], last] if last else []


def _as_result(metric: MetricResult, results: dict) -> EvalResult:
    dataset = results.get("dataset")
    return EvalResult(
        task_type=TASK[0],
        task_name=TASK[1],
        dataset_type=dataset or "sentinel-2",
        dataset_name="ChatEarthNet" if dataset else "tiles in ChatEarthNet's layout",
        dataset_split=results["split"],
        metric_type=metric.name,
        metric_value=round(metric.value, 4),
        metric_name=metric.name,
    )


def _summary(config: BridgeConfig, revision: str) -> str:
    trained = config.trained_on or "not trained: its answers mean nothing"
    learned = (
        "which a LoRA adapter taught to read them"
        if config.use_lora
        else "all of whose weights were trained to read them"
    )
    rows = [
        ("encoder", config.olmoearth_model_id, config.olmoearth_revision),
        ("language model", config.vlm_model_id, config.vlm_revision),
        ("sentences", config.sentence_model_id, config.sentence_model_revision),
    ]
    table = "\n".join(f"| {part} | `{name}` | `{rev or 'local'}` |" for part, name, rev in rows)
    return (
        "Answers questions about Sentinel-2 scenes, and embeds them in the space of sentences for "
        f"search. {config.num_geo_queries} learned queries carry OlmoEarth's tokens into the "
        f"language model, {learned}; it was {trained}. Revision of the "
        f"bridge: `{revision}`.\n\n| part | model | revision |\n|---|---|---|\n{table}"
    )


def _how_to_use(repo_id: str, config: BridgeConfig) -> str:
    return f'''## How to use

```python
from earthvlm import OlmoEarthVLMBridge, Scene

bridge = OlmoEarthVLMBridge.from_pretrained("{repo_id}")
scene = Scene.open("scene.tif")
print(bridge.generate(scene, "Describe this scene."))
```
{_how_to_use_adapter(repo_id, config)}
`fusion.safetensors` loads by safetensors alone.'''


def _how_to_use_adapter(repo_id: str, config: BridgeConfig) -> str:
    model = find_language_model(config)
    # PEFT would run Moondream2's own code, whose layers have other names.
    if not config.use_lora or repo_id == BUNDLED or model.repository in (None, MOONDREAM_ID):
        return ""
    other = (
        f" The bridge was trained on that model's 4-bit weights, from which `{model.repository}` "
        "differs by their rounding."
        if config.vlm_model_id == EMBEDDED_MODEL_ID
        else ""
    )
    return f'''
The adapter alone, in the language model it adapts, by PEFT:

```python
from huggingface_hub import snapshot_download
from peft import AutoPeftModelForCausalLM

folder = snapshot_download("{repo_id}", allow_patterns="{ADAPTER_FOLDER}/*")
model = AutoPeftModelForCausalLM.from_pretrained(f"{{folder}}/{ADAPTER_FOLDER}")
```
{other}'''.rstrip(" ")


def _table(metrics: list[MetricResult], split: str) -> str:
    return (
        f"On split `{split}`, greedy decoding, with 95 % intervals and two baselines: "
        "the same bridge given another tile's image (shuffled image), and none (no image).\n\n"
        f"{as_markdown(metrics)}\n\n"
        f"    earthvlm evaluate --data_dir DATA --split {split} --output results.json"
    )


def _samples(folder: Path) -> str:
    """Write a table of the last validation's answers next to the references."""
    samples = read_last_samples(folder)
    if not samples:
        return ""
    rows = "\n".join(
        f"| {_picture(folder, sample['image'])} | {as_cell(sample['answer'])} "
        f"| {as_cell(sample['reference'])} |"
        for sample in samples
    )
    head = "| scene | answer | reference |\n|---|---|---|"
    asked = 'Asked "Describe this scene." at the end of training:'
    return f"## Sample answers\n\n{asked}\n\n{head}\n{rows}"


def read_last_samples(folder: Path) -> list[dict]:
    """Read the answers of the last validation in a bridge's log; none where it has no log.

    Raises ValueError where the log is damaged.
    """
    path = folder / LOG_FILE
    if not path.is_file():
        return []
    try:
        log = json.loads(path.read_text("utf-8"))
        validations = [entry["samples"] for entry in log if entry["stage"] == "validation"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: remove it, or save the bridge again.") from error
    return validations[-1] if validations else []


def read_results(path: Path) -> dict:
    """Read the results that `earthvlm evaluate --output` wrote.

    Raises FileNotFoundError where there is no such file, ValueError where it holds something else.
    """
    try:
        results = json.loads(path.read_text("utf-8"))
        for metric in (MetricResult(**entry) for entry in results["metrics"]):
            as_markdown([metric])
            round(metric.value, 4)
        if not isinstance(results["bridge"], str) or not isinstance(results["split"], str):
            raise TypeError
    except FileNotFoundError:
        raise FileNotFoundError(
            f"There are no results at {path}: `earthvlm evaluate --output {path}` writes them."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged or holds no results: write it again with "
            f"`earthvlm evaluate --output {path}`."
        ) from error
    return results


def _picture(folder: Path, image: str) -> str:
    path = sample_picture(folder, image)
    if not path.is_file():
        return f"`{image}`"
    return f"![{image}]({path.relative_to(folder).as_posix()})"


def as_cell(text: str) -> str:
    """Escape text for a cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())


def _training(config: BridgeConfig, folder: Path) -> str:
    runs = _runs(config)
    if not runs:
        return ""
    commands = "\n\n".join(map(_describe_run, runs))
    several = f", in {len(runs)} runs" * (len(runs) > 1)
    curve = f"\n\n![Losses]({CURVE_FILE})" * (folder / CURVE_FILE).is_file()
    return f"## Training\n\nBy `earthvlm train`{several}:\n\n```bash\n{commands}\n```{curve}"


def _describe_run(run: dict) -> str:
    """Write a run's command, an argument on each line, under a comment on its duration."""
    command = run["command"].replace(" --", " \\\n  --")
    return (
        f"# {run['steps']:,} steps, {run['seconds'] / 60:.0f} minutes on {run['device']} "
        f"with torch {run['torch']}\n{command}"
    )


def _licences(config: BridgeConfig, released: bool) -> str:
    encoder = (
        f"OlmoEarth's weights, by Ai2, are under the [OlmoEarth Artifact License]"
        f"({OLMOEARTH_LICENCE}), whose use restrictions pass on to what is made from them, this "
        "bridge included; cite Ai2."
        if released
        else "The encoder has OlmoEarth's architecture and was trained from random weights: no "
        "released OlmoEarth weights are in it."
    )
    language = (
        ""
        if config.use_lora
        else f"`{LANGUAGE_FILE}` is a fine-tuned copy of `{config.vlm_model_id}`, whose licence "
        "applies to it.\n\n"
    )
    return f"## Limits and licences\n\n{LIMITS}\n\n{encoder}\n\n{language}{CHATEARTHNET}"
