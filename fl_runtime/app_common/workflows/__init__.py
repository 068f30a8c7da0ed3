"""See `fl_runtime.app_common`."""
