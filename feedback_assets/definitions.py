"""What `dagster dev` loads: the definitions of the project named by FEEDBACK_ASSETS_POLICY, or of the synthetic sample."""

from feedback_assets.orchestration.build import build_definitions
from feedback_assets.cli.project import project_from_environment

defs = build_definitions(project_from_environment())
