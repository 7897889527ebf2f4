"""The work: pure functions on Polars frames, a file a stage."""
