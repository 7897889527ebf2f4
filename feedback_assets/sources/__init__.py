"""What comes in: the policy's sources, their files, and the mapping of both to the record."""
