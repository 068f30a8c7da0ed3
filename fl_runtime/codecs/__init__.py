"""Codecs change how a model travels, not what the receiver may compute with: it gets decoded values."""
