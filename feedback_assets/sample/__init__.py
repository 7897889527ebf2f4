"""A synthetic project to try everything on; nothing in it was written or judged by a person."""
