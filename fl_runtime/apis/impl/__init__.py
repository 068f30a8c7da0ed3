"""What stands behind the interfaces of `fl_runtime.apis`."""
