"""Checks: what a materialization must keep, as results that can be stored, shown and gated on."""
