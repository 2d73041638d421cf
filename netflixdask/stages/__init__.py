"""Stages: ingest, synth, stats, split, canopy, similarity. They know no model."""
