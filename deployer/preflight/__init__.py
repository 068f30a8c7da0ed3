"""Checks before anything is made, one module for each subject; what they find is data (`model.Finding`)."""
