"""Models as safetensors: mapped, written, checked and averaged, never more than a block in memory."""
