"""Algorithms on the server's side of a job, and the process that runs them."""
