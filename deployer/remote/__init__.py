"""What runs on a machine before fedspan is installed there: single files of standard-library Python 3.10."""
