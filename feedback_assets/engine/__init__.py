"""Where part-wise functions run."""
