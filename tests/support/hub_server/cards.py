"""What the Hub says of a card's metadata before a push.

Read from huggingface_hub's repocard.py (`RepoCard.validate`: POST /api/validate-yaml).
"""

from __future__ import annotations

import yaml

from tests.support.hub_server.messages import Answer, Request
from tests.support.hub_server.routes import Route


def validate_yaml(request: Request) -> Answer:
    """The Hub's rule for licences that it does not list; ModelCardData checks the other fields."""
    front = yaml.safe_load(request.json["content"].split("---")[1])
    named = front.get("license") != "other" or front.get("license_name")
    errors = [] if named else [{"message": '"license_name" is required', "line": 1}]
    return Answer(400 if errors else 200, {"errors": errors, "warnings": []})


ROUTES = [Route("POST", "/api/validate-yaml", validate_yaml)]
