"""Filters change values before a result leaves a site (or a task reaches the script), outside the job's process."""
