"""Scheduler files and notebooks: where and how flows are run."""
