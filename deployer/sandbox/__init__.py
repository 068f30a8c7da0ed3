"""Both clouds and their machines, emulated on one machine."""
