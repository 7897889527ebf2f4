"""One stage at a time: resolve, load, run, write, check, commit. No Dagster here."""
