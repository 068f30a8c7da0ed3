"""The runtime's process on the server: registers sites, keeps jobs, pushes tasks, closes rounds."""
