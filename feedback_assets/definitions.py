"""What `dagster dev` loads: the project that FEEDBACK_ASSETS_POLICY names, or the synthetic sample."""

from feedback_assets.cli.project import project_from_environment
from feedback_assets.orchestration.build import build_definitions

defs = build_definitions(project_from_environment())
