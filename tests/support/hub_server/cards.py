"""The Hub's checks of a card's metadata, which the client requests before it pushes a README.

Read from huggingface_hub's repocard.py (`RepoCard.validate`: POST /api/validate-yaml), hf_api.py
(`_validate_yaml`) and repocard_data.py (`model_index_to_eval_results`: a model-index's fields).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.support.hub_server.messages import Answer, Request
from tests.support.hub_server.routes import Route

FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---", re.DOTALL)
# The identifiers of https://huggingface.co/docs/hub/repositories-licenses.
LICENCES = set(
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 "
    "bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause "
    "bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 "
    "cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 "
    "cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 "
    "cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 "
    "eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research "
    "intel-research "
    "lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 "
    "postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license "
    "fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 "
    "gemma unknown other".split()
)
# ISO 639 codes with optional script or region, and the Hub's own values.
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*|multilingual|code")
MODEL_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*|[\w-][\w.-]*")


def validate_yaml(request: Request) -> Answer:
    """Check the front matter of a README. A missing one gives a warning only."""
    match = FRONT_MATTER.match(request.json["content"])
    if match is None:
        return Answer(content={"errors": [], "warnings": [{"message": "empty metadata"}]})
    try:
        front = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        front = str(error)
    if isinstance(front, dict):
        messages = list(find_errors(front))
    else:
        messages = [f"the metadata is no YAML mapping: {front}"]
    errors = [{"message": message, "line": 1} for message in messages]
    return Answer(400 if errors else 200, {"errors": errors, "warnings": []})


def find_errors(front: dict[str, Any]) -> Iterator[str]:
    """List what the Hub refuses in a card's metadata."""
    for licence in _as_list(front.get("license")):
        if licence not in LICENCES:
            yield f'"license" must be one of the known licences, not {licence!r}'
    if "other" in _as_list(front.get("license")) and not front.get("license_name"):
        yield '"license_name" is required'
    link = front.get("license_link")
    if link and link not in ("LICENSE", "LICENSE.md") and not str(link).startswith("https://"):
        yield '"license_link" must be LICENSE, LICENSE.md or a URL'
    for model in _as_list(front.get("base_model")):
        if not isinstance(model, str) or not MODEL_ID.fullmatch(model):
            yield f'"base_model" must be a model id, not {model!r}'
    for language in _as_list(front.get("language")):
        if not isinstance(language, str) or not LANGUAGE.fullmatch(language):
            yield f'"language" must be an ISO 639 code, not {language!r}'
    for model in front.get("model-index") or []:
        if not model.get("name") or not isinstance(model.get("results"), list):
            yield '"model-index" needs a name and results'
            continue
        for result in model["results"]:
            yield from _find_result_errors(result)


def _find_result_errors(result: dict[str, Any]) -> Iterator[str]:
    for section, names in (("task", ["type"]), ("dataset", ["type", "name"])):
        for name in names:
            if not (result.get(section) or {}).get(name):
                yield f'"model-index" needs {section}.{name}'
    metrics = result.get("metrics")
    if not metrics or not all("type" in each and "value" in each for each in metrics):
        yield '"model-index" needs metrics with type and value'


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


ROUTES = [Route("POST", "/api/validate-yaml", validate_yaml)]
