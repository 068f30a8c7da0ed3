"""The runtime's process on a site: keeps the link to the server, runs jobs' scripts, keeps what they computed."""
