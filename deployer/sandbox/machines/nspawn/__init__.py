"""Machines with a kernel's help: systemd-nspawn in a network namespace of its own. Needs root on Linux."""
