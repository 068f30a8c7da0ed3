"""What runs on the participants' machines: hub, agent, jobs, Client API, admin API."""
