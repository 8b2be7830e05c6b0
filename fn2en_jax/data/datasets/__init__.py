"""The published sets: one file each, one explicit table."""

DATASETS: dict = {}
