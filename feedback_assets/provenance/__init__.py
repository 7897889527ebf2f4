"""Releases, and the questions asked of them."""
