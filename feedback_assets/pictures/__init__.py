"""Drawing: plain numbers become SVG text. Nothing here knows a stage, a store or Dagster."""
