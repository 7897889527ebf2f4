"""The signal: how far its distributions lie apart (`drift`), and which columns are monitored (`monitor`)."""
