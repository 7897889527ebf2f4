"""Human feedback becomes a training set with its provenance: a Dagster asset graph in which every row has a fate."""
