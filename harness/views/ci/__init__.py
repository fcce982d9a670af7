"""Verdicts for continuous integration: as JUnit XML, which every CI reads, and as Markdown for a job's summary."""
